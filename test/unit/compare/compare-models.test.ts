// What compareModels measures, against NumPy, and what it refuses.
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { compareModels, Tensor } from 'node-tensorrt';
import {
  castToFloat16,
  GraphBuilder,
  type ModelProto,
  makeTensor,
  serializeModel,
  writeModel,
} from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { python } from '../../oracle/python.js';
import { makeGraph } from './graphs.js';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'compare-'));
});
afterAll(() => rm(directory, { recursive: true }));

/** Adds `shift` to its input. */
function shifted(shift: readonly number[], output = 'logits', input = 'x'): Uint8Array {
  const g = new GraphBuilder('shifted');
  const x = g.input(input, 'float32', ['batch', shift.length]);
  g.op(
    'Add',
    [x, g.initializer('shift', 'float32', [shift.length], Float32Array.from(shift))],
    {},
    { outputs: [output] },
  );
  g.output(output, 'float32', ['batch', shift.length]);
  return serializeModel(g.finish());
}
const rows = (...data: number[]) => ({
  x: new Tensor('float32', Float32Array.from(data), [data.length / 3, 3]),
});

describe('measures', () => {
  const first = [1, 2, 3, -4, 0.5, 0.25];
  const second = [0.1, 0.2, 0.3];
  const shift = [0.5, -2, 0.125];

  test('are those of NumPy, the worst of all samples', async () => {
    const { outputs, inputs, agree, tolerance } = await compareModels(shifted([0, 0, 0]), shifted(shift), {
      inputs: [rows(...first), rows(...second)],
    });
    const expected = JSON.parse(
      python(
        `
import json, sys, numpy as np
samples, shift = json.loads(sys.argv[1])
rows = []
for sample in samples:
    a = np.array(sample, np.float32).reshape(-1, 3)
    b = (a + np.array(shift, np.float32)).astype(np.float32)
    d = np.abs(a.astype(float) - b.astype(float))
    log = lambda v: v - np.log(np.exp(v).sum(-1, keepdims=True))
    p, q = log(a.astype(float)), log(b.astype(float))
    flat = lambda v: v.astype(float).ravel()
    rows.append(dict(largest=d.max(), mean=d.mean(), relative=d.max() / np.abs(a).max(),
        relativeNorm=np.linalg.norm(d) / np.linalg.norm(flat(a)),
        cosine=flat(a) @ flat(b) / np.linalg.norm(flat(a)) / np.linalg.norm(flat(b)),
        same=(a.argmax(-1) == b.argmax(-1)).tolist(), kl=(np.exp(p) * (p - q)).sum(-1).tolist()))
print(json.dumps(dict(
    **{key: max(row[key] for row in rows) for key in ('largest', 'relative', 'relativeNorm')},
    mean=np.mean([row['mean'] for row in rows]), cosine=min(row['cosine'] for row in rows),
    top1=np.mean(sum([row['same'] for row in rows], [])), kl=np.mean(sum([row['kl'] for row in rows], [])))))
`,
        [JSON.stringify([[first, second], shift])],
      ),
    );
    const [output] = outputs;
    expect(output).toMatchObject({
      name: 'logits',
      other: 'logits',
      pairedBy: 'name',
      rows: 'logits',
      nonFinite: 0,
    });
    for (const [name, value] of Object.entries(expected)) {
      expect(output![name as 'kl'], name).toBeCloseTo(value as number, 6);
    }
    expect(inputs).toEqual({ source: 'given', samples: 2 });
    expect({ agree, tolerance }).toEqual({ agree: false, tolerance: 1e-5 });
  });

  test('count what is NaN or infinite in one model only', async () => {
    const { outputs } = await compareModels(
      shifted([0, Number.NaN, Number.POSITIVE_INFINITY]),
      shifted([1, Number.NaN, 0]),
      {
        inputs: [rows(0, 0, 0)],
      },
    );
    expect(outputs[0]).toMatchObject({ largest: Number.POSITIVE_INFINITY, nonFinite: 1, mean: 1, cosine: 0 });
    const same = await compareModels(shifted([1, Number.NaN, 2]), shifted([1, Number.NaN, 2]), {
      inputs: [rows(0, 0, 0)],
    });
    expect(same).toMatchObject({ agree: true, outputs: [{ largest: 0, nonFinite: 0, cosine: 1 }] });
  });

  test('say where random inputs come from', async () => {
    const { inputs } = await compareModels(shifted([1, 2, 3]), shifted([1, 2, 3]), { seed: 7 });
    expect(inputs).toEqual({ source: 'random', samples: 2, seed: 7 });
  });

  test('of outputs and inputs that have other names, by position', async () => {
    const { outputs } = await compareModels(shifted([1, 2, 3]), shifted([1, 2, 4], 'output', 'input'));
    expect(outputs[0]).toMatchObject({ name: 'logits', other: 'output', pairedBy: 'position' });
    expect(outputs[0]!.largest).toBeCloseTo(1, 5);
  });
});

