// Compares compiling with this package and with TensorRT-RTX's own Python binding: the same library and model, in whole
// processes that read the ONNX file and write a plan. Our time excludes hashing and checking the model ("preparation").
// `node bench/build.mjs [--rounds 5] [--model FILE.onnx --shapes JSON] [--json]`; needs python3 with pip.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { median } from './step-time.mjs';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    model: { type: 'string' },
    shapes: { type: 'string', default: '{}' },
    contestant: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

/** Builds with this package, in its own process. */
async function contestant({ model, shapes, plan }) {
  const { buildEngine } = await import('node-tensorrt');
  let preparation = 0;
  const onProgress = ({ phase, step }) => {
    if (phase === 'Preparing model')
      preparation = step === 0 ? -performance.now() : preparation + performance.now();
  };
  const engine = await buildEngine(model, {
    precision: 'as-exported',
    target: 'sm_89',
    runtime: 'tensorrt-rtx',
    cache: false,
    shapes,
    onProgress,
  });
  const bytes = engine.plan();
  writeFileSync(plan, bytes);
  const peak = process.resourceUsage().maxRSS;
  console.log(JSON.stringify({ preparation, bytes: bytes.length, peak }));
}

if (options.contestant) {
  await contestant(JSON.parse(options.contestant));
} else {
  const { buildBert, castToFloat16, writeModel } = await import('node-tensorrt/onnx');
  const { listTensorRT } = await import('../dist/system/tensorrt-library.js');
  const { minilmDirectory } = await import('../scripts/minilm.mjs');
  const { tensorrtPeer } = await import('../scripts/python-oracle.mjs');
  const { llamaModel } = await import('./llama.mjs');
  const folder = mkdtempSync(path.join(os.tmpdir(), 'bench-build-'));
  try {
    const library = (await listTensorRT()).find(({ flavour, name }) => flavour === 'rtx' && name);
    if (!library) throw new Error('`node-tensorrt libs install rtx` first: both sides use its library.');
    // The binding finds the libraries in the package from their wheel.
    const packages = [tensorrtPeer(), path.dirname(path.dirname(library.path))].join(':');
    const env = { ...process.env, NODE_TENSORRT_TENSORRT_PATH: library.path, PYTHONPATH: packages };
    const contestants = {
      'node-tensorrt': [process.execPath, import.meta.filename, '--contestant'],
      "TensorRT's Python binding": ['python3', path.join(import.meta.dirname, 'build-tensorrt.py')],
    };
    const measure = ([command, ...args], request) => {
      const started = performance.now();
      const answer = execFileSync(command, [...args, JSON.stringify(request)], {
        env,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const { preparation, bytes, peak } = JSON.parse(answer.trim().split('\n').at(-1));
      return {
        seconds: (performance.now() - started - preparation) / 1000,
        preparation,
        bytes,
        peak: peak / 1024,
      };
    };

    const models = [];
    if (options.model) {
      models.push({
        name: path.basename(options.model),
        model: options.model,
        shapes: JSON.parse(options.shapes),
      });
    } else {
      const bert = { min: [1, 8], opt: [8, 64], max: [32, 256] };
      const shapes = { input_ids: bert, attention_mask: bert, token_type_ids: bert };
      const minilm = await buildBert(await minilmDirectory());
      await writeModel(minilm, path.join(folder, 'minilm.onnx'));
      await writeModel(castToFloat16(minilm).model, path.join(folder, 'minilm-fp16.onnx'));
      for (const name of ['minilm', 'minilm-fp16']) {
        models.push({ name, model: path.join(folder, `${name}.onnx`), shapes });
      }
      const llama = { input_ids: { min: [1, 1], opt: [1, 64], max: [4, 512] } };
      models.push({ name: 'llama-31m', model: await llamaModel(folder), shapes: llama });
    }

    const results = models.map(({ name, model, shapes }) => {
      const request = { model, shapes, plan: path.join(folder, 'out.plan') };
      const rounds = Array.from({ length: Number(options.rounds) }, () =>
        Object.values(contestants).map((command) => measure(command, request)),
      );
      const side = (i) => ({
        seconds: median(rounds.map((round) => round[i].seconds)),
        preparation: median(rounds.map((round) => round[i].preparation)) / 1000,
        peak: median(rounds.map((round) => round[i].peak)),
        bytes: rounds[0][i].bytes,
      });
      const ratio = (what) => median(rounds.map(([ours, theirs]) => ours[what] / theirs[what]));
      return { name, ours: side(0), theirs: side(1), time: ratio('seconds'), memory: ratio('peak') };
    });
    if (options.json) {
      console.log(
        JSON.stringify({ library: library.version, rounds: Number(options.rounds), results }, null, 2),
      );
    } else {
      console.log(`TensorRT-RTX ${library.version}, for sm_89, medians of ${options.rounds} rounds`);
      for (const { name, ours, theirs, time, memory } of results) {
        console.log(`\n${name}`);
        for (const [who, { seconds, preparation, peak, bytes }] of Object.entries({
          'node-tensorrt': ours,
          "TensorRT's Python binding": theirs,
        })) {
          const prepared = preparation > 0 ? `, and ${preparation.toFixed(2)} s of preparation` : '';
          const [mib, plan] = [peak, bytes / 2 ** 20].map((size) => size.toFixed(0));
          console.log(
            `  ${who.padEnd(26)} ${seconds.toFixed(2)} s${prepared}; peak ${mib} MiB; plan ${plan} MiB`,
          );
        }
        console.log(`  ratio of time ${time.toFixed(2)}, of peak memory ${memory.toFixed(2)}`);
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
