import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { buildEngine, InferenceSession, Tensor } from 'node-tensorrt';
import {
  buildBert,
  buildResnet,
  castToFloat16,
  type ModelProto,
  measureRanges,
  randomInputs,
  readModel,
  writeModel,
} from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bertBase } from '../../scripts/bert-base.mjs';
import { simulateEachFloat16, simulateFloat16 } from '../oracle/simulate-float16.js';
import { writePrecisionModel } from '../oracle/write_precision_models.mjs';

// Whole models in mixed precision, compared with ModelOpt's casts and with PyTorch's tokens.

const isFull = process.env.NODE_TENSORRT_TEST_FULL === '1';
const fixture = (name: string) => path.join(import.meta.dirname, '../fixtures', name);
const json = (name: string) => JSON.parse(readFileSync(fixture(name), 'utf8'));

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'precision-'));
});
afterAll(() => rm(directory, { recursive: true }));

/** A model, and its cast by the ranges of random inputs. */
async function castByRanges(name: string) {
  const file = path.join(directory, `${name}.onnx`);
  await writePrecisionModel(name, file);
  const given = await readModel(file);
  const { model: mixed } = castToFloat16(given, { ranges: await measureRanges(given) });
  return { file, given, mixed };
}

const casts = ({ graph }: ModelProto) => graph.node.filter(({ opType }) => opType === 'Cast').length;

// By default, ModelOpt keeps no operator type in FP32, which this package does. The counts are compared with ModelOpt's
// when it keeps the same types.
const counted = ['llama', 'qwen3', 'minilm', 'resnet50', ...(isFull ? ['bert-base'] : [])];
test.each(counted)("%s has few more casts than ModelOpt's", { timeout: 60_000 }, async (name) => {
  const counts = json('precision/modelopt-counts.json').models[name];
  const { given, mixed } = await castByRanges(name);
  expect(given.graph.node.length).toBe(counts.given.nodes);
  expect(casts(mixed)).toBeGreaterThan(0);
  expect((casts(mixed) - counts.sensitive.casts) / counts.given.nodes).toBeLessThanOrEqual(0.02);
});

// The weights are seeded. A BERT-base of two layers and few words has every kind of node that one of twelve has.
test.each([
  ['resnet50', () => buildResnet()],
  ['bert-base', () => buildBert(isFull ? bertBase : { ...bertBase, num_hidden_layers: 2, vocab_size: 1000 })],
] as const)('%s stays finite and close to float32', { timeout: 300_000 }, async (name, build) => {
  const file = path.join(directory, `${name}-seeded`);
  const model = await build();
  const { model: mixed } = castToFloat16(model, { ranges: await measureRanges(model) });
  await writeModel(model, `${file}.fp32.onnx`);
  await writeModel(mixed, `${file}.fp16.onnx`);
  await using exact = await InferenceSession.create(`${file}.fp32.onnx`);
  const [simulated] = simulateEachFloat16([`${file}.fp16.onnx`]);
  await using half = await InferenceSession.create(simulated!);
  // Other inputs than those that the ranges were measured with.
  for (const feeds of randomInputs(model, { seed: 1, samples: 2 })) {
    const [a, b] = [await exact.run(feeds), await half.run(feeds)].map(
      (outputs) => Object.values(outputs)[0]!,
    );
    const width = a!.dims.at(-1)!;
    const [expected, actual] = [a!, b!].map(({ data }) => data as Float32Array);
    expect(actual!.every(Number.isFinite)).toBe(true);
    expect(actual).not.toEqual(expected);
    for (let start = 0; start < expected!.length; start += width) {
      const rows = [expected!, actual!].map((values) => values.subarray(start, start + width));
      expect(cosine(rows[0]!, rows[1]!)).toBeGreaterThan(0.9995);
    }
  }
});

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

