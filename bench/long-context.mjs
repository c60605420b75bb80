// Measures a long context on the CPU: the memory that a sequence of 32,768 tokens takes, beside what `kvCache` reports,
// and how fast it is read and continued. Each measurement runs in its own process.
// `node bench/long-context.mjs [--model FOLDER] [--tokens 32768] [--json]`; uses the demo model without --model.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { getHeapStatistics } from 'node:v8';
import { LanguageModel } from 'node-tensorrt';

const root = path.resolve(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: path.join(root, 'examples/demo-model') },
    tokens: { type: 'string', default: '32768' },
    json: { type: 'boolean', default: false },
    measure: { type: 'boolean', default: false },
  },
});
const tokens = Number(options.tokens);
const generated = 32;

/**
 * Bytes of this process in physical memory, without JavaScript's heap: V8 decides when to return the memory that
 * loading the model took, and would do so while the prompt is read.
 */
async function residentSet() {
  await setTimeout(1500);
  gc();
  // Another thread returns collected memory to the system.
  await setTimeout(100);
  return process.memoryUsage.rss() - getHeapStatistics().total_physical_size;
}

/** Reads `tokens` tokens into one row and continues it. Returns the growth of memory. */
async function measure(folder) {
  const model = await LanguageModel.load(folder, {
    kvCache: { maxBatchSize: 1, maxLength: tokens + generated },
  });
  const config = JSON.parse(readFileSync(path.join(folder, 'config.json'), 'utf8'));
  const ids = Array.from({ length: tokens }, (_, i) => 5 + ((i * 7919) % (config.vocab_size - 5)));
  // The memory in which a prompt's chunk is computed stays allocated, and isn't part of the cache.
  const warm = model.createSequence();
  await warm.append(ids.slice(0, 1024));
  warm.dispose();
  model.kvCache.clear();
  const before = { resident: await residentSet(), used: model.kvCache.bytesUsed };
  const sequence = model.createSequence();
  const started = performance.now();
  await sequence.append(ids);
  const read = performance.now();
  const after = { resident: await residentSet(), used: model.kvCache.bytesUsed };
  const { usage } = await sequence.generate({ maxTokens: generated, ignoreEos: true });
  const written = performance.now();
  const { mode } = model.kvCache;
  const { length } = sequence;
  await model.dispose();
  return {
    mode,
    tokens: length,
    predicted: after.used - before.used,
    measured: after.resident - before.resident,
    prefillSeconds: (read - started) / 1000,
    stepMs: (written - read) / usage.completionTokens,
  };
}

if (options.measure) {
  console.log(JSON.stringify(await measure(options.model)));
} else {
  // The graph computes its rotary embedding for any position; only the configuration limits their number.
  const folder = mkdtempSync(path.join(os.tmpdir(), 'long-context-'));
  try {
    cpSync(options.model, folder, { recursive: true });
    const config = path.join(folder, 'config.json');
    const value = JSON.parse(readFileSync(config, 'utf8'));
    value.max_position_embeddings = Math.max(value.max_position_embeddings, tokens + generated);
    writeFileSync(config, JSON.stringify(value));
    const args = [
      '--expose-gc',
      import.meta.filename,
      '--measure',
      '--model',
      folder,
      '--tokens',
      options.tokens,
    ];
    const result = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
    if (options.json) console.log(JSON.stringify(result));
    else {
      const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
      console.log(`${tokens} tokens (cache ${result.mode}):`);
      console.log(`  the cache's bytes     ${megabytes(result.predicted)}`);
      console.log(
        `  resident memory grew  ${megabytes(result.measured)} (${(result.measured / result.predicted).toFixed(3)}×)`,
      );
      console.log(
        `  prefill               ${result.prefillSeconds.toFixed(1)} s (${Math.round(tokens / result.prefillSeconds)} tokens/s)`,
      );
      console.log(`  a step after it       ${result.stepMs.toFixed(2)} ms`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
