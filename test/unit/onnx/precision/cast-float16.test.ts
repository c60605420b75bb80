import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { InferenceSession, Tensor } from 'node-tensorrt';
import {
  castToFloat16,
  GraphBuilder,
  type ModelProto,
  parseModel,
  serializeModel,
  writeModel,
} from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ModelChecker } from '../../../oracle/model-checker.js';
import { simulateFloat16 } from '../../../oracle/simulate-float16.js';

const checker = new ModelChecker();
afterAll(() => checker.close());

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'float16-'));
});
afterAll(() => rm(directory, { recursive: true }));

function random(size: number, scale = 1): Float32Array {
  let state = size;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return scale * (state / 2 ** 31 - 1);
  });
}

/** A graph over `x` [2, 8], built by `body`, whose value becomes the output `y`. */
function graph(body: (g: GraphBuilder, x: string) => string, dims: number[] = [2, 8]): ModelProto {
  const g = new GraphBuilder('g', { opset: 20 });
  const x = g.input('x', 'float32', dims);
  g.op('Identity', [body(g, x)], {}, { outputs: ['y'] });
  g.output('y', 'float32', [2, 8]);
  return g.finish();
}
const weight = (g: GraphBuilder, name: string, scale = 1) =>
  g.initializer(name, 'float32', [8, 8], random(64, scale));

interface Types {
  /** Operators with the type of their first output, in order. */
  readonly nodes: [string, string][];
  /** Of the last node of an operator, the types of its inputs. */
  readonly inputs: Record<string, string[]>;
  readonly weights: Record<string, string>;
}

/** Casts, has onnx check the result, and says what computes in FP16: operator types by their first output's type. */
async function cast(model: ModelProto, options = {}) {
  const result = castToFloat16(model, options);
  const bytes = serializeModel(result.model);
  const types = (await checker.check(bytes)) as Types;
  const typeOf = (operator: string) => types.nodes.find(([type]) => type === operator)?.[1];
  return { ...result, ...types, typeOf, bytes };
}

async function run(model: Uint8Array, x: Float32Array, dims: number[] = [2, 8]): Promise<Float32Array> {
  await using session = await InferenceSession.create(model);
  const { y } = await session.run({ x: new Tensor('float32', x, dims) });
  return y!.data as Float32Array;
}