test('a session on the CPU runs what the GPU would get', { timeout: 60_000 }, async () => {
  const file = fixture('decoders/llama/optimum/model.onnx');
  const options = { device: 'cpu', precision: 'fp16' } as const;
  await using exact = await InferenceSession.create(file);
  await using half = await InferenceSession.create(file, options);
  await using kept = await InferenceSession.create(file, { ...options, keepFp32: ['*'] });
  const past = pastOf(exact);
  const row = new Tensor('int64', BigInt64Array.from([1n, 2n, 3n]), [1, 3]);
  const feeds = { ...past, input_ids: row, attention_mask: row, position_ids: row };
  const [a, b, c] = await Promise.all(
    [exact, half, kept].map(async (session) => (await session.run(feeds)).logits!),
  );
  const difference = (other: Tensor) =>
    Math.max(
      ...(other.data as Float32Array).map((value, i) => Math.abs(value - (a!.data as Float32Array)[i]!)),
    );
  expect(difference(b!)).toBeGreaterThan(0);
  expect(difference(b!)).toBeLessThan(0.1);
  expect(difference(c!)).toBe(0);
  await expect(InferenceSession.create(file, { device: 'cpu', precision: 'bf16' })).rejects.toMatchObject({
    code: 'ERR_MODEL_UNSUPPORTED',
    message: expect.stringMatching(/BF16 on the CPU/),
  });
});

test('on the CPU weights beside the model are found, in another folder too', async () => {
  const file = path.join(import.meta.dirname, '../fixtures/session/external.onnx');
  await using exact = await InferenceSession.create(file);
  const x = new Tensor('float32', new Float32Array(4).fill(1), [1, 4]);
  const linked = path.join(directory, 'linked');
  await mkdir(linked);
  for (const name of ['external.onnx', 'external.bin']) {
    await symlink(path.join(path.dirname(file), name), path.join(linked, name));
  }
  for (const [model, keepFp32] of [
    [file, []],
    [file, ['*']],
    [path.join(linked, 'external.onnx'), []],
    [path.join(linked, 'external.onnx'), ['*']],
  ] as const) {
    await using half = await InferenceSession.create(model, { device: 'cpu', precision: 'fp16', keepFp32 });
    const [a, b] = await Promise.all(
      [exact, half].map(async (session) => (await session.run({ x })).y!.data),
    );
    (b as Float32Array).forEach((value, i) => {
      expect(value).toBeCloseTo((a as Float32Array)[i]!, 2);
    });
  }
});

describe.each(['llama', 'qwen3'])('%s', (name) => {
  test('gives the tokens that PyTorch gives in float32', { timeout: 60_000 }, async () => {
    const { mixed } = await castByRanges(name);
    const file = path.join(directory, `${name}.fp16.onnx`);
    await writeModel(mixed, file);
    await using session = await InferenceSession.create(simulateFloat16(file));
    expect(await equalTokens(session, name, pastOf(session))).toBeGreaterThanOrEqual(0.95);
  });

  test('compiles, in FP16 and in BF16', { timeout: 60_000 }, async () => {
    const file = fixture(`decoders/${name}/optimum/model.onnx`);
    for (const [precision, type] of [
      ['fp16', 'float16'],
      ['bf16', 'bfloat16'],
    ] as const) {
      const engine = await buildEngine(file, { target: 'sm_89', precision, cache: false });
      const products = engine.manifest.cast!.nodes.filter(({ operator }) => operator === 'MatMul');
      // All but the products for the positions and the logits.
      expect(products.filter((node) => node.precision === precision).length).toBe(products.length - 2);
      expect(engine.inputs.every((input) => input.type !== type)).toBe(true);
    }
  });
});

