// Simulated FP16 against the Python oracle, and BF16 against rounding by hand.
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { InferenceSession, Tensor, type TensorLike } from 'node-tensorrt';
import {
  castToBfloat16,
  castToFloat16,
  fromBfloat16Bits,
  GraphBuilder,
  type ModelProto,
  randomInputs,
  serializeModel,
  simulatePrecision,
  toBfloat16Bits,
  writeModel,
} from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { simulateEachFloat16 } from '../../../oracle/simulate-float16.js';
import { kinds, makeGraph, withOverflow } from '../../compare/graphs.js';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'simulate-'));
});
afterAll(() => rm(directory, { recursive: true }));

async function run(model: string | Uint8Array, inputs: Record<string, TensorLike>): Promise<Float32Array> {
  await using session = await InferenceSession.create(model, { device: 'cpu' });
  return (await session.run(inputs)).y!.data as Float32Array;
}

test('casts of 12 graphs give the numbers of the Python oracle', async () => {
  const cases: ModelProto[] = [];
  for (const [seed, kind] of [...kinds, ...kinds].entries()) {
    const model = makeGraph(kind, seed);
    const { model: given } = seed < kinds.length ? { model } : await withOverflow(model, seed);
    cases.push(castToFloat16(given, seed % 2 ? {} : { keepFp32: ['!*'] }).model);
  }
  const files = cases.map((_, i) => path.join(directory, `${i}.onnx`));
  for (const [i, model] of cases.entries()) await writeModel(model, files[i]!);
  const oracle = simulateEachFloat16(files);
  for (const [i, model] of cases.entries()) {
    const simulated = serializeModel(simulatePrecision(model));
    for (const inputs of randomInputs(model, { seed: i, samples: 2 })) {
      expect(await run(simulated, inputs), `graph ${i}`).toEqual(await run(oracle[i]!, inputs));
    }
  }
});

describe('BF16', () => {
  const round = (values: Float32Array) => fromBfloat16Bits(toBfloat16Bits(values));

  test('every value is rounded', async () => {
    const g = new GraphBuilder('chain');
    const x = g.input('x', 'float32', [4]);
    const w = g.initializer('w', 'float32', [4], Float32Array.of(1.2345, 3.4567, -0.001234, 1e20));
    g.op('Add', [g.op('Mul', [x, w]), x], {}, { outputs: ['y'] });
    g.output('y', 'float32', [4]);
    const { model } = castToBfloat16(g.finish(), { keepFp32: ['!*'] });
    const data = Float32Array.of(1.01, -2.02, 3.03, 4.04);
    const y = await run(serializeModel(simulatePrecision(model)), { x: new Tensor('float32', data, [4]) });
    const [rx, rw] = [round(data), round(Float32Array.of(1.2345, 3.4567, -0.001234, 1e20))];
    const product = round(rx.map((value, i) => value * rw[i]!));
    expect(y).toEqual(round(product.map((value, i) => value + rx[i]!)));
  });
});

test('a model without 16-bit values is returned as it is', () => {
  const model = makeGraph('gated', 1);
  expect(simulatePrecision(model)).toBe(model);
});

test('inputs and outputs of 16 bits become float32; Constant nodes and bodies are computed so too', async () => {
  const g = new GraphBuilder('io');
  const x = g.input('x', 'float16', [2]);
  const condition = g.op('Greater', [
    g.op('ReduceMax', [x], { keepdims: 0 }),
    g.op('Cast', [g.scalar(1)], { to: 10 }),
  ]);
  const branch = (name: string, factor: number) => {
    const value = {
      name: '',
      dataType: 10,
      dims: [],
      rawData: new Uint8Array(new Uint16Array([factor]).buffer),
    };
    return {
      graph: {
        name,
        input: [],
        initializer: [],
        valueInfo: [],
        node: [
          {
            opType: 'Constant',
            input: [],
            output: [`${name}.c`],
            attribute: [{ name: 'value', type: 4, t: value }],
          },
          { opType: 'Mul', input: ['x', `${name}.c`], output: [`${name}.y`], attribute: [] },
        ],
        output: [
          { name: `${name}.y`, type: { tensorType: { elemType: 10, shape: { dim: [{ dimValue: 2 }] } } } },
        ],
      },
    };
  };
  // 2 and 0.5 in FP16.
  g.op(
    'If',
    [condition],
    { then_branch: branch('yes', 0x4000), else_branch: branch('no', 0x3800) },
    { outputs: ['y'] },
  );
  g.output('y', 'float16', [2]);
  const simulated = serializeModel(simulatePrecision(g.finish()));
  const run2 = (...values: number[]) =>
    run(simulated, { x: new Tensor('float32', Float32Array.from(values), [2]) });
  expect(await run2(3, 40000)).toEqual(Float32Array.of(6, Number.POSITIVE_INFINITY));
  expect(await run2(0.5, 1)).toEqual(Float32Array.of(0.25, 0.5));
});

test('refuses what it knows no type of', () => {
  const g = new GraphBuilder('custom');
  const x = g.input('x', 'float16', [2]);
  g.op('Relu', [g.op('Mystery', [x], {}, { domain: 'com.example' })], {}, { outputs: ['y'] });
  g.output('y', 'float16', [2]);
  expect(() => simulatePrecision(g.finish())).toThrow(
    expect.objectContaining({ code: 'ERR_MODEL_UNSUPPORTED', message: expect.stringContaining('Mystery') }),
  );
});