test('values inside are compared in order, with what the nodes before add and without', async () => {
  const model = makeGraph('residual', 3);
  const progress = new Set<string>();
  const { layers, unmatched, agree } = await compareModels(
    serializeModel(model),
    { precision: 'bf16' },
    {
      layers: true,
      onProgress: ({ phase }) => progress.add(phase),
    },
  );
  const names = model.graph.node.map(({ name }) => name!).filter((name) => name !== 'Identity');
  expect(layers!.map(({ node }) => node)).toEqual(names);
  expect({ unmatched, agree }).toEqual({ unmatched: [], agree: true });
  for (const { error } of layers!) expect(error).toBeLessThan(2 ** -6);
  expect(layers!.at(-1)!.largest).toBeGreaterThan(0);
  expect([...progress]).toEqual(['Comparing outputs', 'Comparing layers']);
});

test('of several defects, the first is named', async () => {
  const model = makeGraph('perceptron', 6);
  const { graph } = model;
  const initializer = graph.initializer.map((tensor) => {
    const elements = new Float32Array(tensor.rawData!.slice().buffer).map((element, i) =>
      i % 3 ? element : 0,
    );
    return makeTensor(tensor.name!, 'float32', tensor.dims, elements);
  });
  const pruned: ModelProto = { ...model, graph: { ...graph, initializer } };
  const { parted } = await compareModels(serializeModel(model), serializeModel(pruned), { layers: true });
  expect(parted!.node).toBe(graph.node[0]!.name);
});

test('models in files, one with float16 inputs and outputs', async () => {
  const build = (type: 'float32' | 'float16') => {
    const g = new GraphBuilder('io');
    const x = g.input('x', type, [2, 4]);
    g.op('Mul', [x, x], {}, { outputs: ['y'] });
    g.output('y', type, [2, 4]);
    return g.finish();
  };
  const [a, b] = [path.join(directory, 'a.onnx'), path.join(directory, 'b.onnx')];
  await writeModel(build('float32'), a);
  await writeModel(build('float16'), b);
  const x = new Tensor('float32', Float32Array.of(1, 2, 3, 4, 300, 0.1, 7, 8), [2, 4]);
  const { outputs, precision } = await compareModels(a, b, { inputs: [{ x }] });
  expect(precision).toEqual({ a: 'fp32', b: 'fp16' });
  // 300² is beyond FP16, which ONNX Runtime's own kernels would hide if a node came behind it.
  expect(outputs[0]).toMatchObject({ nonFinite: 1, largest: Number.POSITIVE_INFINITY });
  expect(await compareModels(b, b)).toMatchObject({ agree: true });
});

test('a model that needs nothing in FP32, and one of which all is in FP32', async () => {
  const model = serializeModel(makeGraph('perceptron', 0));
  const within = await compareModels(model, { precision: 'fp16' }, { bisect: { tolerance: 0.1 } });
  expect(within.bisect).toMatchObject({ keepFp32: [], reached: true, of: 'cast', precision: 'fp16' });
  const none = await compareModels(model, { precision: 'fp16' }, { bisect: { tolerance: 0 } });
  const { nodes } = castToFloat16(makeGraph('perceptron', 0)).report;
  expect(none.bisect).toMatchObject({ reached: true, after: 0 });
  expect(none.bisect!.keepFp32.length).toBeLessThanOrEqual(nodes.length);
});

