#!/usr/bin/env node
// BERT-base (sequence of 128) and ResNet-50 (224×224) at batch 1, 8 and 16, with random weights, on this machine:
// node-tensorrt, ONNX Runtime and PyTorch on a GPU, or node-tensorrt and onnxruntime-node on the CPU. Latency is from
// host memory to host memory. Each runtime has its own process, so that its memory can be measured, and they take
// turns, so that noise affects all of them equally.
// `node bench/seed-table.mjs [--device auto|cpu|cuda] [--batch 1,8,16] [--rounds 10] [--seconds 0.5] [--json FILE]
// [--results FILE]`
// --results writes the table into a Markdown file, between its markers.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { inspectSystem } from 'node-tensorrt';
import { buildBert, buildResnet, castToFloat16, measureRanges, writeModel } from 'node-tensorrt/onnx';
import { latencyStatistics } from '../dist/apps/benchmark/latency-statistics.js';
import { bertBase } from '../scripts/bert-base.mjs';
import { describeMachine, writeResults } from './results.mjs';

const root = path.resolve(import.meta.dirname, '..');
const folder = path.join(root, 'build/bench');
const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'auto' },
    batch: { type: 'string', default: '1,8,16' },
    rounds: { type: 'string', default: '10' },
    seconds: { type: 'string', default: '0.5' },
    json: { type: 'string' },
    results: { type: 'string' },
  },
});
const batches = options.batch.split(',').map(Number);
const rounds = Number(options.rounds);
const turnMs = 1000 * Number(options.seconds);

const models = {
  'bert-base': {
    title: 'BERT-base',
    build: () => buildBert(bertBase, { head: 'last_hidden_state' }),
    feeds(batch) {
      const ids = (fill) => ({ type: 'int64', dims: [batch, 128], fill });
      return { input_ids: ids(1000), attention_mask: ids(1), token_type_ids: ids(0) };
    },
  },
  'resnet-50': {
    title: 'ResNet-50',
    build: () => buildResnet({ depth: 50 }),
    feeds: (batch) => ({ input: { type: 'float32', dims: [batch, 3, 224, 224], fill: 0.5 } }),
  },
};

const contestants = [
  { id: 'node-tensorrt', command: [process.execPath, path.join(root, 'bench/contestant.mjs')] },
  { id: 'onnxruntime-node', command: [process.execPath, path.join(root, 'bench/contestant.mjs')] },
  { id: 'onnxruntime', command: ['python3', path.join(root, 'bench/contestant.py')] },
  { id: 'torch', command: ['python3', path.join(root, 'bench/contestant.py')] },
];

/** Writes a model unless its file exists. */
async function modelFile(name, build) {
  const file = path.join(folder, `${name}.onnx`);
  if (existsSync(file)) return file;
  console.error(`Building ${name} …`);
  await mkdir(folder, { recursive: true });
  const partial = `${file}.${process.pid}`;
  await writeModel(await build(), partial);
  await rename(partial, file);
  return file;
}

/** Memory in use on the GPU in bytes, according to nvidia-smi; null without it. */
function gpuMemory(device) {
  if (!device.startsWith('cuda')) return null;
  const args = [
    '--query-gpu=memory.used',
    '--format=csv,noheader,nounits',
    '-i',
    device.split(':')[1] ?? '0',
  ];
  try {
    return 2 ** 20 * Number(execFileSync('nvidia-smi', args, { encoding: 'utf8' }).trim());
  } catch {
    return null;
  }
}

/** Starts a contestant's process. It reads lines and answers with JSON documents. */
function start({ command }, args) {
  const child = spawn(command[0], [...command.slice(1), ...args], {
    cwd: root,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (data) => {
    stderr = (stderr + data).slice(-2000);
  });
  child.on('error', () => {}); // handled like a process that ends: no line comes
  child.stdin.on('error', () => {});
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async answer() {
      for (;;) {
        const { value, done } = await lines.next();
        if (done) return { absent: `the process ended: ${stderr.trim().split('\n').at(-1)}` };
        if (value.startsWith('{')) return JSON.parse(value);
      }
    },
    tell: (line) => child.stdin.write(`${line}\n`),
    kill: () => child.kill('SIGKILL'),
  };
}