// ONNX Runtime's own operators stay in FP32, between products in FP16; the simulation doesn't know them.
describe.each([
  ['llama', 'genai', { MatMul: 'fp16' }],
  ['llama-int4', 'genai', { 'com.microsoft.MatMulNBits': 'fp32' }],
  ['gemma', 'genai', { MatMul: 'fp16', Gelu: 'fp16' }],
  ['qwen3', 'genai', { MatMul: 'fp16' }],
  ['qwen2-window', 'genai-full-cache', { MatMul: 'fp16' }],
] as const)('%s of onnxruntime-genai (%s)', (name, folder, precisions) => {
  const file = fixture(`decoders/${name}/${folder}/model.onnx`);

  test('its ranges are measured, and its products cast', async () => {
    const model = await readModel(file);
    const directory = path.dirname(file);
    const ranges = await measureRanges(model, { directory });
    const { report } = castToFloat16(model, { ranges, directory });
    expect(report.ranges).toEqual({ source: 'random', samples: 2, seed: 0 });
    const all = {
      'com.microsoft.GroupQueryAttention': 'fp32',
      'com.microsoft.SkipSimplifiedLayerNormalization': 'fp32',
      SimplifiedLayerNormalization: 'fp32',
      ...precisions,
    };
    for (const [operator, precision] of Object.entries(all)) {
      const nodes = report.nodes.filter((node) => node.operator === operator);
      expect(nodes.length, operator).toBeGreaterThan(0);
      const others = nodes.filter((node) => node.precision !== precision);
      expect(others.map(({ reason }) => reason).filter((reason) => !/logits/.test(reason))).toEqual([]);
    }
  });

  test('gives the tokens that PyTorch gives in float32', async () => {
    const { decoder } = json(`decoders/${name}/${folder}/genai_config.json`).model;
    await using session = await InferenceSession.create(file, { device: 'cpu', precision: 'fp16' });
    const past = pastOf(session, [1, decoder.num_key_value_heads, 0, decoder.head_size]);
    expect(await equalTokens(session, name, past)).toBeGreaterThanOrEqual(0.95);
  });
});

interface Expected {
  readonly cases: readonly { readonly prompt: number[]; readonly greedy: number[] }[];
  /** Tokens that are never chosen. */
  readonly suppressed: readonly number[];
}

/** The share of tokens equal to PyTorch's, when each answer continues with its own tokens. */
async function equalTokens(
  session: InferenceSession,
  name: string,
  past: Record<string, Tensor>,
): Promise<number> {
  let [equal, steps] = [0, 0];
  const { cases, suppressed } = json(`decoders/${name}/expected.json`) as Expected;
  for (const { prompt, greedy } of cases) {
    const tokens = await generate(session, prompt, greedy.length, suppressed, past);
    greedy.forEach((token, i) => {
      equal += Number(token === tokens[i]);
      steps++;
    });
  }
  return equal / steps;
}

/** The most probable token of each step, over the cache that the previous step returned. */
async function generate(
  session: InferenceSession,
  prompt: readonly number[],
  count: number,
  suppressed: readonly number[],
  empty: Record<string, Tensor>,
): Promise<number[]> {
  let past = empty;
  const tokens: number[] = [];
  let ids = prompt;
  for (let length = 0; tokens.length < count; ) {
    const start = length;
    length += ids.length;
    const row = (values: readonly number[]) =>
      new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
    const outputs = await session.run({
      ...past,
      input_ids: row(ids),
      attention_mask: row(new Array(length).fill(1)),
      ...(session.inputNames.includes('position_ids') && {
        position_ids: row(ids.map((_, i) => start + i)),
      }),
    });
    const vocabulary = outputs.logits!.dims[2]!;
    const logits = Float32Array.from((outputs.logits!.data as Float32Array).subarray(-vocabulary));
    for (const token of suppressed) logits[token] = Number.NEGATIVE_INFINITY;
    const best = logits.indexOf(Math.max(...logits));
    ids = [best];
    tokens.push(best);
    past = Object.fromEntries(
      Object.keys(past).map((name) => [name, outputs[name.replace('past_key_values', 'present')]!]),
    );
  }
  return tokens;
}

/** A cache without tokens, with the model's dimensions unless others are given. */
function pastOf({ inputMetadata }: InferenceSession, given?: readonly number[]): Record<string, Tensor> {
  return Object.fromEntries(
    inputMetadata
      .filter(({ name }) => name.startsWith('past_key_values.'))
      .map(({ name, shape }) => {
        const dims = given ?? [1, shape[1] as number, 0, shape[3] as number];
        return [name, new Tensor('float32', new Float32Array(), dims)];
      }),
  );
}
