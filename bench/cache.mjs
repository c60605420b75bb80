// Measures a build that the engine cache answers, beside the same build without a cache: MiniLM (90 MB, an engine of 50
// MB), in FP16 for sm_89. Rounds alternate a cold build, a cached build in a fresh process, and a cached build in a
// process that has built before. Prints medians, also of the rounds' ratios.
// `node bench/cache.mjs [--rounds 7] [--json]`
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { buildEngine } from 'node-tensorrt';
import { buildBert, writeModel } from 'node-tensorrt/onnx';
import { minilmDirectory } from '../scripts/minilm.mjs';
import { median } from './step-time.mjs';

const root = path.resolve(import.meta.dirname, '..');
const { values: flags } = parseArgs({
  options: { rounds: { type: 'string', default: '7' }, json: { type: 'boolean', default: false } },
});
const rounds = Number(flags.rounds);
const range = { min: [1, 8], opt: [8, 64], max: [32, 256] };
const shapes = { input_ids: range, attention_mask: range, token_type_ids: range };
const directory = await mkdtemp(path.join(os.tmpdir(), 'bench-cache-'));
try {
  const model = path.join(directory, 'minilm.onnx');
  await writeModel(await buildBert(await minilmDirectory()), model);
  const options = { target: 'sm_89', shapes, cache: path.join(directory, 'cache') };

  /** Milliseconds of one build, and of its processor time. */
  async function timed(more = {}) {
    const processor = process.cpuUsage();
    const began = performance.now();
    const engine = await buildEngine(model, { ...options, ...more });
    const ms = performance.now() - began;
    const { user, system } = process.cpuUsage(processor);
    return { ms, cpuMs: (user + system) / 1000, fromCache: engine.fromCache };
  }

  /** The same, measured from `buildEngine`'s import on, in its own process. */
  function timedInFreshProcess() {
    const script = `
      const began = performance.now();
      require('node-tensorrt').buildEngine(${JSON.stringify(model)}, ${JSON.stringify(options)}).then((engine) => {
        const ms = performance.now() - began;
        const { user, system } = process.cpuUsage();
        console.log(JSON.stringify({ ms, cpuMs: (user + system) / 1000, fromCache: engine.fromCache }));
      });`;
    return JSON.parse(execFileSync(process.execPath, ['-e', script], { cwd: root, encoding: 'utf8' }));
  }

  await timed(); // fills the cache, and the memo of hashes
  const samples = { cold: [], fresh: [], warm: [] };
  for (let round = 0; round < rounds; round++) {
    samples.cold.push(await timed({ cache: false }));
    samples.fresh.push(timedInFreshProcess());
    samples.warm.push(await timed());
  }
  if (![...samples.fresh, ...samples.warm].every(({ fromCache }) => fromCache))
    throw new Error('The cache did not answer.');

  const report = Object.fromEntries(
    Object.entries(samples).map(([name, list]) => [
      name,
      {
        ms: median(list.map(({ ms }) => ms)),
        cpuMs: median(list.map(({ cpuMs }) => cpuMs)),
        toCold: median(list.map(({ ms }, i) => ms / samples.cold[i].ms)),
      },
    ]),
  );
  if (flags.json) {
    process.stdout.write(`${JSON.stringify({ rounds, ...report }, null, 2)}\n`);
  } else {
    console.log(`buildEngine of MiniLM, medians of ${rounds} rounds`);
    const titles = {
      cold: 'without a cache',
      fresh: 'cached, in a fresh process',
      warm: 'cached, in a warm process',
    };
    console.table(
      Object.fromEntries(
        Object.entries(report).map(([name, { ms, cpuMs, toCold }]) => [
          titles[name],
          {
            ms: ms.toFixed(0),
            'processor ms': cpuMs.toFixed(0),
            'of cold': `${(100 * toCold).toFixed(1)} %`,
          },
        ]),
      ),
    );
  }
} finally {
  await rm(directory, { recursive: true });
}
