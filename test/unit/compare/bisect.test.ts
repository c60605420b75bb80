// `bisect` on 20 graphs that overflow in FP16. What it finds is checked without it: the cast with its list, simulated by
// the Python oracle, is within the tolerance, and without any one of the list it isn't.
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { compareModels, InferenceSession, type TensorLike } from 'node-tensorrt';
import { castToFloat16, type ModelProto, randomInputs, serializeModel, writeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { simulateEachFloat16 } from '../../oracle/simulate-float16.js';
import { inFloat16, kinds, makeGraph, withOverflow } from './graphs.js';

/** The usual tolerance. */
const tolerance = 0.02;
const graphs = 20;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'bisect-'));
});
afterAll(() => rm(directory, { recursive: true }));

async function run(model: string | Uint8Array, inputs: Record<string, TensorLike>): Promise<Float32Array> {
  await using session = await InferenceSession.create(model, { device: 'cpu' });
  return (await session.run(inputs)).y!.data as Float32Array;
}

/** The largest difference, as a part of the largest magnitude. A NaN is the largest of all. */
function relative(a: Float32Array, b: Float32Array): number {
  const differences = a.map((x, i) => Math.abs(x - b[i]!));
  if (differences.some((each) => !Number.isFinite(each))) return Number.POSITIVE_INFINITY;
  return Math.max(...differences) / Math.max(...a.map(Math.abs));
}

interface Case {
  readonly name: string;
  readonly model: ModelProto;
  readonly keepFp32: readonly string[];
  /** The model that the list is for. */
  readonly make: (keepFp32: readonly string[]) => ModelProto;
  readonly tolerance?: number;
}

/** Checks lists without compareModels: the outputs of simulated models, with the list and without each of its nodes. */
async function checkMinimal(cases: readonly Case[]): Promise<void> {
  const files: string[] = [];
  const lists = cases.map(({ keepFp32 }) => [keepFp32, ...keepFp32.map((_, i) => keepFp32.toSpliced(i, 1))]);
  for (const [i, { make }] of cases.entries()) {
    for (const list of lists[i]!) {
      files.push(path.join(directory, `${cases.length}-${files.length}.onnx`));
      await writeModel(make(list), files.at(-1)!);
    }
  }
  const simulated = simulateEachFloat16(files);
  for (const [i, { name, model }] of cases.entries()) {
    const inputs = [...randomInputs(model, { seed: 0, samples: 2 })];
    const differences: number[] = [];
    for (const file of simulated.splice(0, lists[i]!.length)) {
      let most = 0;
      for (const sample of inputs) {
        most = Math.max(most, relative(await run(serializeModel(model), sample), await run(file, sample)));
      }
      differences.push(most);
    }
    const [whole, ...fewer] = differences;
    const { tolerance: limit = tolerance } = cases[i]!;
    expect(whole, name).toBeLessThanOrEqual(limit);
    for (const each of fewer) expect(each, name).toBeGreaterThan(limit);
  }
}

test(`brings ${graphs} overflowing graphs back, with lists of which nothing can be left out`, async () => {
  const cases: Case[] = [];
  for (let seed = 0; seed < graphs; seed++) {
    const { model } = await withOverflow(makeGraph(kinds[seed % kinds.length]!, seed), seed * 3);
    const { bisect } = await compareModels(
      serializeModel(model),
      { precision: 'fp16' },
      { bisect: { tolerance } },
    );
    const { keepFp32, before, after, reached, of } = bisect!;
    expect({ reached, of }).toEqual({ reached: true, of: 'cast' });
    expect(before).toBeGreaterThan(tolerance);
    expect(after).toBeLessThanOrEqual(tolerance);
    expect(keepFp32.length).toBeGreaterThan(0);
    const make = (list: readonly string[]) => castToFloat16(model, { keepFp32: list }).model;
    cases.push({ name: `graph ${seed}`, model, keepFp32, make });
  }
  await checkMinimal(cases);
}, 180_000);

test('lists nodes without a name by their operator', async () => {
  const { model, node } = await withOverflow(makeGraph('residual', 3), 3);
  const { graph } = model;
  const nameless = { ...model, graph: { ...graph, node: graph.node.map((each) => ({ ...each, name: '' })) } };
  for (const b of [castToFloat16(nameless).model, inFloat16(nameless)]) {
    const { bisect } = await compareModels(serializeModel(nameless), serializeModel(b), {
      bisect: { tolerance },
    });
    expect(bisect).toMatchObject({ reached: true });
    expect(bisect!.keepFp32).toContain(node.opType);
    expect(bisect!.after).toBeLessThanOrEqual(tolerance);
  }
});

test('puts nodes of another converter back, where b computes everything in FP16', async () => {
  const cases: Case[] = [];
  for (const seed of [1, 4, 5]) {
    const { model } = await withOverflow(makeGraph(kinds[seed]!, seed), seed);
    const { bisect } = await compareModels(serializeModel(model), serializeModel(inFloat16(model)), {
      bisect: { tolerance },
    });
    const { keepFp32, reached, of } = bisect!;
    expect({ reached, of }).toEqual({ reached: true, of: 'b' });
    expect(keepFp32.length).toBeGreaterThan(0);
    cases.push({ name: `graph ${seed}`, model, keepFp32, make: (list) => inFloat16(model, list) });
  }
  await checkMinimal(cases);
});

test('finds several nodes where it is rounding that goes too far', async () => {
  const cases: Case[] = [];
  for (const seed of [7001, 7002, 7008]) {
    const model = makeGraph(kinds[seed % kinds.length]!, seed);
    const bytes = serializeModel(model);
    const { outputs } = await compareModels(bytes, { precision: 'fp16' });
    const limit = outputs[0]!.relative / (2 + (seed % 3));
    const { bisect } = await compareModels(bytes, { precision: 'fp16' }, { bisect: { tolerance: limit } });
    expect(bisect!.before).toBe(outputs[0]!.relative);
    expect(bisect!.keepFp32.length).toBeGreaterThan(1);
    const make = (list: readonly string[]) => castToFloat16(model, { keepFp32: list }).model;
    cases.push({ name: `graph ${seed}`, model, keepFp32: bisect!.keepFp32, make, tolerance: limit });
  }
  await checkMinimal(cases);
});