describe('what computes in FP16', () => {
  test.each<[string, (g: GraphBuilder, x: string) => string]>([
    ['MatMul', (g, x) => g.op('MatMul', [x, weight(g, 'w')])],
    [
      'Gemm',
      (g, x) =>
        g.op('Gemm', [x, weight(g, 'w'), g.initializer('b', 'float32', [8], random(8))], { transB: 1 }),
    ],
    ['Einsum', (g, x) => g.op('Einsum', [x, weight(g, 'w')], { equation: 'ij,jk->ik' })],
  ])('%s, with its weights', async (operator, body) => {
    const { typeOf, weights, report } = await cast(graph(body));
    expect(typeOf(operator)).toBe('FLOAT16');
    expect(new Set(Object.values(weights))).toEqual(new Set(['FLOAT16']));
    expect(report.float16[operator]).toBe(1);
  });

  test('convolutions', async () => {
    const g = new GraphBuilder('conv');
    const x = g.input('x', 'float32', [1, 3, 8, 8]);
    const w = g.initializer('w', 'float32', [4, 3, 3, 3], random(108));
    const c = g.op('Relu', [g.op('Conv', [x, w, g.initializer('b', 'float32', [4], random(4))])]);
    const pooled = g.op('MaxPool', [c], { kernel_shape: [2, 2] });
    g.op('GlobalAveragePool', [pooled], {}, { outputs: ['y'] });
    g.output('y', 'float32', [1, 4, 1, 1]);
    const { typeOf } = await cast(g.finish());
    expect(['Conv', 'Relu', 'MaxPool', 'GlobalAveragePool'].map(typeOf)).toEqual([
      'FLOAT16',
      'FLOAT16',
      'FLOAT16',
      'FLOAT', // a reduction
    ]);
  });

  test('what follows a product element by element, but not what also reads FP32', async () => {
    const follows = await cast(graph((g, x) => g.op('Relu', [g.op('MatMul', [x, weight(g, 'w')])])));
    expect(follows.typeOf('Relu')).toBe('FLOAT16');
    const residual = await cast(graph((g, x) => g.op('Add', [x, g.op('MatMul', [x, weight(g, 'w')])])));
    expect(residual.typeOf('Add')).toBe('FLOAT');
  });

  test.each<[string, (g: GraphBuilder, m: string) => string]>([
    ['Softmax', (g, m) => g.op('Softmax', [m])],
    [
      'LayerNormalization',
      (g, m) => g.op('LayerNormalization', [m, g.initializer('s', 'float32', [8], random(8))]),
    ],
    ['ReduceMean', (g, m) => g.op('Add', [m, g.op('ReduceMean', [m, g.vector([1])])])],
    ['Pow', (g, m) => g.op('Pow', [m, g.scalar(2)])],
    ['Exp', (g, m) => g.op('Exp', [m])],
    ['Log', (g, m) => g.op('Log', [m])],
    ['Sqrt', (g, m) => g.op('Sqrt', [m])],
    ['Erf', (g, m) => g.op('Erf', [m])],
  ])('%s stays in FP32 after a product', async (operator, body) => {
    const { typeOf } = await cast(graph((g, x) => body(g, g.op('MatMul', [x, weight(g, 'w')]))));
    expect(typeOf('MatMul')).toBe('FLOAT16');
    expect(typeOf(operator)).toBe('FLOAT');
  });

  test('embedding tables are stored in FP16, and their rows are FP32 again', async () => {
    const g = new GraphBuilder('embedding');
    const ids = g.input('ids', 'int64', [2, 8]);
    const table = g.initializer('table', 'float32', [16, 4], random(64));
    g.op('Add', [g.op('Gather', [table, ids]), g.scalar(1)], {}, { outputs: ['y'] });
    g.output('y', 'float32', [2, 8, 4]);
    const { weights, typeOf } = await cast(g.finish());
    expect(Object.values(weights)).toContain('FLOAT16');
    expect(typeOf('Add')).toBe('FLOAT');
  });

  test.each([
    ['logits', 16, 'FLOAT'],
    ['logits', 2, 'FLOAT16'],
    ['scores', 16, 'FLOAT16'],
  ])('a table of 16 rows where there are %s, %d of them: %s', async (name, count, expected) => {
    const g = new GraphBuilder('decoder');
    const ids = g.input('ids', 'int64', [2, 8]);
    const table = g.initializer('table', 'float32', [16, 4], random(64));
    const head = g.initializer('head', 'float32', [4, count], random(4 * count));
    g.op('MatMul', [g.op('Softmax', [g.op('Gather', [table, ids])]), head], {}, { outputs: [name] });
    g.output(name, 'float32', [2, 8, count]);
    expect((await cast(g.finish())).typeOf('Gather')).toBe(expected);
  });

  test('opset-23 Attention, whose mask may be lower than FP16 goes', async () => {
    const g = new GraphBuilder('attention', { opset: 23, irVersion: 11 });
    const [q, k, v] = ['q', 'k', 'v'].map((name) => g.input(name, 'float32', [1, 2, 4, 8]));
    const mask = g.input('mask', 'float32', [4, 4]);
    g.op('Attention', [q!, k!, v!, mask], {}, { outputs: ['y'] });
    g.output('y', 'float32', [1, 2, 4, 8]);
    const model = g.finish();
    const { inputs, bytes } = await cast(model);
    expect(inputs.Attention).toEqual(['FLOAT16', 'FLOAT16', 'FLOAT16', 'FLOAT16']);
    const lowest = Math.fround(-3.4e38);
    const data = Float32Array.from({ length: 16 }, (_, i) => (i % 4 > i >> 2 ? lowest : 0));
    const feeds = {
      q: new Tensor('float32', random(64), [1, 2, 4, 8]),
      k: new Tensor('float32', random(64, 2), [1, 2, 4, 8]),
      v: new Tensor('float32', random(64, 3), [1, 2, 4, 8]),
      mask: new Tensor('float32', data, [4, 4]),
    };
    const [expected, actual] = await Promise.all(
      [serializeModel(model), bytes].map(async (each) => {
        await using session = await InferenceSession.create(each);
        return (await session.run(feeds)).y!.data as Float32Array;
      }),
    );
    actual!.forEach((value, i) => {
      expect(Math.abs(value - expected![i]!)).toBeLessThan(0.01);
    });
  });
});

