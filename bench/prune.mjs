// Sweeps density and pattern on two real models, and prints what pruning cost and gained: on the model in examples/demo-model the
// share of its tasks answered right, on all-MiniLM-L6-v2 the mean cosine to the dense model's embeddings; beside it the size of the
// file and the time of a run, relative to the dense model. Writes the figures and a drawing of them.
//     node bench/prune.mjs [--svg FILE.svg] [--numbers FILE.json] [--rounds 7]
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { InferenceSession, LanguageModel, MaskSet, pruneModel, Tensor } from 'node-tensorrt';
import { buildBert, writeModel } from 'node-tensorrt/onnx';
import { minilmDirectory } from '../scripts/minilm.mjs';
import { median } from './step-time.mjs';

const root = path.resolve(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    svg: { type: 'string', default: 'docs/images/prune.svg' },
    numbers: { type: 'string', default: 'docs/images/prune.json' },
    rounds: { type: 'string', default: '7' },
  },
});
const folder = mkdtempSync(path.join(os.tmpdir(), 'prune-'));
const densities = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3];
const read = (file) => JSON.parse(readFileSync(path.join(root, file), 'utf8'));

const rules = (inputs) => ({
  magnitude: densities.map((density) => ({ density })),
  'magnitude, all weights together': densities.map((density) => ({ density, scope: 'global' })),
  Wanda: densities.map((density) => ({ density, saliency: 'wanda', inputs })),
  '2:4': [{ pattern: '2:4' }],
  '2:4, Wanda': [{ pattern: '2:4', saliency: 'wanda', inputs }],
  'neurons, shrunk': densities.map((density) => ({ density, structure: 'mlp' })),
  'neurons by Wanda, shrunk': densities.map((density) => ({
    density,
    structure: 'mlp',
    saliency: 'wanda',
    inputs,
  })),
});

const int64 = (values, dims) => new Tensor('int64', BigInt64Array.from(values, BigInt), dims);

// ---- the model of examples/demo-model, which calculates and sorts ----

async function demoModel() {
  const directory = path.join(root, 'examples/demo-model');
  const { sums, sorting } = read('test/fixtures/demo-model/expected.json');
  const tasks = [...sums, ...sorting];
  const model = await LanguageModel.load(directory, { device: 'cpu' });
  const feeds = ({ prompt }) => {
    const tokens = model.tokenizer.encode(prompt);
    const past = Object.fromEntries(
      [0, 1, 2].flatMap((layer) =>
        ['key', 'value'].map((part) => [
          `past_key_values.${layer}.${part}`,
          new Tensor('float32', new Float32Array(0), [1, 2, 0, 32]),
        ]),
      ),
    );
    const shape = [1, tokens.length];
    return {
      input_ids: int64(tokens, shape),
      attention_mask: int64(tokens.fill(1), shape),
      position_ids: int64([...tokens.keys()], shape),
      ...past,
    };
  };
  const calibration = tasks.slice(0, 32).map(feeds);
  await model.dispose();
  // The pruned model needs the files beside it too.
  const beside = path.join(folder, 'demo-model');
  cpSync(directory, beside, { recursive: true });
  return {
    name: 'demo model: tasks answered right',
    file: path.join(directory, 'model.onnx'),
    pruned: path.join(beside, 'model.onnx'),
    inputs: calibration,
    timed: calibration[0],
    async quality(file) {
      const pruned = await LanguageModel.load(path.dirname(file), { device: 'cpu' });
      const answers = await Promise.all(
        tasks.map(({ prompt }) => pruned.generate(prompt, { maxTokens: 40, temperature: 0 })),
      );
      await pruned.dispose();
      return answers.filter(({ text }, i) => text === tasks[i].right).length / tasks.length;
    },
  };
}

// ---- all-MiniLM-L6-v2, which embeds sentences ----

async function miniLM() {
  const file = path.join(folder, 'minilm.onnx');
  await writeModel(await buildBert(await minilmDirectory()), file);
  const { tokens } = read('test/fixtures/minilm/goldens.json');
  const longest = Math.max(...tokens.map(({ length }) => length));
  const batch = (rows) => {
    const pad = (value) => rows.flatMap((row) => Array.from({ length: longest }, (_, i) => value(row, i)));
    const shape = [rows.length, longest];
    return {
      input_ids: int64(
        pad((row, i) => row[i] ?? 0),
        shape,
      ),
      attention_mask: int64(
        pad((row, i) => (i < row.length ? 1 : 0)),
        shape,
      ),
      token_type_ids: int64(
        pad(() => 0),
        shape,
      ),
    };
  };
  const half = tokens.length >> 1;
  const [calibration, held] = [batch(tokens.slice(0, half)), batch(tokens.slice(half))];
  const embed = async (model) => {
    const session = await InferenceSession.create(model, { device: 'cpu' });
    const { sentence_embedding: embeddings } = await session.run(held);
    await session.dispose();
    const width = embeddings.dims[1];
    return Array.from({ length: embeddings.dims[0] }, (_, i) =>
      embeddings.data.slice(i * width, (i + 1) * width),
    );
  };
  const dense = await embed(file);
  return {
    name: 'MiniLM: mean cosine to the dense embeddings',
    file,
    pruned: path.join(folder, 'pruned.onnx'),
    inputs: [calibration],
    timed: batch(tokens.slice(0, 8)),
    async quality(pruned) {
      const cosines = (await embed(pruned)).map((row, i) => cosine(row, dense[i]));
      return cosines.reduce((sum, value) => sum + value) / cosines.length;
    },
  };
}

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** How long a run of one model takes, relative to another: the median of the ratios of neighbouring runs. */
async function timeRatio(file, dense, feeds) {
  const [a, b] = await Promise.all(
    [file, dense].map((each) => InferenceSession.create(each, { device: 'cpu' })),
  );
  const time = async (session) => {
    const began = performance.now();
    for (let i = 0; i < 4; i++) await session.run(feeds);
    return performance.now() - began;
  };
  await time(a);
  await time(b);
  const ratios = [];
  for (let round = 0; round < Number(options.rounds); round++) ratios.push((await time(a)) / (await time(b)));
  await Promise.all([a, b].map((session) => session.dispose()));
  return median(ratios);
}

