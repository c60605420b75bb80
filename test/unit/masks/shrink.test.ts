import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { normalNumbers } from '../../../dist/base/random.js';
import { randomInputs } from '../../../dist/execution/random-inputs.js';
import {
  InferenceSession,
  LanguageModel,
  MaskSet,
  pruneModel,
  SparseMask,
  Tensor,
} from '../../../dist/index.js';
import { GraphBuilder, readModel, serializeModel } from '../../../dist/onnx.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'shrink-'));
});
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string) => path.join(folder, name);

const random = (seed: number, size: number) => Float32Array.from({ length: size }, normalNumbers(seed));
type Build = (g: GraphBuilder, x: string, weight: (name: string, dims: number[]) => string) => string;

/** Writes a model `x` [batch, seq, 16] → `y` whose middle part is given. */
function write(name: string, build: Build): string {
  const g = new GraphBuilder(name);
  const x = g.input('x', 'float32', ['batch', 'seq', 16]);
  let seed = 1;
  const weight = (each: string, dims: number[]) =>
    g.initializer(
      each,
      'float32',
      dims,
      random(
        seed++,
        dims.reduce((a, b) => a * b),
      ),
    );
  const y = build(g, x, weight);
  g.op('Add', [y, x], {}, { outputs: ['y'] });
  g.output('y', 'float32', ['batch', 'seq', 16]);
  const file = at(`${name}.onnx`);
  writeFileSync(file, serializeModel(g.finish()));
  return file;
}

const ints = (g: GraphBuilder, name: string, values: number[]) =>
  g.initializer(name, 'int64', [values.length], BigInt64Array.from(values, BigInt));

const mlps: Record<string, Build> = {
  'up and down': (g, x, weight) => {
    const up = g.op('Add', [g.op('MatMul', [x, weight('up', [16, 40])]), weight('bias', [40])]);
    return g.op('MatMul', [g.op('Gelu', [up]), weight('down', [40, 16])]);
  },
  'gate, up and down': (g, x, weight) => {
    const gate = g.op('MatMul', [x, weight('gate', [16, 40])]);
    const silu = g.op('Mul', [gate, g.op('Sigmoid', [gate])]);
    const both = g.op('Mul', [silu, g.op('MatMul', [x, weight('up', [16, 40])])]);
    return g.op('MatMul', [both, weight('down', [40, 16])]);
  },
  'gate and up in one matrix, split': (g, x, weight) => {
    const both = g.op('Add', [g.op('MatMul', [x, weight('gate and up', [16, 80])]), weight('bias', [80])]);
    const [gate, up] = ['first half', 'second half'];
    g.op('Split', [both, ints(g, 'sizes', [40, 40])], { axis: -1 }, { outputs: [gate!, up!] });
    return g.op('MatMul', [g.op('Mul', [g.op('Relu', [gate!]), up!]), weight('down', [40, 16])]);
  },
  'gate and up in one matrix, sliced': (g, x, weight) => {
    const both = g.op('MatMul', [x, weight('gate and up', [16, 80])]);
    const slice = (name: string, from: number, to: number) =>
      g.op('Slice', [
        both,
        ints(g, `${name} from`, [from]),
        ints(g, `${name} to`, [to]),
        ints(g, `${name} axis`, [-1]),
      ]);
    const hidden = g.op('Mul', [g.op('Tanh', [slice('gate', 0, 40)]), slice('up', 40, 80)]);
    return g.op('MatMul', [hidden, weight('down', [40, 16])]);
  },
  'with reshapes, and a constant that others read too': (g, x, weight) => {
    const rows = g.op('Reshape', [x, ints(g, 'rows', [-1, 16])]);
    const up = g.op('Gemm', [rows, weight('up', [40, 16]), weight('bias', [40])], { transB: 1 });
    const wide = ints(g, 'wide', [1, -1, 40]);
    const hidden = g.op('Relu', [g.op('Reshape', [up, wide])]);
    const flat = g.op('Reshape', [hidden, ints(g, 'narrow', [-1, 40])]);
    const down = g.op('Gemm', [flat, weight('down', [40, 16])]);
    // The same shape, for something that has nothing to do with the neurons.
    const other = g.op('Reshape', [weight('other', [5, 8]), wide]);
    const sum = g.op('ReduceSum', [other], { keepdims: 0 });
    return g.op('Mul', [g.op('Reshape', [down, g.op('Shape', [x])]), g.op('Sigmoid', [sum])]);
  },
  'with a transposed weight, and two readers': (g, x, weight) => {
    const up = g.op('MatMul', [x, g.op('Transpose', [weight('up', [40, 16])], { perm: [1, 0] })]);
    const hidden = g.op('Elu', [up]);
    return g.op('Sub', [
      g.op('MatMul', [hidden, weight('down', [40, 16])]),
      g.op('MatMul', [hidden, weight('down too', [40, 16])]),
    ]);
  },
};

