import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { normalNumbers } from '../../../dist/base/random.js';
import {
  buildEngine,
  InferenceSession,
  MaskSet,
  pruneModel,
  SparseMask,
  Tensor,
} from '../../../dist/index.js';
import {
  GraphBuilder,
  type ModelProto,
  makeTensor,
  readModel,
  serializeModel,
  tensorElements,
} from '../../../dist/onnx.js';
import { python } from '../../oracle/python.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'masks-'));
});
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string) => path.join(folder, name);

const random = (seed: number, size: number) => Float32Array.from({ length: size }, normalNumbers(seed));

/** A model with every kind of product, a table, a depthwise convolution, small weights and a head. */
function everything(): ModelProto {
  const g = new GraphBuilder('everything');
  const ids = g.input('ids', 'int64', ['batch', 8]);
  const image = g.input('image', 'float32', ['batch', 4, 6, 6]);
  const weight = (name: string, dims: number[], seed: number) =>
    g.initializer(
      name,
      'float32',
      dims,
      random(
        seed,
        dims.reduce((a, b) => a * b),
      ),
    );
  const table = weight('table', [50, 32], 1);
  let x = g.op('Gather', [table, ids]);
  x = g.op('Relu', [g.op('MatMul', [x, weight('up', [32, 64], 2)], {}, { name: '/mlp/up' })]);
  x = g.op('Relu', [g.op('MatMul', [x, weight('odd', [64, 34], 3)], {}, { name: '/mlp/odd' })]);
  x = g.op('Relu', [g.op('MatMul', [x, weight('of odd', [34, 64], 4)], {}, { name: '/mlp/of-odd' })]);
  const turned = g.op('Transpose', [weight('turned', [64, 64], 5)], { perm: [1, 0] });
  x = g.op('Relu', [g.op('MatMul', [x, turned], {}, { name: '/mlp/turned' })]);
  x = g.op('Relu', [g.op('MatMul', [x, weight('tiny', [64, 4], 6)], {}, { name: '/mlp/tiny' })]);
  x = g.op('ReduceMean', [x, g.initializer('axis', 'int64', [1], BigInt64Array.of(1n))], { keepdims: 0 });
  const conv = (input: string, name: string, dims: number[], seed: number, group = 1) =>
    g.op('Relu', [g.op('Conv', [input, weight(name, dims, seed)], { group, pads: [1, 1, 1, 1] }, { name })]);
  let y = conv(image, 'conv', [64, 4, 3, 3], 7);
  y = conv(y, 'grouped', [64, 32, 3, 3], 8, 2);
  y = conv(y, 'depthwise', [64, 1, 3, 3], 9, 64);
  y = g.op('Flatten', [g.op('GlobalAveragePool', [y])]);
  const both = g.op('Concat', [x, y], { axis: 1 });
  const gemm = g.op('Gemm', [both, weight('gemm', [48, 68], 10)], { transB: 1 }, { name: 'gemm' });
  const head = g.op('MatMul', [g.op('Relu', [gemm]), weight('head', [48, 40], 11)], {}, { name: 'head' });
  g.op('Softmax', [head], {}, { outputs: ['p'] });
  g.output('p', 'float32', ['batch', 40]);
  return g.finish();
}

/** Writes a model's weights to a file beside it, as exporters do for large models. */
function writeExternal(model: ModelProto, file: string): void {
  const data: Uint8Array[] = [];
  let offset = 0;
  const location = `${path.basename(file)}.weights`;
  const initializer = model.graph.initializer.map((tensor) => {
    const { rawData, ...rest } = tensor;
    if (rawData!.length < 64) return tensor;
    const entries = { location, offset: String(offset), length: String(rawData!.length) };
    data.push(rawData!);
    offset += rawData!.length;
    return {
      ...rest,
      dataLocation: 1,
      externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
    };
  });
  writeFileSync(file, serializeModel({ ...model, graph: { ...model.graph, initializer } }));
  writeFileSync(path.join(path.dirname(file), location), Buffer.concat(data));
}