describe('refuses', () => {
  const model = shifted([1, 2, 3]);
  const twoOutputs = () => {
    const g = new GraphBuilder('two');
    const x = g.input('x', 'float32', ['batch', 3]);
    for (const name of ['p', 'q']) {
      g.op('Relu', [x], {}, { outputs: [name] });
      g.output(name, 'float32', ['batch', 3]);
    }
    return serializeModel(g.finish());
  };
  test.each<[string, () => Promise<unknown>, object]>([
    [
      'a model that is no path',
      () => compareModels(7 as never, model),
      { code: 'ERR_INVALID_ARG_TYPE', message: expect.stringMatching(/^a must be/) },
    ],
    [
      'another precision',
      () => compareModels(model, { precision: 'fp8' as never }),
      { message: expect.stringMatching(/^b\.precision/) },
    ],
    [
      'a missing file',
      () => compareModels(model, path.join(directory, 'none.onnx')),
      { code: 'ERR_MODEL_NOT_FOUND' },
    ],
    [
      'bytes that are no model',
      () => compareModels(model, new Uint8Array(9)),
      { code: 'ERR_MODEL_INVALID', message: expect.stringMatching(/^b: /) },
    ],
    [
      'a misspelled option',
      () => compareModels(model, model, { layer: true } as never),
      { message: expect.stringContaining("did you mean 'layers'") },
    ],
    [
      'inputs that are no list',
      () => compareModels(model, model, { inputs: 3 as never }),
      { message: expect.stringMatching(/^options\.inputs must be/) },
    ],
    ['no inputs', () => compareModels(model, model, { inputs: [] }), { message: 'options.inputs is empty.' }],
    [
      'an input of another name',
      () => compareModels(model, model, { inputs: [{ z: rows(1, 2, 3).x }] }),
      { message: expect.stringMatching(/^options\.inputs\[0\]\['z'\] is not an input/) },
    ],
    [
      'an input of another shape',
      () =>
        compareModels(model, model, { inputs: [{ x: new Tensor('float32', new Float32Array(4), [1, 4]) }] }),
      { code: 'ERR_SHAPE_MISMATCH' },
    ],
    [
      'a negative tolerance',
      () => compareModels(model, model, { tolerance: -1 }),
      { message: expect.stringMatching(/^options\.tolerance/) },
    ],
    [
      'a bisection without a tolerance',
      () => compareModels(model, model, { bisect: {} as never }),
      { message: expect.stringMatching(/^options\.bisect\.tolerance/) },
    ],
    [
      'a bisection of FP32',
      () => compareModels(model, model, { bisect: { tolerance: 1 } }),
      { code: 'ERR_INVALID_ARG_VALUE', message: expect.stringMatching(/^options\.bisect needs/) },
    ],
    [
      'models without common outputs',
      () => compareModels(model, twoOutputs()),
      { message: expect.stringMatching(/^b has no output in common/) },
    ],
    [
      'outputs of other dimensions',
      () => compareModels(shifted([1, 2, 3]), oneColumn()),
      { code: 'ERR_SHAPE_MISMATCH' },
    ],
    [
      'a signal that is aborted',
      () => compareModels(model, model, { signal: AbortSignal.abort('enough') }),
      'enough' as never,
    ],
  ])('%s', async (_, attempt, error) => {
    await expect(attempt()).rejects.toEqual(
      typeof error === 'string' ? error : expect.objectContaining(error),
    );
  });

  function oneColumn(): Uint8Array {
    const g = new GraphBuilder('column');
    const x = g.input('x', 'float32', ['batch', 3]);
    g.op('ReduceSum', [x, g.vector([1])], {}, { outputs: ['logits'] });
    g.output('logits', 'float32', ['batch', 1]);
    return serializeModel(g.finish());
  }
});
