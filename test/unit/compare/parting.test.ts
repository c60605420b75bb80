// Where two models part: 60 graphs of six kinds, each with one defect in a place of its own, and graphs without any.
import { type Comparison, compareModels } from 'node-tensorrt';
import {
  castToBfloat16,
  castToFloat16,
  GraphBuilder,
  type ModelProto,
  serializeModel,
} from 'node-tensorrt/onnx';
import { describe, expect, test } from 'vitest';
import {
  inFloat16,
  kinds,
  makeGraph,
  renamed,
  weightedNodes,
  withOverflow,
  without,
  withWeight,
} from './graphs.js';

const seeds = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);
const graph = (seed: number) => makeGraph(kinds[seed % kinds.length]!, seed);

async function compare(a: ModelProto, b: ModelProto): Promise<Comparison> {
  return compareModels(serializeModel(a), serializeModel(b), { layers: true });
}

describe('a wrong weight', () => {
  const changes: [string, (element: number, i: number) => number][] = [
    ['by 1 %', (element) => element * 1.01],
    ['in one element', (element, i) => (i === 0 ? element * 1.2 + 0.01 : element)],
    ['in its sign', (element) => -element],
  ];
  test.each(seeds(18))('in graph %i', async (seed) => {
    const model = graph(seed);
    const places = weightedNodes(model);
    const { node, weight } = places[(seed * 7) % places.length]!;
    const [, change] = changes[seed % changes.length]!;
    const wrong = withWeight(model, weight.name!, change);
    // In the model itself, another export of it, and casts of it.
    const [, castWrong] = [
      ['as it is', wrong],
      ['renamed', renamed(wrong)],
      ['in FP16', castToFloat16(wrong).model],
      ['in BF16', castToBfloat16(wrong).model],
      ['in FP16 throughout', inFloat16(wrong)],
    ][Math.floor(seed / 3) % 5] as [string, ModelProto];
    const { parted } = await compare(model, castWrong);
    expect(parted).toMatchObject({ node: node.name, operator: node.opType, kind: 'value' });
    expect(parted!.error).toBeGreaterThan(0);
    expect(parted!.nodes).toContain(node.name);
  });
});

describe('a product that overflows in FP16', () => {
  test.each(seeds(20, 20))('in graph %i', async (seed) => {
    const { model, node } = await withOverflow(graph(seed), seed);
    const half = [
      () => castToFloat16(model).model,
      () => castToFloat16(model, { keepFp32: ['!*'] }).model,
      () => inFloat16(model),
      () => renamed(inFloat16(model)),
    ][seed % 4]!();
    const { parted, agree } = await compare(model, half);
    expect(agree).toBe(false);
    expect(parted).toMatchObject({ node: node.name, kind: 'overflow', error: Number.POSITIVE_INFINITY });
  });
});

describe('a pruned layer', () => {
  test.each(seeds(10, 40))('with a weight of zeros, or half of them, in graph %i', async (seed) => {
    const model = graph(seed);
    const places = weightedNodes(model).filter(({ weight }) => weight.dims.length > 1);
    const { node, weight } = places[(seed * 5) % places.length]!;
    const pruned = withWeight(model, weight.name!, (element, i) => (seed % 2 || i % 2 ? 0 : element));
    const { parted } = await compare(model, seed % 3 ? pruned : castToFloat16(pruned).model);
    expect(parted).toMatchObject({ node: node.name, kind: 'value' });
  });

  test.each(seeds(12, 50))('that is gone, in graph %i', async (seed) => {
    const model = graph(seed);
    const removable = model.graph.node.filter(({ opType }) =>
      /^(Relu|LeakyRelu|Tanh|Sigmoid|Gelu|Softplus|BatchNormalization|LayerNormalization|Softmax)$/.test(
        opType,
      ),
    );
    const node = removable[(seed * 3) % removable.length]!;
    const pruned = without(model, node);
    const { parted, unmatched } = await compare(model, seed % 2 ? pruned : renamed(pruned));
    expect(parted).toMatchObject({ node: node.name, kind: 'missing' });
    expect(unmatched).toContain(node.name);
  });

  test('with fewer neurons: where the dimensions are others', async () => {
    const perceptron = (neurons: number) => {
      const g = new GraphBuilder('g');
      const weight = (name: string, dims: number[]) =>
        g.initializer(
          name,
          'float32',
          dims,
          Float32Array.from({ length: dims[0]! * dims[1]! }, (_, i) =>
            Math.sin(Math.floor(i / dims[1]!) * 16 + (i % dims[1]!)),
          ),
        );
      const x = g.input('x', 'float32', [2, 8]);
      const h = g.op(
        'Relu',
        [g.op('MatMul', [x, weight('up', [8, neurons])], {}, { name: 'up' })],
        {},
        { name: 'relu' },
      );
      g.op('MatMul', [h, weight('down', [neurons, 4])], {}, { name: 'down', outputs: ['y'] });
      g.output('y', 'float32', [2, 4]);
      return g.finish();
    };
    const { parted, layers } = await compare(perceptron(16), perceptron(12));
    expect(parted).toMatchObject({ node: 'up', value: 'y', nodes: ['up', 'relu', 'down'], kind: 'shape' });
    expect(layers!.map(({ node }) => node)).toEqual(['down']);
  });
});