const feeds = () => ({
  ids: new Tensor(
    'int64',
    BigInt64Array.from({ length: 16 }, (_, i) => BigInt((7 * i) % 50)),
    [2, 8],
  ),
  image: new Tensor('float32', random(20, 2 * 4 * 36), [2, 4, 6, 6]),
});

async function outputOf(file: string): Promise<number[]> {
  await using session = await InferenceSession.create(file, { device: 'cpu' });
  return Array.from((await session.run(feeds())).p!.data as Float32Array);
}

const summary = (masks: MaskSet) =>
  Object.fromEntries(masks.report().map(({ weight, skipped, twoFour }) => [weight, skipped ?? twoFour]));

describe('forModel', () => {
  test('finds convolutions and matrix products, and says why it leaves weights out', async () => {
    writeFileSync(at('everything.onnx'), serializeModel(everything()));
    const masks = await MaskSet.forModel(at('everything.onnx'), { pattern: '2:4' });
    expect(summary(masks)).toEqual({
      up: true,
      odd: true,
      'of odd': "its dimension 0, which is summed over, has 34 elements, and 4 don't divide it",
      turned: true,
      tiny: 'it is small: 256 elements',
      conv: true,
      grouped: true,
      depthwise: 'it is small: 576 elements',
      gemm: true,
      head: "it is the model's head, whose products are its output",
      table: 'it is an embedding, a table in which rows are looked up',
    });
    expect(masks.report().find(({ weight }) => weight === 'conv')).toEqual({
      weight: 'conv',
      dims: [64, 4, 3, 3],
      size: 2304,
      kept: 1152,
      density: 0.5,
      nodes: ['conv'],
      operator: 'Conv',
      twoFour: true,
      skipped: null,
    });
    // The axes that TensorRT sums over: rows of a MatMul's matrix, columns of a transposed one, input channels.
    for (const [name, axis] of [
      ['up', 0],
      ['turned', 1],
      ['conv', 1],
      ['grouped', 1],
      ['gemm', 1],
    ] as const) {
      expect(masks.get(name)!.check('2:4', axis).ok).toBe(true);
      expect(masks.get(name)!.check('1:4', axis).ok).toBe(false);
    }
  });

  test('include and exclude choose by the names of weights and nodes', async () => {
    const options = { density: 0.5, include: [/^\/mlp/, /head/], exclude: [/odd/] };
    const masks = await MaskSet.forModel(at('everything.onnx'), options);
    expect(masks.names()).toEqual(['up', 'turned', 'tiny', 'head']);
  });

  test('keeps exactly the density, in each layer or in all together', async () => {
    const layers = await MaskSet.forModel(at('everything.onnx'), { density: 0.3 });
    for (const { kept, size, skipped } of layers.report())
      if (!skipped) expect(kept).toBe(Math.round(0.3 * size));
    const all = await MaskSet.forModel(at('everything.onnx'), { density: 0.3, scope: 'global' });
    const masked = all.report().filter(({ skipped }) => !skipped);
    const sum = (of: (each: (typeof masked)[number]) => number) =>
      masked.reduce((total, each) => total + of(each), 0);
    expect(sum(({ kept }) => kept)).toBe(Math.round(0.3 * sum(({ size }) => size)));
    // One threshold for all: the smallest kept magnitude of any weight is above the largest dropped one of any.
    const { graph } = everything();
    let [leastKept, mostDropped] = [Number.POSITIVE_INFINITY, 0];
    for (const { weight } of masked) {
      const w = tensorElements(graph.initializer.find(({ name }) => name === weight)!) as Float32Array;
      const bits = all.get(weight)!.bits();
      w.forEach((value, i) => {
        if ((bits[i >> 3]! >> (i & 7)) & 1) leastKept = Math.min(leastKept, Math.abs(value));
        else mostDropped = Math.max(mostDropped, Math.abs(value));
      });
    }
    expect(leastKept).toBeGreaterThanOrEqual(mostDropped);
  });

  test('Wanda multiplies by the norms of what weights are multiplied by', async () => {
    const g = new GraphBuilder('two layers');
    const x = g.input('x', 'float32', ['batch', 'seq', 64]);
    const [first, second] = [random(1, 64 * 48), random(2, 32 * 48)];
    const hidden = g.op('Relu', [g.op('MatMul', [x, g.initializer('first', 'float32', [64, 48], first)])]);
    const flat = g.op('Reshape', [hidden, g.initializer('shape', 'int64', [2], BigInt64Array.of(-1n, 48n))]);
    const out = g.op('Gemm', [flat, g.initializer('second', 'float32', [32, 48], second)], { transB: 1 });
    g.op('Relu', [out], {}, { outputs: ['y'] });
    g.output('y', 'float32', ['rows', 32]);
    writeFileSync(at('wanda.onnx'), serializeModel(g.finish()));
    const samples = [0, 1].map((i) => random(3 + i, 2 * 5 * 64));
    const inputs = samples.map((data) => ({ x: new Tensor('float32', data, [2, 5, 64]) }));
    const expected = JSON.parse(
      python(
        `
import json, sys
import numpy as np
first, second, a, b = (np.array(v, np.float32) for v in json.load(sys.stdin))
first, second = first.reshape(64, 48), second.reshape(32, 48)
x = np.concatenate([a, b]).reshape(-1, 64)
hidden = np.maximum(x @ first, 0)
def norm(v): return np.sqrt((v.astype(np.float64) ** 2).sum(0)).astype(np.float32)
def keep(scores, count):  # of each row
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, np.argsort(-scores, axis=1, kind='stable')[:, :count], True, 1)
    return mask
masks = [keep((np.abs(first) * norm(x)[:, None]).T, 26).T, keep(np.abs(second) * norm(hidden), 19)]
print(json.dumps([np.packbits(m.ravel(), bitorder='little').tolist() for m in masks]))`,
        [],
        JSON.stringify([first, second, ...samples].map((each) => Array.from(each))),
      ),
    );
    const masks = await MaskSet.forModel(at('wanda.onnx'), { density: 0.4, saliency: 'wanda', inputs });
    expect(['first', 'second'].map((name) => [...masks.get(name)!.bits()])).toEqual(expected);
    const pattern = await MaskSet.forModel(at('wanda.onnx'), { pattern: '2:4', saliency: 'wanda', inputs });
    expect(pattern.get('first')!.check('2:4', 0).ok && pattern.get('second')!.check('2:4', 1).ok).toBe(true);
  });

  test('Wanda measures convolutions', async () => {
    const inputs = [feeds()];
    const masks = await MaskSet.forModel(at('everything.onnx'), {
      pattern: '2:4',
      saliency: 'wanda',
      inputs,
    });
    expect(masks.names()).toEqual(['up', 'odd', 'turned', 'conv', 'grouped', 'gemm']);
    // The image's channels by their norms, within float32's rounding.
    const { image } = feeds();
    const norms = new Float64Array(4);
    image.data.forEach((value, i) => {
      norms[Math.floor(i / 36) % 4]! += value * value;
    });
    const conv = random(7, 64 * 4 * 9);
    const scaled = conv.map((value, i) => value * Math.sqrt(norms[Math.floor(i / 9) % 4]!));
    const expected = SparseMask.magnitudeSync(new Tensor('float32', scaled, [64, 4, 3, 3]), {
      pattern: '2:4',
      axis: 1,
    });
    expect(masks.get('conv')!.equals(expected)).toBe(true);
  });

  test('reports progress, and stops when it is aborted', async () => {
    const seen: string[] = [];
    await MaskSet.forModel(at('everything.onnx'), {
      density: 0.5,
      onProgress: ({ weight, done, total }) => seen.push(`${done}/${total} ${weight}`),
    });
    expect(seen.slice(0, 2)).toEqual(['0/7 up', '1/7 odd']);
    const controller = new AbortController();
    const stopped = MaskSet.forModel(at('everything.onnx'), {
      density: 0.5,
      signal: controller.signal,
      onProgress: () => controller.abort(new Error('stop')),
    });
    await expect(stopped).rejects.toThrow('stop');
  });
});

