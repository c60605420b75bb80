// Child of bench/main.mjs: measures event-loop delay for some seconds of prefill runs, back to back, executed by
//   node-tensorrt    in this process
//   onnxruntime-node in this process
//   separate         onnxruntime-node in another process: what these cores allow at best
//   run              no probe: executes runs until killed (the other process of `separate`)
// Prints { runs, runMs, longestMs, p99Ms } as JSON. The probe is a 2 ms timer; delay is how late it fires.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { eventLoopDelay, percentile } from './event-loop-delay.mjs';

const [mode, model, seconds, tokens, threads] = process.argv.slice(2);
const length = Number(tokens);
const ids = BigInt64Array.from({ length }, (_, i) => BigInt((i * 7) % 8192));

async function runner(name) {
  if (name === 'node-tensorrt') {
    const { InferenceSession, Tensor } = await import('node-tensorrt');
    const session = await InferenceSession.create(model, { device: 'cpu', threads: Number(threads) });
    const feeds = { input_ids: new Tensor('int64', ids, [1, length]) };
    return () => session.run(feeds);
  }
  const { InferenceSession, Tensor } = createRequire(import.meta.url)('onnxruntime-node');
  const session = await InferenceSession.create(model, { intraOpNumThreads: Number(threads) });
  const feeds = { input_ids: new Tensor('int64', ids, [1, length]) };
  return () => session.run(feeds);
}

async function otherProcess() {
  const child = fork(process.argv[1], ['run', ...process.argv.slice(3)]);
  await once(child, 'message'); // warm
  let runs = 0;
  child.on('message', () => runs++);
  return { run: () => once(child, 'message'), stop: () => child.kill(), runs: () => runs };
}

if (mode === 'run') {
  const run = await runner('onnxruntime-node');
  for (;;) {
    await run();
    process.send('done');
  }
}

const other = mode === 'separate' ? await otherProcess() : undefined;
const run = other ? other.run : await runner(mode);
await run();
await run();

const durations = [];
const delay = await eventLoopDelay(async () => {
  const started = performance.now();
  await run();
  durations.push(performance.now() - started);
}, Number(seconds));
other?.stop();

process.stdout.write(JSON.stringify({ runs: durations.length, runMs: percentile(durations, 0.5), ...delay }));
process.exit(0);
