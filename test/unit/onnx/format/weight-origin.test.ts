import path from 'node:path';
import {
  castToFloat16,
  GraphBuilder,
  lowerMatMulNBits,
  type ModelProto,
  madeWeights,
  makeTensor,
  parseModel,
  readModel,
  recogniseDecoder,
  rewriteDecoder,
  serializeModel,
  tensorElements,
  toFloat16Bits,
} from 'node-tensorrt/onnx';
import { describe, expect, test } from 'vitest';
import { forgetOrigins } from '../../../../dist/onnx/format/weight-origin.js';

/** `y` = `x` · `w` + what a Constant node gives. */
function linear(): ModelProto {
  const g = new GraphBuilder('linear');
  const x = g.input('x', 'float32', [2, 2]);
  const w = g.initializer('w', 'float32', [2, 2], Float32Array.of(1, 2, 3, 4));
  const value = makeTensor('', 'float32', [2], Float32Array.of(5, 6));
  const [bias] = g.op('Constant', [], { value }, { outputs: ['bias'] });
  g.op('Softmax', [g.op('Add', [g.op('MatMul', [x, w]), bias!])], {}, { outputs: ['y'] });
  g.output('y', 'float32', [2, 2]);
  return g.finish();
}

const cast = (model: ModelProto) => castToFloat16(model).model;
const fromFile = (model: ModelProto) => parseModel(serializeModel(model));

describe('a weight says what it was made from', () => {
  test('that is cast, of an initializer or a Constant node, in a file too', () => {
    const made = [
      { weight: 'w__fp16', from: ['w'], changes: ['cast'] },
      { weight: 'bias__fp16', from: ['bias'], changes: ['cast'] },
    ];
    expect(madeWeights(linear().graph)).toEqual([]);
    expect(madeWeights(cast(linear()).graph)).toEqual(made);
    expect(madeWeights(fromFile(cast(linear())).graph)).toEqual(made);
  });

  test.each([
    [8, ['w', 's']],
    [4, ['w']],
  ])('of quantized weights of %d bits: what is recoded and then cast', (bits, from) => {
    const g = new GraphBuilder('quantized');
    const x = g.input('x', 'float32', [2, 16]);
    const random = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 37) % 251);
    const w = g.initializer('w', 'uint8', [4, 1, 2 * bits], random(8 * bits));
    const s = g.initializer('s', 'float32', [4], Float32Array.of(0.5, -0.25, 0.125, 1));
    const z = g.initializer('z', 'uint8', [4], Uint8Array.of(3, 5, 7, 9));
    const sizes = { K: 16, N: 4, bits, block_size: 16 };
    g.op('MatMulNBits', [x, w, s, z], sizes, { outputs: ['y'], domain: 'com.microsoft' });
    g.output('y', 'float32', [2, 4]);
    const lowered = lowerMatMulNBits(g.finish(), { from: 'float32', type: 'float16' });
    expect(madeWeights(lowered.graph)).toEqual([
      { weight: 'w.signed', from, changes: ['recoded'] },
      { weight: 's.matrix', from: ['s'], changes: ['recoded'] },
      { weight: 's.shifts', from: ['s', 'z'], changes: ['recoded'] },
    ]);
    expect(madeWeights(cast(lowered).graph)).toContainEqual({
      weight: 's.shifts__fp16',
      from: ['s', 'z'],
      changes: ['recoded', 'cast'],
    });
  });

  test('of rotary tables: the frequencies that the graph computes them from', async () => {
    const file = path.join(import.meta.dirname, '../../../fixtures/decoders/llama/optimum/model.onnx');
    const model = await readModel(file);
    const where = { directory: path.dirname(file) };
    const lift = await rewriteDecoder(model, recogniseDecoder(model), { ...where, maxLength: 32 });
    if (lift.reason !== undefined) throw new Error(lift.reason);
    const made = madeWeights(lift.model.graph);
    expect(made.map(({ weight, changes }) => [weight, changes])).toEqual([
      ['rotary.cosines', ['computed']],
      ['rotary.sines', ['computed']],
    ]);
    const names = new Set([
      ...model.graph.initializer.map(({ name }) => name),
      ...model.graph.node.flatMap(({ opType, output }) => (opType === 'Constant' ? output : [])),
    ]);
    for (const { from } of made) {
      expect(from.length).toBeGreaterThan(0);
      expect(from.filter((name) => !names.has(name))).toEqual([]);
    }
  });

  test('every weight of a decoder that is said to be cast holds the elements of the one that it was made from', async () => {
    const file = path.join(import.meta.dirname, '../../../fixtures/decoders/qwen3/optimum/model.onnx');
    const model = await readModel(file);
    const where = { directory: path.dirname(file) };
    const mixed = castToFloat16(model, where).model;
    const weights = new Map(model.graph.initializer.map((tensor) => [tensor.name, tensor]));
    const halves = new Map(mixed.graph.initializer.map((tensor) => [tensor.name, tensor]));
    const made = madeWeights(mixed.graph).filter(({ from }) => weights.has(from[0]));
    expect(made.length).toBeGreaterThan(10);
    for (const { weight, from, changes } of made) {
      expect([from.length, changes]).toEqual([1, ['cast']]);
      const exact = tensorElements(weights.get(from[0])!, where) as Float32Array;
      expect(tensorElements(halves.get(weight)!, where)).toEqual(toFloat16Bits(exact));
    }
  });
});

describe('where a weight comes from can be forgotten', () => {
  test('of all of them', () => {
    const model = fromFile(cast(linear()));
    forgetOrigins(model.graph);
    expect(madeWeights(model.graph)).toEqual([]);
  });

  test('what a file says instead counts for nothing, and what others say stays', () => {
    const model = cast(linear());
    for (const value of ['', '{', '7', 'null', '{"from":"w","changes":[]}', '{"from":[7],"changes":[]}']) {
      const other = { key: 'framework', value: 'layer 7' };
      model.graph.initializer = model.graph.initializer.map((tensor) => ({
        ...tensor,
        metadataProps: [{ key: 'node-tensorrt.origin', value }, other],
      }));
      expect(madeWeights(model.graph)).toEqual([]);
      const read = fromFile(model);
      forgetOrigins(read.graph);
      for (const { metadataProps } of read.graph.initializer) expect(metadataProps).toEqual([other]);
    }
  });
});