describe('pruneModel', () => {
  test.each(['inline', 'external'])('writes a model whose %s weights are masked', async (kind) => {
    const source = at(`${kind}.onnx`);
    if (kind === 'inline') writeFileSync(source, serializeModel(everything()));
    else writeExternal(everything(), source);
    const before = createHash('sha256').update(readFileSync(source)).digest('hex');
    const masks = await MaskSet.forModel(source, { pattern: '2:4' });
    await pruneModel(source, masks, at(`${kind}-pruned.onnx`));
    // The same, done by hand.
    const model = everything();
    model.graph.initializer = model.graph.initializer.map((tensor) => {
      const mask = masks.get(tensor.name!);
      if (!mask) return tensor;
      const data = tensorElements(tensor) as Float32Array;
      const { data: masked } = mask.applySync({ type: 'float32', dims: tensor.dims, data });
      return makeTensor(tensor.name!, 'float32', tensor.dims, masked as Float32Array);
    });
    writeFileSync(at('by-hand.onnx'), serializeModel(model));
    expect(await outputOf(at(`${kind}-pruned.onnx`))).toEqual(await outputOf(at('by-hand.onnx')));
    expect(createHash('sha256').update(readFileSync(source)).digest('hex')).toBe(before);
    expect(existsSync(at(`${kind}-pruned.onnx.data`))).toBe(kind === 'external');
    python('import sys, onnx; onnx.checker.check_model(sys.argv[1], full_check=True)', [
      at(`${kind}-pruned.onnx`),
    ]);
  });

  test('refuses masks of another model, and writes nothing', async () => {
    const masks = await MaskSet.forModel(at('everything.onnx'), { density: 0.5 });
    const other = everything();
    const up = other.graph.initializer.find(({ name }) => name === 'up')!;
    (tensorElements(up) as Float32Array)[5]! += 1;
    writeFileSync(at('other.onnx'), serializeModel(other));
    const attempt = pruneModel(at('other.onnx'), masks, at('none.onnx'));
    await expect(attempt).rejects.toMatchObject({
      code: 'ERR_MASK_MISMATCH',
      message: expect.stringMatching(/"up".*elements/),
    });
    const wrong = new MaskSet();
    wrong.set('up', SparseMask.randomSync([64, 32], { density: 0.5 }));
    await expect(pruneModel(at('other.onnx'), wrong, at('none.onnx'))).rejects.toMatchObject({
      code: 'ERR_MASK_MISMATCH',
    });
    const missing = new MaskSet();
    missing.set('nowhere', SparseMask.randomSync([4], { density: 0.5 }));
    await expect(pruneModel(at('other.onnx'), missing, at('none.onnx'))).rejects.toMatchObject({
      code: 'ERR_MASK_MISMATCH',
    });
    expect(readdirSync(folder).filter((name) => name.includes('none'))).toEqual([]);
  });

  test("doesn't overwrite what it reads", async () => {
    const masks = await MaskSet.forModel(at('external.onnx'), { density: 0.5 });
    const code = 'ERR_INVALID_ARG_VALUE';
    await expect(pruneModel(at('external.onnx'), masks, at('external.onnx'))).rejects.toMatchObject({ code });
    const model = await readModel(at('external.onnx'));
    for (const tensor of model.graph.initializer.filter((each) => each.externalData)) {
      tensor.externalData!.find(({ key }) => key === 'location')!.value = 'target.onnx.data';
    }
    writeFileSync(at('reads-target.onnx'), serializeModel(model));
    writeFileSync(at('target.onnx.data'), readFileSync(at('external.onnx.weights')));
    await expect(pruneModel(at('reads-target.onnx'), masks, at('target.onnx'))).rejects.toMatchObject({
      code,
    });
  });
});

