// Child of seed-table.mjs: one Node.js runtime with one model, which executes queries on request.
// `node contestant.mjs node-tensorrt|onnxruntime-node DEVICE PRECISION MODEL FEEDS`; FEEDS is a JSON of shapes and
// fills.
// Prints { name, version, device } once it is warm. Reads lines: `turn MS` (answer: { latencies }) and `end` (answer: {
// peakBytes }, for the whole process).
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { residentMemory } from '../dist/apps/benchmark/resident-memory.js';

const [runtime, device, precision, model, feedsJson] = process.argv.slice(2);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

const arrays = { float32: Float32Array, int64: BigInt64Array };
function makeFeeds(Tensor) {
  const feeds = JSON.parse(feedsJson);
  return Object.fromEntries(
    Object.entries(feeds).map(([name, { type, dims, fill }]) => {
      const size = dims.reduce((a, b) => a * b);
      const data = new arrays[type](size).fill(type === 'int64' ? BigInt(fill) : fill);
      return [name, new Tensor(type, data, dims)];
    }),
  );
}

async function nodeTensorrt() {
  const { InferenceSession, Tensor } = await import('node-tensorrt');
  const feeds = makeFeeds(Tensor);
  const onGpu = device.startsWith('cuda');
  const shapes = Object.fromEntries(Object.entries(feeds).map(([name, { dims }]) => [name, dims]));
  const session = await InferenceSession.create(model, { device, ...(onGpu ? { precision, shapes } : {}) });
  const { name, version } = session.runtime;
  return { name: `node-tensorrt, ${name}`, version, device: session.device, run: () => session.run(feeds) };
}

async function onnxruntimeNode() {
  if (device !== 'cpu') throw new Error('measured on the CPU only; its CUDA provider is the Python column');
  const { InferenceSession, Tensor, env } = createRequire(import.meta.url)('onnxruntime-node');
  const feeds = makeFeeds(Tensor);
  const session = await InferenceSession.create(model);
  return {
    name: 'onnxruntime-node',
    version: env.versions.node,
    device: 'cpu',
    run: () => session.run(feeds),
  };
}

let contestant;
try {
  contestant = await { 'node-tensorrt': nodeTensorrt, 'onnxruntime-node': onnxruntimeNode }[runtime]();
  for (let i = 0; i < 3; i++) await contestant.run();
} catch (error) {
  say({ absent: `${error.code ? `${error.code}: ` : ''}${error.message.split('\n')[0]}` });
  process.exit(0);
}
const { run, ...about } = contestant;
say(about);

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ms] = line.split(' ');
  if (command === 'end') {
    say({ peakBytes: residentMemory().peak });
    process.exit(0);
  }
  await run(); // so that it doesn't pay for what others left in the caches
  const latencies = [];
  const began = performance.now();
  do {
    const before = performance.now();
    await run();
    latencies.push(performance.now() - before);
  } while (performance.now() - began < Number(ms));
  say({ latencies });
}
