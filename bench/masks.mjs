// Measures masks beside NumPy, and PyTorch if a Python that has it is given: 2:4 by magnitude, the largest tenth of all, and
// applying a mask, of float32 weights. Contestants have processes of their own and take turns; figures are medians, ratios the
// medians of the rounds' ratios. "copy" copies the weights to memory that was written before.
//     node bench/masks.mjs [--elements 67108864] [--rounds 5] [--torch /path/to/python] [--json]
import { execFileSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SparseMask, Tensor } from 'node-tensorrt';
import { pythonOracle } from '../scripts/python-oracle.mjs';
import { median } from './step-time.mjs';

const { values: options } = parseArgs({
  options: {
    elements: { type: 'string', default: String(2 ** 26) },
    rounds: { type: 'string', default: '5' },
    torch: { type: 'string' },
    child: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const elements = Number(options.elements);
/** Each child repeats its rules, and the first time of each, which touches new memory, doesn't count. */
const repeats = 4;

/** A process of ours: prints the milliseconds of each rule. */
async function measureOurs() {
  const weights = Tensor.allocate('float32', [elements / 1024, 1024]);
  const plain = new Float32Array(elements);
  for (let i = 0; i < elements; i++) plain[i] = Math.sin(i * i) * (1 + (i % 7));
  weights.data.set(plain);
  const given = { type: 'float32', dims: weights.dims, data: plain };
  const mask = await SparseMask.magnitude(weights, { density: 0.1 });
  const masked = Tensor.allocate('float32', weights.dims);
  const rules = {
    '2:4': () => SparseMask.magnitudeSync(weights, { pattern: '2:4' }),
    'density 0.1': () => SparseMask.magnitudeSync(weights, { density: 0.1 }),
    '2:4, async': () => SparseMask.magnitude(weights, { pattern: '2:4' }),
    'density 0.1, async': () => SparseMask.magnitude(weights, { density: 0.1 }),
    'density 0.1, async, of a Float32Array': () => SparseMask.magnitude(given, { density: 0.1 }),
    apply: () => mask.applySync(masked, { inPlace: true }),
    copy: () => masked.data.set(plain),
  };
  const times = Object.fromEntries(Object.keys(rules).map((name) => [name, []]));
  for (let round = 0; round < repeats; round++) {
    for (const [name, rule] of Object.entries(rules)) {
      const began = performance.now();
      await rule();
      times[name].push(performance.now() - began);
    }
  }
  console.log(JSON.stringify(times));
}

function measure(contestant) {
  const here = fileURLToPath(import.meta.url);
  const python = [
    path.join(path.dirname(here), 'masks.py'),
    contestant,
    elements,
    repeats,
    os.availableParallelism(),
  ];
  const [command, args, env] = {
    'node-tensorrt': [process.execPath, [here, '--child', '--elements', elements], {}],
    numpy: ['python3', python, { PYTHONPATH: pythonOracle() }],
    torch: [options.torch, python, {}],
  }[contestant];
  const output = execFileSync(command, args.map(String), {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const times = JSON.parse(output);
  return Object.fromEntries(Object.entries(times).map(([name, each]) => [name, median(each.slice(1))]));
}

if (options.child) {
  await measureOurs();
} else {
  const contestants = ['node-tensorrt', 'numpy', ...(options.torch ? ['torch'] : [])];
  const rounds = Array.from({ length: Number(options.rounds) }, (_, round) => {
    const order = round % 2 === 0 ? contestants : contestants.toReversed();
    return Object.fromEntries(order.map((contestant) => [contestant, measure(contestant)]));
  });
  const rows = Object.keys(rounds[0]['node-tensorrt']).map((rule) => {
    const peerRule = rule.split(',')[0];
    const row = { rule };
    for (const contestant of contestants) {
      const name = contestant === 'node-tensorrt' ? rule : peerRule;
      row[`${contestant} ms`] = Number(median(rounds.map((round) => round[contestant][name])).toPrecision(3));
      if (contestant === 'node-tensorrt') continue;
      const ratios = rounds.map((round) => round[contestant][peerRule] / round['node-tensorrt'][rule]);
      row[`× ${contestant}`] = Number(median(ratios).toPrecision(3));
    }
    return row;
  });
  const machine = `${os.cpus()[0]?.model}, ${os.availableParallelism()} cores, Node.js ${process.version}`;
  if (options.json) console.log(JSON.stringify({ machine, elements, rows }, null, 2));
  else {
    console.log(`${machine}; ${elements} float32 elements, ${rounds.length} rounds`);
    console.table(rows);
  }
}