async function sweep({ name, file, pruned, inputs, timed, quality }) {
  const dense = { quality: await quality(file), bytes: statSync(file).size };
  const rows = [];
  for (const [rule, each] of Object.entries(rules(inputs))) {
    for (const settings of each) {
      const masks = await MaskSet.forModel(file, settings);
      const masked = masks.report().filter(({ skipped }) => skipped === null);
      const sum = (of) => masked.reduce((total, layer) => total + layer[of], 0);
      const shrink = settings.structure !== undefined;
      await pruneModel(file, masks, pruned, { shrink });
      const size = statSync(pruned).size / dense.bytes;
      const time = shrink || settings.pattern ? await timeRatio(pruned, file, timed) : undefined;
      rows.push({ rule, density: sum('kept') / sum('size'), quality: await quality(pruned), size, time });
    }
  }
  return { name, dense, rows };
}

// ---- the drawing ----

const colours = ['#0f766e', '#c2410c', '#4338ca', '#be185d', '#a16207', '#15803d', '#6b7280'];

function draw(results) {
  const [width, height, gap] = [560, 300, 90];
  const escaped = (value) => value.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  const text = (x, y, value, more = '') => `<text x="${x}" y="${y}" ${more}>${escaped(value)}</text>`;
  const panels = results.map(({ name, dense, rows }, p) => {
    const x = (density) => 60 + width * (1 - (density - 0.25) / 0.75);
    const y = (quality) => height * (1 - Math.max(0, quality));
    const names = [...new Set(rows.map(({ rule }) => rule))];
    const lines = names.flatMap((rule, i) => {
      const points = rows.filter((row) => row.rule === rule).map((row) => [x(row.density), y(row.quality)]);
      const path = points.map((point) => point.map((value) => value.toFixed(1)).join(',')).join('L');
      const dots = points.map(
        ([cx, cy]) => `<circle cx="${cx.toFixed(1)}" cy="${cy.toFixed(1)}" r="4" fill="${colours[i]}"/>`,
      );
      const key = text(660, 30 + 22 * i, rule, `fill="${colours[i]}"`);
      return [`<path d="M${path}" fill="none" stroke="${colours[i]}" stroke-width="2"/>`, ...dots, key];
    });
    const grid = [0, 0.25, 0.5, 0.75, 1].flatMap((value) => [
      `<line x1="60" x2="${60 + width}" y1="${y(value)}" y2="${y(value)}" stroke="#d1d5db"/>`,
      text(52, y(value) + 4, value.toFixed(2), 'text-anchor="end"'),
    ]);
    const ticks = [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3].map((density) =>
      text(x(density), height + 20, density.toFixed(1), 'text-anchor="middle"'),
    );
    const title = text(60, -14, `${name} (dense: ${dense.quality.toFixed(3)})`, 'font-weight="600"');
    const below = text(
      60 + width / 2,
      height + 42,
      'share of the masked weights that are kept',
      'text-anchor="middle"',
    );
    const content = [title, ...grid, ...ticks, below, ...lines].join('\n');
    return `<g transform="translate(0,${50 + p * (height + gap)})">\n${content}\n</g>`;
  });
  const total = 50 + results.length * (height + gap);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 ${total}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2937" role="img">
<title>What pruning costs, by the share of weights that are kept</title>
<rect width="880" height="${total}" fill="#ffffff"/>
${panels.join('\n')}
</svg>
`;
}

const results = [];
for (const make of [demoModel, miniLM]) {
  const result = await sweep(await make());
  results.push(result);
  const figure = (value) => (value === undefined ? '' : Number(value.toFixed(3)));
  console.log(`${result.name}; dense ${result.dense.quality.toFixed(3)}`);
  console.table(
    result.rows.map(({ rule, density, quality, size, time }) => ({
      rule,
      density: figure(density),
      quality: figure(quality),
      size: figure(size),
      time: figure(time),
    })),
  );
}
rmSync(folder, { recursive: true });
const machine = { cpu: os.cpus()[0]?.model, cores: os.availableParallelism(), node: process.version };
writeFileSync(options.numbers, `${JSON.stringify({ machine, results }, null, 1)}\n`);
writeFileSync(options.svg, draw(results));