async function outputs(file: string, feeds: Record<string, Tensor>): Promise<Record<string, number[]>> {
  await using session = await InferenceSession.create(file, { device: 'cpu' });
  const results = await session.run(feeds);
  return Object.fromEntries(
    Object.entries(results).map(([name, { data }]) => [name, Array.from(data as ArrayLike<number>, Number)]),
  );
}

function expectEqual(actual: Record<string, number[]>, expected: Record<string, number[]>): void {
  for (const [name, values] of Object.entries(expected)) {
    const largest = Math.max(1, ...values.map(Math.abs));
    const difference = Math.max(0, ...values.map((value, i) => Math.abs(value - actual[name]![i]!)));
    expect(actual[name]!.length).toBe(values.length);
    expect(difference / largest).toBeLessThan(1e-5);
  }
}

async function prune(file: string, density: number) {
  const masks = await MaskSet.forModel(file, { structure: 'mlp', density });
  await pruneModel(file, masks, at('masked.onnx'));
  await pruneModel(file, masks, at('shrunk.onnx'), { shrink: true });
  return masks;
}

describe('an MLP loses neurons and gives the masked outputs:', () => {
  test.each(Object.entries(mlps))('%s', async (name, build) => {
    const file = write(name.replaceAll(/\W+/g, '-'), build);
    for (const density of [0, 0.3, 0.5, 1]) {
      const masks = await prune(file, density);
      const feeds = { x: new Tensor('float32', random(9, 2 * 3 * 16), [2, 3, 16]) };
      expectEqual(await outputs(at('shrunk.onnx'), feeds), await outputs(at('masked.onnx'), feeds));
      const neurons = Math.max(1, Math.round(density * 40));
      const { graph } = await readModel(at('shrunk.onnx'));
      const dims = graph.initializer.find((tensor) => tensor.name === 'down')!.dims;
      expect(dims).toEqual([neurons, 16]);
      for (const { kept, size } of masks.report().filter(({ skipped }) => !skipped)) {
        expect(kept).toBe((Math.round(density * 40) * size) / 40);
      }
    }
  });

  test('by the sum of squares of their weights, or by Wanda', async () => {
    const file = write('scores', mlps['up and down']!);
    const [up, down] = [random(1, 16 * 40), random(3, 40 * 16)];
    const best = (scores: number[]) =>
      Array.from(scores.keys())
        .sort((a, b) => scores[b]! - scores[a]!)
        .slice(0, 10)
        .sort((a, b) => a - b);
    const neurons = Array.from({ length: 40 }, (_, i) => i);
    const rows = (masks: MaskSet) => {
      const bits = masks.get('down')!.bits();
      return neurons.filter((i) => (bits[(i * 16) >> 3]! >> ((i * 16) & 7)) & 1);
    };
    const square = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0);
    const squares = neurons.map(
      (i) => square(up.filter((_, k) => k % 40 === i)) + square(down.subarray(16 * i, 16 * (i + 1))),
    );
    expect(rows(await MaskSet.forModel(file, { structure: 'mlp', density: 0.25 }))).toEqual(best(squares));
    // Wanda's norms are those of the neurons' values.
    const x = random(9, 3 * 16);
    const bias = random(2, 40);
    const gelu = (v: number) => 0.5 * v * (1 + erf(v / Math.SQRT2));
    const norms = neurons.map((i) =>
      Math.hypot(
        ...[0, 1, 2].map((row) => {
          let sum = bias[i]!;
          for (let k = 0; k < 16; k++) sum += x[16 * row + k]! * up[40 * k + i]!;
          return gelu(sum);
        }),
      ),
    );
    const wanda = neurons.map((i) =>
      down.subarray(16 * i, 16 * (i + 1)).reduce((sum, w) => sum + Math.abs(w) * norms[i]!, 0),
    );
    const inputs = [{ x: new Tensor('float32', x, [1, 3, 16]) }];
    const masks = await MaskSet.forModel(file, {
      structure: 'mlp',
      density: 0.25,
      saliency: 'wanda',
      inputs,
    });
    expect(rows(masks)).toEqual(best(wanda));
  });
});