describe('a set', () => {
  test('comes back from its file', async () => {
    const masks = await MaskSet.forModel(at('everything.onnx'), { density: 0.4 });
    masks.set('up', masks.get('up')!.not());
    await masks.save(at('masks.safetensors'));
    const read = await MaskSet.load(at('masks.safetensors'));
    expect(read.report()).toEqual(masks.report());
    for (const name of masks.names()) expect(read.get(name)!.equals(masks.get(name)!)).toBe(true);
    await pruneModel(at('everything.onnx'), read, at('from-file.onnx'));
  });

  test('damaged files are refused', async () => {
    const bytes = readFileSync(at('masks.safetensors'));
    const header = bytes.readUInt32LE(0);
    for (let i = 0; i < 60; i++) {
      const damaged = Buffer.from(bytes);
      const place = 8 + ((i * 7919) % header);
      damaged[place] = (damaged[place]! + 1 + i) & 0x7f;
      writeFileSync(at('damaged.safetensors'), damaged);
      // A changed name or reason may still be a valid file.
      await MaskSet.load(at('damaged.safetensors')).catch((error) => {
        expect(error).toMatchObject({ name: 'TensorRTError', code: 'ERR_MODEL_INVALID' });
      });
    }
    for (const length of [0, 7, 100, bytes.length - 1]) {
      writeFileSync(at('damaged.safetensors'), bytes.subarray(0, length));
      await expect(MaskSet.load(at('damaged.safetensors'))).rejects.toMatchObject({
        code: 'ERR_MODEL_INVALID',
      });
    }
    await expect(MaskSet.load(at('nowhere.safetensors'))).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
    });
  });

  test.each([
    ['neither density nor pattern', {}, 'ERR_INVALID_ARG_VALUE'],
    ['both', { density: 0.5, pattern: '2:4' }, 'ERR_INVALID_ARG_VALUE'],
    ['a density above 1', { density: 1.1 }, 'ERR_INVALID_ARG_VALUE'],
    ['a pattern for all together', { pattern: '2:4', scope: 'global' }, 'ERR_INVALID_ARG_VALUE'],
    ['Wanda without inputs', { density: 0.5, saliency: 'wanda' }, 'ERR_INVALID_ARG_TYPE'],
    ['Wanda with no inputs', { density: 0.5, saliency: 'wanda', inputs: [] }, 'ERR_INVALID_ARG_VALUE'],
    ['an include that is no list', { density: 0.5, include: /x/ }, 'ERR_INVALID_ARG_TYPE'],
  ])('options with %s are refused', async (_, options, code) => {
    await expect(MaskSet.forModel(at('everything.onnx'), options as never)).rejects.toMatchObject({ code });
  });

  test('weights that are not finite are refused by name', async () => {
    const model = everything();
    (tensorElements(model.graph.initializer.find(({ name }) => name === 'up')!) as Float32Array)[7] =
      Number.NaN;
    writeFileSync(at('nan.onnx'), serializeModel(model));
    await expect(MaskSet.forModel(at('nan.onnx'), { density: 0.5 })).rejects.toMatchObject({
      name: 'RangeError',
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringMatching(/"up".*element 7/),
    });
  });
});

