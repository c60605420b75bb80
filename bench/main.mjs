// Measures what this package promises, beside onnxruntime-node, in one run on the same machine: event-loop delay during
// long runs, and the cost of a single large run and of importing.
// `node bench/main.mjs [--rounds 5] [--seconds 5] [--json]`
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { llamaModel } from './llama.mjs';
import { median } from './step-time.mjs';

const root = path.resolve(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(options.rounds);
const threads = Math.min(os.availableParallelism(), 4);
const require = createRequire(import.meta.url);

const child = (...args) =>
  execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

/** Milliseconds to import, in fresh processes, and whether that opened a native library. */
function measureImport() {
  const script = (name) =>
    `const t = performance.now(); require('${name}'); const ms = performance.now() - t;
     const maps = require('fs').readFileSync('/proc/self/maps', 'utf8');
     console.log(JSON.stringify({ ms, opened: /\\.node$|onnxruntime|nvinfer|tensorrt_rtx|libcuda/m.test(maps) }))`;
  const results = {};
  for (const name of ['node-tensorrt', 'onnxruntime-node']) {
    const samples = Array.from({ length: 11 }, () => JSON.parse(child('-e', script(name))));
    results[name] = {
      ms: median(samples.map((sample) => sample.ms)),
      opensLibrary: samples.some((sample) => sample.opened),
    };
  }
  return results;
}

/** The median of the ratios of neighbouring runs, ours to theirs, in alternating order. */
async function measureSingleRun(model, tokens) {
  const ours = await import('node-tensorrt');
  const theirs = require('onnxruntime-node');
  const ids = BigInt64Array.from({ length: tokens }, (_, i) => BigInt((i * 7) % 8192));
  // One session at a time, since the idle threads of one would take cores from the other.
  const sample = async (create, Tensor) => {
    const session = await create();
    const feeds = { input_ids: new Tensor('int64', ids, [1, tokens]) };
    const times = [];
    for (let i = 0; i < 8; i++) {
      const started = performance.now();
      await session.run(feeds);
      if (i >= 2) times.push(performance.now() - started);
    }
    await session.release();
    return median(times);
  };
  const runs = {
    'node-tensorrt': () =>
      sample(() => ours.InferenceSession.create(model, { device: 'cpu', threads }), ours.Tensor),
    'onnxruntime-node': () =>
      sample(() => theirs.InferenceSession.create(model, { intraOpNumThreads: threads }), theirs.Tensor),
  };
  const times = { 'node-tensorrt': [], 'onnxruntime-node': [] };
  for (let round = 0; round < 2 * rounds; round++) {
    const order = Object.keys(runs);
    if (round % 2 === 1) order.reverse();
    for (const name of order) times[name].push(await runs[name]());
  }
  return {
    'node-tensorrt': { ms: median(times['node-tensorrt']) },
    'onnxruntime-node': { ms: median(times['onnxruntime-node']) },
    ratio: median(times['node-tensorrt'].map((ms, i) => ms / times['onnxruntime-node'][i])),
  };
}

/** Event-loop delay while prefills run back to back: medians over the rounds. */
function measureEventLoop(model, tokens) {
  const modes = ['node-tensorrt', 'separate', 'onnxruntime-node'];
  const samples = Object.fromEntries(modes.map((mode) => [mode, []]));
  for (let round = 0; round < rounds; round++) {
    for (const mode of modes) {
      const args = ['bench/event-loop.mjs', mode, model, options.seconds, String(tokens), String(threads)];
      samples[mode].push(JSON.parse(child(...args)));
    }
  }
  return Object.fromEntries(
    modes.map((mode) => [
      mode,
      Object.fromEntries(
        ['runs', 'runMs', 'longestMs', 'p99Ms'].map((key) => [key, median(samples[mode].map((s) => s[key]))]),
      ),
    ]),
  );
}

const model = await llamaModel(path.join(root, 'build/bench'));
const tokens = 512;
const report = {
  machine: { cpu: os.cpus()[0]?.model, cores: os.availableParallelism(), node: process.version, threads },
  import: measureImport(),
  singleRun: await measureSingleRun(model, tokens),
  eventLoop: measureEventLoop(model, tokens),
};

if (options.json) {
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  process.exit(0);
}
const ms = (value) => `${value.toFixed(1)} ms`;
const { import: imported, singleRun, eventLoop } = report;
console.log(
  `${report.machine.cpu}, ${report.machine.cores} cores, Node ${process.version}, ${threads} threads`,
);
console.log(`Model: a 31-million-parameter Llama with random weights, prefill of ${tokens} tokens\n`);
console.log('Import (median of 11 processes)');
console.table({
  'node-tensorrt': {
    time: ms(imported['node-tensorrt'].ms),
    'opens a library': imported['node-tensorrt'].opensLibrary,
  },
  'onnxruntime-node': {
    time: ms(imported['onnxruntime-node'].ms),
    'opens a library': imported['onnxruntime-node'].opensLibrary,
  },
});
console.log(`One run (median of ${2 * rounds} rounds; ratio: median of paired rounds)`);
console.table({
  'node-tensorrt': { time: ms(singleRun['node-tensorrt'].ms), ratio: singleRun.ratio.toFixed(3) },
  'onnxruntime-node': { time: ms(singleRun['onnxruntime-node'].ms), ratio: '1' },
});
console.log(`Event-loop delay over ${options.seconds} s of runs back to back (medians of ${rounds} rounds)`);
console.table(
  Object.fromEntries(
    Object.entries(eventLoop).map(([mode, result]) => [
      mode === 'separate' ? 'in another process (floor)' : mode,
      {
        longest: ms(result.longestMs),
        p99: ms(result.p99Ms),
        'a run': ms(result.runMs),
        runs: result.runs,
      },
    ]),
  ),
);