/** Abramowitz and Stegun 7.1.26 is too coarse: the series converges for the small values here. */
function erf(x: number): number {
  let [term, sum] = [x, x];
  for (let n = 1; n < 200; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

describe('left alone', () => {
  const cases: [string, Build, string][] = [
    [
      'neurons that are normalised',
      (g, x, weight) => {
        const up = g.op('MatMul', [x, weight('up', [16, 40])]);
        return g.op('MatMul', [g.op('Softmax', [up]), weight('down', [40, 16])]);
      },
      'Softmax',
    ],
    [
      'neurons that something else reads',
      (g, x, weight) => {
        const up = g.op('Relu', [g.op('MatMul', [x, weight('up', [16, 40])])]);
        const down = g.op('MatMul', [up, weight('down', [40, 16])]);
        return g.op('Add', [down, g.op('ReduceMax', [up], { keepdims: 1 })]);
      },
      'ReduceMax',
    ],
    [
      'neurons that are added to something computed',
      (g, x, weight) => {
        const up = g.op('Relu', [g.op('MatMul', [x, weight('up', [16, 16])])]);
        return g.op('MatMul', [g.op('Add', [up, x]), weight('down', [16, 16])]);
      },
      'inputs of the model',
    ],
  ];
  test.each(cases)('%s', async (name, build, reason) => {
    const file = write(name.replaceAll(' ', '-'), build);
    const masks = await MaskSet.forModel(file, { structure: 'mlp', density: 0.5 });
    expect(masks.names()).toEqual([]);
    const down = masks.report().find(({ weight }) => weight === 'down')!;
    expect(down.skipped).toMatch(/^it belongs to no MLP: /);
    expect(down.skipped).toContain(reason);
  });

  test('single elements of a masked matrix stay as zeros when a model shrinks', async () => {
    const file = write('elements', mlps['up and down']!);
    const masks = new MaskSet();
    const elements = SparseMask.randomSync([40, 16], { density: 0.5, seed: 3 });
    masks.set('down', elements);
    await pruneModel(file, masks, at('masked.onnx'));
    await pruneModel(file, masks, at('shrunk.onnx'), { shrink: true });
    const { graph } = await readModel(at('shrunk.onnx'));
    expect(graph.initializer.find(({ name }) => name === 'down')!.dims).toEqual([40, 16]);
    const feeds = { x: new Tensor('float32', random(9, 48), [1, 3, 16]) };
    expect(await outputs(at('shrunk.onnx'), feeds)).toEqual(await outputs(at('masked.onnx'), feeds));
  });

  test("'heads' are refused by name", async () => {
    const file = write('heads', mlps['up and down']!);
    await expect(MaskSet.forModel(file, { structure: 'heads', density: 0.5 })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringContaining('options.structure'),
    });
  });
});

const decoders = path.resolve(import.meta.dirname, '../../fixtures/decoders');
const exports = readdirSync(decoders, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.onnx') && !file.includes('int4'))
  .map((file) => path.dirname(file));

describe('an exported decoder with half of its neurons', () => {
  test.each(exports)('%s', async (name) => {
    const file = path.join(decoders, name, 'model.onnx');
    const masks = await prune(file, 0.5);
    const matrices = masks.report().filter(({ skipped }) => !skipped);
    expect(matrices.length).toBeGreaterThanOrEqual(4);
    expect(matrices.every(({ density }) => density === 0.5)).toBe(true);
    const size = (base: string) =>
      statSync(at(base)).size + (existsSync(at(`${base}.data`)) ? statSync(at(`${base}.data`)).size : 0);
    expect(size('shrunk.onnx')).toBeLessThan(size('masked.onnx'));
    const model = await readModel(file);
    const isScattered = model.graph.node.some(({ opType }) => opType === 'TensorScatter');
    if (!isScattered) {
      for (const feeds of randomInputs(model, { seed: 1, samples: 1 })) {
        expectEqual(await outputs(at('shrunk.onnx'), feeds), await outputs(at('masked.onnx'), feeds));
      }
    }
    const prompt = [5, 9, 13, 21, 34];
    const options = { maxTokens: 12, temperature: 0, ignoreEos: true };
    const tokens = async (base: string) => {
      await using loaded = await LanguageModel.load(at(base), { device: 'cpu' });
      return (await loaded.generate(prompt, options)).tokens;
    };
    expect(await tokens('shrunk.onnx')).toEqual(await tokens('masked.onnx'));
  });
});