describe('an engine', () => {
  const target = 'sm_89';

  test('is compiled from pruned weights, and records the masks', async () => {
    const file = at('everything.onnx');
    const masks = await MaskSet.forModel(file, { pattern: '2:4' });
    const cache = at('cache');
    const build = (more: object) => buildEngine(file, { target, cache, ...more });
    const engine = await build({ masks, sparsity: 'auto' });
    const { masks: record, sparsity, model } = engine.manifest;
    expect(record).toEqual({
      model: createHash('sha256').update(readFileSync(file)).digest('hex'),
      weights: masks.names().map((weight) => {
        const mask = masks.get(weight)!;
        const sha256 = createHash('sha256').update(mask.bits()).digest('hex');
        return { weight, size: mask.size, kept: mask.kept, sha256 };
      }),
    });
    expect(model.name).toBe('everything.onnx');
    expect(sparsity!.eligible.map(({ weight }) => weight)).toEqual(masks.names());
    expect(sparsity!.chosen).toBe('unknown');
    expect((await build({ masks, sparsity: 'auto' })).fromCache).toBe(true);
    const dense = await build({ sparsity: 'auto' });
    expect(dense.fromCache).toBe(false);
    expect(dense.manifest.masks).toBeUndefined();
    expect(dense.manifest.sparsity).toEqual({ eligible: [], chosen: 'unknown' });
    await expect(InferenceSession.create(file, { masks } as never)).rejects.toThrow(
      /masks is not an option of a session/,
    );
  }, 60_000);
});