/** One row of the table: every contestant's latency and memory for one model and batch size. */
async function measure(files, feeds, device, precision) {
  const entries = [];
  if (device !== 'cpu') {
    // Another process compiles into the cache first, so that the measured one loads an engine, as a deployed program
    // does.
    const [ours] = contestants;
    const compiler = start(ours, [ours.id, device, precision, files.fp32, JSON.stringify(feeds)]);
    await compiler.answer();
    compiler.kill();
  }
  try {
    for (const contestant of contestants) {
      const before = gpuMemory(device);
      // TensorRT casts the model itself; the other runtimes get the same graph, cast by the same pass.
      const file = contestant.id === 'onnxruntime' ? files[precision] : files.fp32;
      const child = start(contestant, [contestant.id, device, precision, file, JSON.stringify(feeds)]);
      entries.push({ id: contestant.id, child, latencies: [] });
      const entry = entries.at(-1);
      entry.about = await child.answer();
      const after = gpuMemory(device);
      entry.gpuBytes = before === null || after === null ? null : after - before;
    }
    const here = entries.filter(({ about }) => about.absent === undefined);
    for (let round = 0; round < rounds; round++) {
      for (const entry of round % 2 === 0 ? here : here.toReversed()) {
        entry.child.tell(`turn ${turnMs}`);
        const { latencies, absent } = await entry.child.answer();
        if (absent) throw new Error(`${entry.id}: ${absent}`);
        entry.latencies.push(...latencies);
      }
    }
    for (const entry of here) {
      entry.child.tell('end');
      entry.hostBytes = (await entry.child.answer()).peakBytes;
    }
    return entries.map(({ id, about, latencies, gpuBytes, hostBytes }) => ({
      id,
      ...about,
      ...(latencies.length > 0 ? { queries: latencies.length, latency: latencyStatistics(latencies) } : {}),
      ...(hostBytes === undefined ? {} : { hostBytes }),
      ...(gpuBytes === null || about.absent !== undefined ? {} : { gpuBytes }),
    }));
  } finally {
    for (const { child } of entries) child.kill();
  }
}

const system = await inspectSystem();
const device = options.device === 'auto' ? (system.gpus.length > 0 ? 'cuda' : 'cpu') : options.device;
const precision = device === 'cpu' ? 'fp32' : 'fp16';
const rows = [];
for (const [name, { title, build, feeds }] of Object.entries(models)) {
  const files = { fp32: await modelFile(name, build) };
  if (precision === 'fp16') {
    files.fp16 = await modelFile(`${name}-fp16`, async () => {
      const model = await build();
      return castToFloat16(model, { ranges: await measureRanges(model) }).model;
    });
  }
  for (const batch of batches) {
    console.error(`${title}, batch ${batch}: ${rounds} rounds of ${turnMs} ms for each runtime …`);
    rows.push({ model: title, batch, results: await measure(files, feeds(batch), device, precision) });
  }
}

// ---- the table ----

const columns = contestants
  .map(({ id }) => ({ id, about: rows.map(({ results }) => results.find((r) => r.id === id)) }))
  .filter(({ id }) => id !== 'onnxruntime-node' || device === 'cpu');
const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
function cell(result, ours) {
  if (result.absent !== undefined) return 'not here';
  const memory = [`${megabytes(result.hostBytes)} MB`];
  if (result.gpuBytes !== undefined) memory.push(`GPU ${megabytes(result.gpuBytes)} MB`);
  const { median, p99 } = result.latency;
  const ratio = ours && ours !== result ? ` (${(median / ours.latency.median).toFixed(2)}×)` : '';
  return `${median.toPrecision(4)} / ${p99.toPrecision(4)} ms${ratio}, ${memory.join(', ')}`;
}
const headings = columns.map(({ id, about }) => {
  const here = about.find(({ absent }) => absent === undefined);
  return here ? `${here.name} ${here.version}` : id;
});
const machine = describeMachine(system);
const absences = columns.flatMap(({ id, about }) => {
  const reasons = new Set(about.flatMap(({ absent }) => absent ?? []));
  return [...reasons].map((reason) => `- ${id}: not here (${reason})`);
});
const markdown = [
  `${machine.join(', ')}. On ${device}, ${precision}; median / 99th percentile of latency (in brackets: times`,
  "node-tensorrt's median), peak memory of the whole process.",
  '',
  `| model | batch | ${headings.join(' | ')} |`,
  `| --- | --- | ${columns.map(() => '---').join(' | ')} |`,
  ...rows.map(({ model, batch, results }) => {
    const [ours] = results;
    const cells = columns.map(({ id }) =>
      cell(
        results.find((result) => result.id === id),
        ours.latency && ours,
      ),
    );
    return `| ${model} | ${batch} | ${cells.join(' | ')} |`;
  }),
  ...(absences.length > 0 ? ['', ...absences] : []),
].join('\n');

console.log(markdown);
if (options.json) {
  await writeFile(options.json, `${JSON.stringify({ machine, device, precision, rows }, null, 2)}\n`);
}
if (options.results) await writeResults(options.results, 'bench:gpu', markdown);
