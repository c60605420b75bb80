// Measures how long a decoder's step takes, beside PyTorch and ONNX Runtime on the same device, and how many bytes per
// second it moves, beside the memory's bandwidth. The model is a Llama with random weights; on a GPU in FP16. Each
// contestant runs in its own process, in turns.
// `node bench/decoder-steps.mjs [--device auto|cpu|cuda] [--size small|large] [--rows 1,16] [--context 128,1024]
// [--rounds 3] [--results FILE]`
// --results writes the table into a Markdown file, between its markers.
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { inspectSystem, LanguageModel } from 'node-tensorrt';
import { llamaDecoder, readOfStep } from './llama.mjs';
import { describeMachine, writeResults } from './results.mjs';
import { median, timeSteps } from './step-time.mjs';

const root = path.resolve(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'auto' },
    size: { type: 'string' },
    rows: { type: 'string', default: '1,16' },
    context: { type: 'string', default: '128,1024' },
    rounds: { type: 'string', default: '3' },
    results: { type: 'string' },
    measure: { type: 'string' },
  },
});
const steps = 64;

/** Measures this package. */
async function measureOurs({ device, model, rows, context }) {
  const kvCache = { maxBatchSize: rows, maxLength: context + 2 * steps };
  const loaded = await LanguageModel.load(model, { device, kvCache });
  const sequences = Array.from({ length: rows }, () => loaded.createSequence());
  for (const [row, sequence] of sequences.entries()) {
    await sequence.append(Array.from({ length: context }, (_, i) => (7919 * i + row) % 8000));
  }
  const { name, version } = loaded.runtime;
  return { name: `node-tensorrt, ${name}`, version, stepMs: await timeSteps(sequences, context, steps) };
}

if (options.measure) {
  const result = await measureOurs(JSON.parse(options.measure));
  process.stdout.write(JSON.stringify(result), () => process.exit(0));
} else {
  const system = await inspectSystem();
  const device = options.device === 'auto' ? (system.gpus.length > 0 ? 'cuda' : 'cpu') : options.device;
  const onGpu = device.startsWith('cuda');
  const sizes = {
    small: { layers: 8, hidden: 512, heads: 8, kvHeads: 4, intermediate: 1408, vocabulary: 8192 },
    large: { layers: 16, hidden: 2048, heads: 32, kvHeads: 8, intermediate: 5632, vocabulary: 32_000 },
  };
  const shape = { ...sizes[options.size ?? (onGpu ? 'large' : 'small')], positions: 4096 };
  const bytes = onGpu ? 2 : 4;
  const model = await llamaDecoder(path.join(root, 'build/bench'), onGpu ? 'float16' : 'float32', shape);
  const { weights, perToken } = readOfStep(shape);
  const parameters = weights + shape.hidden * shape.vocabulary;
  const bytesOfStep = (rows, context) => bytes * (weights + rows * (context + steps / 2) * perToken);

  const python = path.join(root, 'bench/decoder-steps.py');
  const contestants = {
    'node-tensorrt': (task) => [process.execPath, [import.meta.filename, '--measure', task]],
    torch: (task) => ['python3', [python, 'torch', task]],
    onnxruntime: (task) => ['python3', [python, 'onnxruntime', task]],
  };
  const run = (id, task) => {
    const [command, args] = contestants[id](JSON.stringify(task));
    try {
      const stdout = execFileSync(command, args, {
        cwd: root,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      return JSON.parse(stdout.trim().split('\n').at(-1));
    } catch (error) {
      return { absent: `the process ended: ${String(error.stderr).trim().split('\n').at(-1)}` };
    }
  };

  const about = {};
  const table = [];
  for (const rows of options.rows.split(',').map(Number)) {
    for (const context of options.context.split(',').map(Number)) {
      console.error(`${rows} × ${context} tokens …`);
      const task = { device, model, rows, context, steps, shape };
      const times = {};
      for (let round = 0; round < Number(options.rounds); round++) {
        const ids = Object.keys(contestants);
        for (const id of round % 2 === 0 ? ids : ids.toReversed()) {
          if (about[id]?.absent) continue;
          const result = run(id, task);
          about[id] = { ...about[id], ...result };
          if (!result.absent) times[id] = [...(times[id] ?? []), result.stepMs];
        }
      }
      table.push({ rows, context, moved: bytesOfStep(rows, context), times });
    }
  }

  const bandwidth = about.torch?.bandwidth;
  const cell = ({ times, moved }, id) => {
    if (!times[id]) return 'not here';
    const ms = median(times[id]);
    const rate = moved / ms / 1e6;
    const share = bandwidth ? `, ${Math.round((1e11 * rate) / bandwidth)} %` : '';
    const ratio = id === 'node-tensorrt' ? '' : `; ${(ms / median(times['node-tensorrt'])).toFixed(2)}×`;
    return `${ms.toPrecision(3)} ms (${rate.toPrecision(3)} GB/s${share}${ratio})`;
  };
  const title = ([id, { name, version, absent }]) => (absent ? id : `${name} ${version}`);
  const columns = Object.entries(about);
  const absences = columns.flatMap(([id, { absent }]) => (absent ? `- ${id}: not here (${absent})` : []));
  const markdown = [
    `${describeMachine(system).join(', ')}. A Llama of ${Math.round(parameters / 1e6)} million parameters on ${device}, ` +
      `${onGpu ? 'FP16' : 'FP32'}: time of a step, bytes of weights and cache that it reads a second, ` +
      `${bandwidth ? `their part of the ${(bandwidth / 1e9).toFixed(0)} GB/s that a copy moves, ` : ''}times node-tensorrt's.`,
    '',
    `| rows × context | ${columns.map(title).join(' | ')} |`,
    `| --- | ${columns.map(() => '---').join(' | ')} |`,
    ...table.map(
      (row) => `| ${row.rows} × ${row.context} | ${columns.map(([id]) => cell(row, id)).join(' | ')} |`,
    ),
    ...(absences.length > 0 ? ['', ...absences] : []),
  ].join('\n');
  console.log(markdown);
  if (options.results) await writeResults(options.results, 'bench:gpu steps', markdown);
}
