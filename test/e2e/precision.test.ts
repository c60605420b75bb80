import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { buildEngine, InferenceSession, Tensor } from 'node-tensorrt';
import { castToFloat16, type ModelProto, measureRanges, readModel, writeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { simulateFloat16 } from '../oracle/simulate-float16.js';
import { writePrecisionModel } from '../oracle/write_precision_models.mjs';

// Whole models in mixed precision: beside what ModelOpt makes of them, and beside PyTorch's tokens.

const isFull = process.env.NODE_TENSORRT_TEST_FULL === '1';
const fixtures = path.join(import.meta.dirname, '../fixtures/precision');
const json = (name: string) => JSON.parse(readFileSync(path.join(fixtures, name), 'utf8'));

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'precision-'));
});
afterAll(() => rm(directory, { recursive: true }));

/** A model, and what it becomes by the ranges of random inputs. */
async function castByRanges(name: string) {
  const file = path.join(directory, `${name}.onnx`);
  await writePrecisionModel(name, file);
  const given = await readModel(file);
  const { model: mixed } = castToFloat16(given, { ranges: await measureRanges(given) });
  return { file, given, mixed };
}

const casts = ({ graph }: ModelProto) => graph.node.filter(({ opType }) => opType === 'Cast').length;

// ModelOpt's defaults keep no operator in FP32 by its kind, which this package does; beside them is what it gives when
// it is told to keep the same ones.
const counted = ['llama', 'qwen3', 'minilm', 'resnet50', ...(isFull ? ['bert-base'] : [])];
test.each(counted)("%s has hardly more casts than ModelOpt's", { timeout: 60_000 }, async (name) => {
  const counts = json('modelopt-counts.json').models[name];
  const { given, mixed } = await castByRanges(name);
  expect(given.graph.node.length).toBe(counts.given.nodes);
  expect(casts(mixed)).toBeGreaterThan(0);
  expect((casts(mixed) - counts.sensitive.casts) / counts.given.nodes).toBeLessThanOrEqual(0.02);
});

describe.each([
  ['llama', 2],
  ['qwen3', -1],
] as const)('%s', (name, endOfSequence) => {
  test('gives the tokens that PyTorch gives in float32', { timeout: 60_000 }, async () => {
    const { mixed } = await castByRanges(name);
    const file = path.join(directory, `${name}.fp16.onnx`);
    await writeModel(mixed, file);
    await using session = await InferenceSession.create(simulateFloat16(file));
    let [equal, forced, steps] = [0, 0, 0];
    for (const { prompt, greedy } of json(`${name}-greedy.json`).cases as Case[]) {
      const free = await generate(session, prompt, greedy.length, endOfSequence);
      const next = await generate(session, prompt, greedy.length, endOfSequence, greedy);
      greedy.forEach((token, i) => {
        equal += Number(token === free[i]);
        forced += Number(token === next[i]);
        steps++;
      });
    }
    // Of random weights, whose two best logits lie 0.0001 apart at times: a step that differs changes all after it.
    expect(equal / steps).toBeGreaterThanOrEqual(0.94);
    expect(forced / steps).toBeGreaterThanOrEqual(0.99);
  });

  test('compiles, in FP16 and in BF16', { timeout: 60_000 }, async () => {
    const file = path.join(fixtures, `${name}.onnx`);
    for (const [precision, type] of [
      ['fp16', 'float16'],
      ['bf16', 'bfloat16'],
    ] as const) {
      const engine = await buildEngine(file, { target: 'sm_89', precision, cache: false });
      const products = engine.manifest.cast!.nodes.filter(({ operator }) => operator === 'MatMul');
      // All but that of the positions and that of the logits.
      expect(products.filter((node) => node.precision === precision).length).toBe(products.length - 2);
      expect(engine.inputs.every((input) => input.type !== type)).toBe(true);
    }
  });
});

interface Case {
  readonly prompt: number[];
  readonly greedy: number[];
}

/** The most probable token of each step but `banned`; after it comes that token, or the one of `forced`. */
async function generate(
  session: InferenceSession,
  prompt: readonly number[],
  count: number,
  banned: number,
  forced?: readonly number[],
): Promise<number[]> {
  let past = Object.fromEntries(
    session.inputMetadata
      .filter(({ name }) => name.startsWith('past_key_values.'))
      .map(({ name, shape }) => {
        const dims = [1, shape[1] as number, 0, shape[3] as number];
        return [name, new Tensor('float32', new Float32Array(), dims)];
      }),
  );
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
      position_ids: row(ids.map((_, i) => start + i)),
    });
    const vocabulary = outputs.logits!.dims[2]!;
    const logits = Float32Array.from((outputs.logits!.data as Float32Array).subarray(-vocabulary));
    if (banned >= 0) logits[banned] = Number.NEGATIVE_INFINITY;
    const best = logits.indexOf(Math.max(...logits));
    ids = [forced?.[tokens.length] ?? best];
    tokens.push(best);
    past = Object.fromEntries(
      Object.keys(past).map((name) => [name, outputs[name.replace('past_key_values', 'present')]!]),
    );
  }
  return tokens;
}