describe('no defect', () => {
  test.each(seeds(6))('in graph %i, in 16 bits and under other names', async (seed) => {
    const model = graph(seed);
    const others = [
      castToFloat16(model).model,
      castToBfloat16(model).model,
      inFloat16(model),
      renamed(model),
    ];
    for (const other of others) {
      const { parted, agree, outputs } = await compare(model, other);
      expect({ parted, agree }).toEqual({ parted: null, agree: true });
      expect(outputs[0]!.cosine).toBeGreaterThan(0.999);
    }
  });

  test('where an infinite mask vanishes in a softmax', async () => {
    const g = new GraphBuilder('masked');
    const x = g.input('x', 'float32', [2, 4]);
    const mask = Float32Array.of(0, 0, -1e5, -1e5);
    const masked = g.op('Add', [x, g.initializer('mask', 'float32', [4], mask)]);
    g.op('Softmax', [masked], {}, { outputs: ['y'] });
    g.output('y', 'float32', [2, 4]);
    const model = g.finish();
    const { parted, layers } = await compare(model, inFloat16(model));
    expect(layers![0]).toMatchObject({ operator: 'Add', error: Number.POSITIVE_INFINITY });
    expect(parted).toBeNull();
  });
});

test('a Gemm is a MatMul and an Add', async () => {
  const build = (isGemm: boolean, factor = 1) => {
    const g = new GraphBuilder('g');
    let y = g.input('x', 'float32', [2, 8]);
    for (let i = 0; i < 3; i++) {
      const elements = Float32Array.from({ length: 64 }, (_, j) => Math.sin(j * 7 + i));
      const w = g.initializer(
        `w${i}${isGemm}`,
        'float32',
        [8, 8],
        i === 1 ? elements.map((e) => e * factor) : elements,
      );
      const b = g.initializer(`b${i}${isGemm}`, 'float32', [8], elements.slice(0, 8));
      const name = isGemm ? `dense${i}` : `linear${i}`;
      y = isGemm
        ? g.op('Gemm', [y, w, b], {}, { name })
        : g.op('Add', [g.op('MatMul', [y, w], {}, { name }), b]);
      y = g.op('Relu', [y], {}, { name: isGemm ? `act${i}` : `relu${i}` });
    }
    g.op('Identity', [y], {}, { outputs: ['y'] });
    g.output('y', 'float32', [2, 8]);
    return g.finish();
  };
  const same = await compare(build(false), build(true));
  expect(same).toMatchObject({ agree: true, parted: null, unmatched: ['linear0', 'linear1', 'linear2'] });
  const { parted } = await compare(build(false), build(true, 1.01));
  expect(parted!.nodes).toEqual(['linear1', 'Add.1']);
  expect((await compare(build(true), build(false, 1.01))).parted!.node).toBe('dense1');
});