describe('what stays', () => {
  test("the graph's inputs and outputs, and the model given", async () => {
    const model = graph((g, x) => g.op('MatMul', [x, weight(g, 'w')]));
    const before = serializeModel(model);
    const { model: after } = await cast(model);
    expect(after.graph.input).toEqual(model.graph.input);
    expect(after.graph.output).toEqual(model.graph.output);
    expect(serializeModel(model)).toEqual(before);
  });

  test('products of weights beyond FP16, with the reason', async () => {
    const { typeOf, report } = await cast(
      graph((g, x) => g.op('MatMul', [x, weight(g, 'huge', 1e6)], {}, { name: 'mm' })),
    );
    expect(typeOf('MatMul')).toBe('FLOAT');
    expect(report.kept).toEqual([{ node: 'mm', reason: expect.stringContaining('"huge"') }]);
  });

  test('products of positions, which FP16 does not count beyond 2048', async () => {
    const g = new GraphBuilder('rotary');
    const positions = g.input('positions', 'int64', [1, 8]);
    const frequencies = g.initializer('frequencies', 'float32', [8, 4], random(32));
    const angles = g.op('MatMul', [g.op('Cast', [positions], { to: 1 }), frequencies]);
    g.op('Cos', [angles], {}, { outputs: ['y'] });
    g.output('y', 'float32', [1, 4]);
    expect((await cast(g.finish())).typeOf('MatMul')).toBe('FLOAT');
  });

  test('an epsilon that FP16 would make zero, and a limit that it would make infinite', async () => {
    const product = (g: GraphBuilder, x: string) => g.op('MatMul', [x, weight(g, 'w')]);
    expect((await cast(graph((g, x) => g.op('Add', [product(g, x), g.scalar(1e-12)])))).typeOf('Add')).toBe(
      'FLOAT',
    );
    expect((await cast(graph((g, x) => g.op('Max', [product(g, x), g.scalar(-3e38)])))).typeOf('Max')).toBe(
      'FLOAT',
    );
    expect((await cast(graph((g, x) => g.op('Div', [product(g, x), g.scalar(8)])))).typeOf('Div')).toBe(
      'FLOAT16',
    );
  });

  test('an epsilon in a vector too, a square, and a softmax that a logarithm reads', async () => {
    const product = (g: GraphBuilder, x: string) => g.op('MatMul', [x, weight(g, 'w')]);
    const epsilons = (g: GraphBuilder) => g.initializer('e', 'float32', [8], new Float32Array(8).fill(1e-12));
    expect((await cast(graph((g, x) => g.op('Add', [product(g, x), epsilons(g)])))).typeOf('Add')).toBe(
      'FLOAT',
    );
    const square = graph((g, x) => {
      const h = product(g, x);
      return g.op('Mul', [h, h]);
    });
    expect((await cast(square)).typeOf('Mul')).toBe('FLOAT');
    const guarded = (last: string) =>
      graph((g, x) => {
        const p = g.op('Softmax', [product(g, x)]);
        const where = g.op('Where', [g.op('IsNaN', [p]), g.scalar(0), p]);
        return last === 'Log' ? g.op('Log', [where]) : g.op('MatMul', [where, weight(g, 'v')]);
      });
    expect((await cast(guarded('Log'))).typeOf('Where')).toBe('FLOAT');
    expect((await cast(guarded('MatMul'))).typeOf('Where')).toBe('FLOAT16');
  });

  test('positions that are not cast: a range, or a weight that counts', async () => {
    const angles = async (positions: (g: GraphBuilder) => string) => {
      const g = new GraphBuilder('angles');
      const frequencies = g.input('f', 'float32', [1, 4]);
      g.op('Sin', [g.op('MatMul', [positions(g), frequencies])], {}, { outputs: ['y'] });
      g.output('y', 'float32', [64, 4]);
      return (await cast(g.finish())).typeOf('MatMul');
    };
    const column = (g: GraphBuilder, value: string) => g.op('Reshape', [value, g.vector([64, 1])]);
    const range = (g: GraphBuilder) => column(g, g.op('Range', [g.scalar(0), g.scalar(64), g.scalar(1)]));
    expect(await angles(range)).toBe('FLOAT');
    const counted = Float32Array.from({ length: 64 }, (_, i) => i);
    expect(await angles((g) => g.initializer('n', 'float32', [64, 1], counted))).toBe('FLOAT');
    const odd = Float32Array.from({ length: 64 }, (_, i) => i / 7);
    expect(await angles((g) => g.initializer('n', 'float32', [64, 1], odd))).toBe('FLOAT16');
  });

  test('what keepFp32 names, by name or operator type', async () => {
    const model = graph((g, x) =>
      g.op('MatMul', [g.op('MatMul', [x, weight(g, 'a')], {}, { name: 'layer.0.q' }), weight(g, 'b')]),
    );
    expect((await cast(model, { keepFp32: ['layer.*.q'] })).report.float16.MatMul).toBe(1);
    expect((await cast(model, { keepFp32: ['MatMul'] })).report.float16.MatMul).toBeUndefined();
    expect((await cast(model, { keepFp32: ['layer.*.'] })).report.float16.MatMul).toBe(2);
  });

  test('the bodies of control flow, and what they read from outside', async () => {
    const model = graph((g, x) => {
      const product = g.op('MatMul', [x, weight(g, 'w')], {}, { outputs: 1 })[0]!;
      const body = (name: string, type: string) => {
        const node = { input: [product], output: [name], opType: type, attribute: [] };
        const output = [
          { name, type: { tensorType: { elemType: 1, shape: { dim: [{ dimValue: 2 }, { dimValue: 8 }] } } } },
        ];
        return { graph: { name, node: [node], input: [], output, initializer: [], valueInfo: [] } };
      };
      const yes = g.op('Greater', [g.op('ReduceMax', [x], { keepdims: 0 }), g.scalar(0)]);
      return g.op('If', [yes], { then_branch: body('t', 'Relu'), else_branch: body('e', 'Neg') });
    });
    const { bytes, typeOf } = await cast(model);
    expect(typeOf('MatMul')).toBe('FLOAT16');
    const x = random(16);
    const [expected, actual] = [await run(serializeModel(model), x), await run(bytes, x)];
    actual.forEach((value, i) => {
      expect(Math.abs(value - expected[i]!)).toBeLessThan(0.01);
    });
  });

  test('weights in a file beside the model are found there', async () => {
    const model = graph((g, x) => g.op('MatMul', [x, weight(g, 'w')]));
    const tensor = model.graph.initializer[0]!;
    await writeFile(path.join(directory, 'w.bin'), tensor.rawData!);
    const { rawData: _, ...rest } = tensor;
    model.graph.initializer[0] = {
      ...rest,
      dataLocation: 1,
      externalData: [{ key: 'location', value: 'w.bin' }],
    };
    expect(() => castToFloat16(model)).toThrow(expect.objectContaining({ code: 'ERR_MODEL_INVALID' }));
    expect(castToFloat16(model, { directory }).report.weights).toBe(1);
  });

  test('a model that is in FP16 already', () => {
    const once = castToFloat16(graph((g, x) => g.op('MatMul', [x, weight(g, 'w')])));
    const twice = castToFloat16(parseModel(serializeModel(once.model)));
    expect(twice.report).toMatchObject({ float16: {}, casts: 0, weights: 0 });
  });
});

test('the simulation shows an overflow that the CPU hides', async () => {
  // 300 · 300 · 8 is beyond FP16; a CPU that computes FP16 chains in FP32 never sees it.
  const big = (g: GraphBuilder, name: string, value: number) =>
    g.initializer(name, 'float32', [8, 8], new Float32Array(64).fill(value));
  const model = graph((g, x) => g.op('MatMul', [g.op('MatMul', [x, big(g, 'a', 300)]), big(g, 'b', 1e-4)]));
  const { model: mixed } = castToFloat16(model);
  const file = path.join(directory, 'overflow.onnx');
  await writeModel(mixed, file);
  const y = await run(simulateFloat16(file), new Float32Array(16).fill(300));
  expect(y.some((value) => !Number.isFinite(value))).toBe(true);
});
