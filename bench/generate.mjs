// Measures generation beside transformers.js and a plain loop over onnxruntime-node, with the same ONNX file and number
// of threads. Each contestant runs in its own process, in turns. Prints medians, and medians of the ratios of
// neighbouring runs.
//     node bench/generate.mjs DIRECTORY [--rounds 3] [--only short,requests] [--threads 2] [--json]
// DIRECTORY is a decoder as optimum exports it. This package's published figures use the 32-million-parameter Llama
// that
//     test/oracle/make_decoder_fixtures.py --llama-32m FOLDER
// writes to FOLDER/optimum. transformers.js is installed into build/bench unless it is there.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { installPeers, versions } from './peers.mjs';
import { median } from './step-time.mjs';

const root = path.resolve(import.meta.dirname, '..');
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: String(Math.min(os.availableParallelism(), 4)) },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
if (positionals.length !== 1 || !existsSync(path.join(positionals[0], 'model.onnx'))) {
  console.error('usage: node bench/generate.mjs DIRECTORY_WITH_MODEL_ONNX [--rounds 3] [--only SCENARIO,…]');
  process.exit(2);
}

/** The promises of each scenario: the ratio of our `figure` to the peer's, or our figure alone. */
const scenarios = {
  short: {
    title: 'One sequence, prompt 16 → 128 tokens',
    contestants: ['node-tensorrt', 'transformers.js'],
    figure: 'tokensPerSecond',
    bar: '≥ 1.3×',
  },
  'long-prompt': {
    title: 'One sequence, prompt 2,048 → 64 tokens',
    contestants: ['node-tensorrt', 'transformers.js'],
    figure: 'tokensPerSecond',
    bar: '≥ 3.5×',
  },
  requests: {
    title: '16 concurrent requests, prompt 128 → 128 tokens',
    contestants: ['node-tensorrt', 'transformers.js', 'transformers.js, one batch'],
    figure: 'tokensPerSecond',
    bar: '≥ 8×',
  },
  'deep-steps': {
    title: '16 rows with 1,024 tokens of context, beside the graph as exported',
    contestants: ['node-tensorrt', 'onnxruntime-node'],
    figure: 'stepsPerSecond',
    bar: '≥ 3.5×',
  },
  'step-growth': {
    title: 'A step at 1,024 tokens of context, to one at 128',
    contestants: ['node-tensorrt'],
    bar: 'ratio ≤ 1.25',
  },
  'blocked-loop': {
    title: 'The event loop blocked 50 ms in every 60, to free',
    contestants: ['node-tensorrt'],
    bar: 'ratio ≥ 0.9',
  },
  'event-loop': {
    title: 'Event-loop delay while answers follow each other',
    contestants: ['node-tensorrt', 'another process', 'transformers.js'],
    bar: 'within 1.5× of another process, or p99 ≤ 2 ms and longest ≤ 20 ms',
  },
  fork: { title: 'Fork of a row of 1,000 tokens', contestants: ['node-tensorrt'], bar: '≤ 5 ms' },
  'prefix-reuse': {
    title: 'Time to the first token, the second time with the same 1,000 tokens',
    contestants: ['node-tensorrt'],
    bar: 'ratio ≤ 0.15',
  },
  'entering-prompt': {
    title: 'Longest pause of 8 streams while a prompt of 2,048 tokens enters',
    contestants: ['node-tensorrt'],
    bar: 'pauseMs ≤ allowedMs, 3 steps and a chunk',
  },
};
const chosen = options.only?.split(',') ?? Object.keys(scenarios);
const unknown = chosen.find((name) => !scenarios[name]);
if (unknown) {
  console.error(`There is no scenario ${unknown}: ${Object.keys(scenarios).join(', ')}`);
  process.exit(2);
}

/** Links the model's files in a hub's layout (the graph's in `onnx`), which transformers.js expects. */
function layOut(source) {
  const folder = path.join(root, 'build/bench/generate', path.basename(path.resolve(source)));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(path.join(folder, 'onnx'), { recursive: true });
  for (const name of readdirSync(source)) {
    symlinkSync(path.resolve(source, name), path.join(folder, name.includes('.onnx') ? 'onnx' : '.', name));
  }
  return folder;
}

installPeers();
const directory = layOut(positionals[0]);

function measure(contestant, scenario) {
  const script = path.join(root, 'bench/generation-contestant.mjs');
  const args = [script, contestant, scenario, directory, options.threads];
  return JSON.parse(
    execFileSync(process.execPath, args, {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  );
}

const report = {
  machine: {
    cpu: os.cpus()[0]?.model,
    cores: os.availableParallelism(),
    node: process.version,
    threads: Number(options.threads),
  },
  peers: versions,
  scenarios: {},
};
if (!options.json) {
  const { cpu, cores, node, threads } = report.machine;
  console.log(`${cpu}, ${cores} cores, Node ${node}, ${threads} threads; load ${os.loadavg()[0].toFixed(1)}`);
  console.log(
    `transformers.js ${versions['@huggingface/transformers']} on onnxruntime-node ` +
      `${versions['onnxruntime-node']}; ${options.rounds} rounds\n`,
  );
}
for (const name of chosen) {
  const { title, contestants, figure, bar } = scenarios[name];
  const samples = Object.fromEntries(contestants.map((contestant) => [contestant, []]));
  for (let round = 0; round < Number(options.rounds); round++) {
    const order = round % 2 === 0 ? contestants : contestants.toReversed();
    for (const contestant of order) samples[contestant].push(measure(contestant, name));
  }
  const results = {};
  for (const contestant of contestants) {
    const keys = Object.keys(samples[contestant][0]);
    results[contestant] = Object.fromEntries(
      keys.map((key) => [key, median(samples[contestant].map((sample) => sample[key]))]),
    );
    if (figure && contestant !== contestants[0]) {
      const ratios = samples[contestant].map(
        (sample, i) => samples[contestants[0]][i][figure] / sample[figure],
      );
      results[contestant].oursToThis = median(ratios);
    }
  }
  report.scenarios[name] = { title, bar, results };
  if (options.json) continue;
  console.log(`${title} (promised: ${bar})`);
  console.table(
    Object.fromEntries(
      Object.entries(results).map(([contestant, figures]) => [
        contestant,
        Object.fromEntries(
          Object.entries(figures).map(([key, value]) => [key, Number(value.toPrecision(4))]),
        ),
      ]),
    ),
  );
}
if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
