import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type BuildProgress, buildEngine, type Engine, Tensor } from 'node-tensorrt';
import { GraphBuilder, readModel, serializeModel, writeModel } from 'node-tensorrt/onnx';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { importModel } from '../../../dist/engine/model-import.js';
import { decoderModel } from '../../decoder-fixture.js';

const fixture = (name: string) => path.join(import.meta.dirname, '../../fixtures/session', name);
const withCode = (code: string) => expect.objectContaining({ code });
const target = 'sm_89';
const x = { min: [1, 4], opt: [2, 4], max: [8, 4] };

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'build-'));
});
afterAll(() => rm(directory, { recursive: true }));
afterEach(() => {
  vi.unstubAllEnvs();
});

/** A chain of `layers` products, which takes TensorRT a while. */
function chain(layers: number): Uint8Array {
  const g = new GraphBuilder('chain');
  let value = g.input('x', 'float32', ['batch', 64]);
  for (let i = 0; i < layers; i++) {
    const w = g.initializer(`w${i}`, 'float32', [64, 64], new Float32Array(4096).fill(i / 1000));
    value = g.op('Softmax', [g.op('MatMul', [value, w])]);
  }
  g.op('Identity', [value], {}, { outputs: ['y'] });
  g.output('y', 'float32', ['batch', 64]);
  return serializeModel(g.finish());
}

describe('what is built', () => {
  test('an engine for several GPUs, from a path and from bytes', async () => {
    const fromPath = await buildEngine(fixture('linear.onnx'), {
      target: ['sm_86', 'sm_120'],
      shapes: { x },
    });
    expect(fromPath.manifest.targets).toEqual(['sm_86', 'sm_120']);
    const bytes = new Uint8Array(await readFile(fixture('linear.onnx')));
    const fromBytes = await buildEngine(bytes, { target, shapes: { x } });
    expect(fromBytes.manifest.model).toEqual({ ...fromPath.manifest.model, name: undefined });
    expect(bytes.length).toBeGreaterThan(0); // not transferred away
  });

  test("in FP16, with a plan of half the weights' size, or as exported", async () => {
    const g = new GraphBuilder('product');
    const w = g.initializer('w', 'float32', [1024, 1024], new Float32Array(2 ** 20).fill(0.5));
    g.op('MatMul', [g.input('x', 'float32', [4, 1024]), w], {}, { outputs: ['y'] });
    g.output('y', 'float32', [4, 1024]);
    const bytes = serializeModel(g.finish());
    const half = await buildEngine(bytes, { target });
    const full = await buildEngine(bytes, { target, precision: 'fp32' });
    const kept = await buildEngine(bytes, { target, keepFp32: ['MatMul'] });
    expect([half, full].map(({ manifest }) => manifest.precision)).toEqual(['fp16', 'fp32']);
    expect(kept.manifest.options).toEqual({ keepFp32: ['MatMul'] });
    const megabytes = (engine: Engine) => Math.round((10 * engine.plan().length) / 2 ** 20) / 10;
    expect([half, full, kept].map(megabytes)).toEqual([2, 4, 4].map((size) => expect.closeTo(size, 0)));
  });

  test('in FP16 if calibration data allows it, in BF16 in any case; the manifest gives the reason', async () => {
    const g = new GraphBuilder('large');
    const w = g.initializer('w', 'float32', [4, 4], new Float32Array(16).fill(100));
    g.op('MatMul', [g.input('x', 'float32', ['n', 4]), w], {}, { name: 'product', outputs: ['y'] });
    g.output('y', 'float32', ['n', 4]);
    const bytes = serializeModel(g.finish());
    const sample = (value: number) => ({ x: new Tensor('float32', new Float32Array(4).fill(value), [1, 4]) });
    const calibration = function* () {
      yield sample(1);
      yield sample(300);
    };
    const shapes = { x };
    const random = await buildEngine(bytes, { target, shapes });
    const large = await buildEngine(bytes, { target, shapes, calibration: calibration() });
    const bf16 = await buildEngine(bytes, { target, shapes, precision: 'bf16' });
    expect([random, large, bf16].map(({ manifest }) => manifest.cast!.nodes)).toEqual([
      [{ node: 'product', operator: 'MatMul', precision: 'fp16', reason: 'a product' }],
      [
        {
          node: 'product',
          operator: 'MatMul',
          precision: 'fp32',
          reason: '"y" reached 120000, beyond 512',
        },
      ],
      [{ node: 'product', operator: 'MatMul', precision: 'bf16', reason: 'a product' }],
    ]);
    expect(random.manifest.cast!.ranges).toEqual({ source: 'random', samples: 2, seed: 0 });
    expect(large.manifest.cast!.ranges).toEqual({ source: 'calibration', samples: 2 });
    const products = (await bf16.inspect()).filter(({ type }) => type === 'MATRIX_MULTIPLY');
    expect(products.map(({ outputs }) => outputs[0]!.type)).toEqual(['bfloat16']);
    const thrown = new Error('mine');
    const throwing = {
      *[Symbol.iterator]() {
        yield sample(1);
        throw thrown;
      },
    };
    await expect(buildEngine(bytes, { target, shapes, calibration: throwing })).rejects.toBe(thrown);
  });

  test('several profiles', async () => {
    const second = { min: [16, 4], opt: [16, 4], max: [32, 4] };
    const engine = await buildEngine(fixture('linear.onnx'), { target, shapes: [{ x }, { x: second }] });
    expect(engine.inputs[0]!.profiles).toEqual([x, second]);
  });

  test('missing ranges come from the names of dimensions, and agree with the given ones', async () => {
    const g = new GraphBuilder('names');
    const ids = g.input('ids', 'int64', ['batch', 'sequence_length']);
    const mask = g.input('mask', 'int64', ['batch', 'past_length + sequence_length']);
    g.input('past', 'float32', ['batch', 2, 'past_length', 4]);
    g.op('Concat', [ids, mask], { axis: 1 }, { outputs: ['y'] });
    g.output('y', 'int64', ['batch', 'all']);
    const bytes = serializeModel(g.finish());
    const { profiles } = (await buildEngine(bytes, { target })).manifest;
    expect(profiles).toEqual([
      {
        ids: { min: [1, 1], opt: [8, 128], max: [16, 512] },
        mask: { min: [1, 1], opt: [8, 256], max: [16, 2560] },
        past: { min: [1, 2, 0, 4], opt: [8, 2, 128, 4], max: [16, 2, 2048, 4] },
      },
    ]);
    const given = { ids: { min: [1, 1], opt: [2, 8], max: [4, 16] } };
    const engine = await buildEngine(bytes, { target, shapes: given });
    expect(engine.manifest.profiles[0]).toMatchObject({
      mask: { min: [1, 1], opt: [2, 136], max: [4, 2064] },
    });
  });

  test('from external data, beside a model cast to FP16 too', async () => {
    for (const precision of ['fp16', 'fp32'] as const) {
      const engine = await buildEngine(fixture('external.onnx'), { target, precision });
      expect(engine.byteLength).toBeGreaterThan(0);
    }
  });

  test('from external data in the folder, by any path; its weights decide the hash', async () => {
    const folder = path.join(directory, 'detour');
    await mkdir(path.join(folder, 'sub'), { recursive: true });
    await copyFile(fixture('external.bin'), path.join(folder, 'external.bin'));
    const file = path.join(folder, 'model.onnx');
    const hashes = new Set<string>();
    for (const location of ['external.bin', 'sub/../external.bin', '../detour//external.bin']) {
      const model = await readModel(fixture('external.onnx'));
      for (const { externalData = [] } of model.graph.initializer) {
        for (const entry of externalData) if (entry.key === 'location') entry.value = location;
      }
      await writeModel(model, file);
      for (const precision of ['fp16', 'fp32'] as const) {
        const engine = await buildEngine(file, { target, precision });
        hashes.add(engine.manifest.model.weightsSha256);
      }
      expect((await importModel(file)).failures).toEqual([]);
    }
    expect(hashes.size).toBe(1);
  });

  test('with options for the compiler, recorded', async () => {
    const options = { optimizationLevel: 1, workspace: 2 ** 28, sparsity: 'auto' } as const;
    const engine = await buildEngine(fixture('linear.onnx'), { target, shapes: { x }, ...options });
    expect(engine.manifest.options).toEqual(options);
  });
});

describe('progress and cancellation', () => {
  test('every phase begins at 0 or above, never runs backwards, and the event loop goes on', async () => {
    const seen: BuildProgress[] = [];
    let turns = 0;
    const timer = setInterval(() => turns++, 2);
    await buildEngine(chain(60), {
      target,
      shapes: { x: [4, 64] },
      onProgress: (progress) => seen.push(progress),
    });
    clearInterval(timer);
    const phases = new Set(seen.map(({ phase }) => phase));
    expect(phases).toContain('Preparing model');
    expect(phases).toContain('Parsing');
    expect(phases).toContain('Building engine');
    for (const { step, steps } of seen) {
      expect(step).toBeGreaterThanOrEqual(0);
      expect(step).toBeLessThanOrEqual(steps);
    }
    const building = seen.filter(({ phase }) => phase === 'Building engine').map(({ step }) => step);
    expect(building).toEqual([...building].sort((a, b) => a - b));
    expect(turns).toBeGreaterThan(10);
  });

  test('aborting stops it in any phase, with the given reason', async () => {
    const bytes = chain(150);
    for (const phase of ['Preparing model', 'Parsing', 'Building engine']) {
      const controller = new AbortController();
      const reason = new Error(`enough: ${phase}`);
      const building = buildEngine(bytes, {
        target,
        shapes: { x: [4, 64] },
        signal: controller.signal,
        onProgress: (progress) => {
          if (progress.phase === phase) controller.abort(reason);
        },
      });
      await expect(building).rejects.toBe(reason);
    }
    await expect(buildEngine(bytes, { target, signal: AbortSignal.abort('no') })).rejects.toBe('no');
    const late = new AbortController();
    await buildEngine(fixture('linear.onnx'), { target, shapes: { x }, signal: late.signal });
    late.abort();
  });

  test('an error thrown by a listener ends and rejects the build', async () => {
    const thrown = new Error('mine');
    for (const at of ['Preparing model', 'Building engine']) {
      const onProgress = ({ phase }: BuildProgress) => {
        if (phase === at) throw thrown;
      };
      await expect(buildEngine(chain(20), { target, shapes: { x: [1, 64] }, onProgress })).rejects.toBe(
        thrown,
      );
    }
  });

  test('builds at the same time do not mix', async () => {
    const engines = await Promise.all([
      buildEngine(chain(10), { target, shapes: { x: [1, 64] } }),
      buildEngine(fixture('linear.onnx'), { target, shapes: { x } }),
      buildEngine(fixture('sequence.onnx'), { target }).catch((error) => error.code),
    ]);
    expect((engines[0] as Engine).manifest.inputs[0]!.dims).toEqual([-1, 64]);
    expect((engines[1] as Engine).manifest.inputs[0]!.dims).toEqual([-1, 4]);
    expect(engines[2]).toBe('ERR_MODEL_UNSUPPORTED');
  });

  test('nothing is left in the temporary folder', async () => {
    const temporary = path.join(directory, 'tmp');
    await mkdir(temporary);
    vi.stubEnv('TMPDIR', temporary);
    await buildEngine(fixture('linear.onnx'), { target, shapes: { x } });
    await buildEngine(fixture('linear.onnx'), { target, shapes: { y: x } }).catch(() => {});
    await buildEngine(chain(20), { target, signal: AbortSignal.timeout(50) }).catch(() => {});
    expect(await readdir(temporary)).toEqual([]);
  });
});

describe('an unusable model', () => {
  test.each<[string, () => Promise<string | Uint8Array>, string]>([
    ['missing', async () => path.join(directory, 'absent.onnx'), 'ERR_MODEL_NOT_FOUND'],
    ['a folder', async () => directory, 'ERR_IO'],
    ['empty', async () => new Uint8Array(), 'ERR_MODEL_INVALID'],
    ['random', async () => Uint8Array.from({ length: 999 }, (_, i) => (i * 7919) % 251), 'ERR_MODEL_INVALID'],
    ['cut short', async () => (await readFile(fixture('linear.onnx'))).subarray(0, 150), 'ERR_MODEL_INVALID'],
    ['without its external data', async () => fixture('external-absent.onnx'), 'ERR_MODEL_NOT_FOUND'],
    [
      'with external data outside its folder',
      async () => fixture('external-escape.onnx'),
      'ERR_MODEL_INVALID',
    ],
    ['bytes with external data', async () => readFile(fixture('external.onnx')), 'ERR_MODEL_INVALID'],
    ['of sequences', async () => fixture('sequence.onnx'), 'ERR_MODEL_UNSUPPORTED'],
  ])('%s', async (_, source, code) => {
    for (const precision of ['fp16', 'fp32'] as const) {
      await expect(buildEngine(await source(), { target, precision })).rejects.toThrow(withCode(code));
    }
  });

  test("inputs that TensorRT's errors don't name are named", async () => {
    const g = new GraphBuilder('through');
    const value = g.input('constructor', 'float32', ['batch', 4]);
    g.op('Relu', [value], {}, { outputs: ['y'] });
    g.output('y', 'float32', ['batch', 4]);
    const engine = await buildEngine(serializeModel(g.finish()), { target });
    expect(engine.inputs[0]!.profiles).toEqual([{ min: [1, 4], opt: [8, 4], max: [16, 4] }]);
    const through = g.finish();
    through.graph.output.push(through.graph.input[0]!);
    await expect(buildEngine(serializeModel(through), { target })).rejects.toThrow(
      /"constructor" is an input and an/,
    );
    delete through.graph.input[0]!.type!.tensorType!.shape;
    await expect(buildEngine(serializeModel(through), { target })).rejects.toThrow(
      /"constructor" has no shape/,
    );
  });

  test('an operator that TensorRT lacks is named, with its node', async () => {
    const g = new GraphBuilder('bad');
    const a = g.input('a', 'float32', [2, 3]);
    g.op('DeformConv', [a, a, a], {}, { outputs: ['y'], name: 'the.node' });
    g.output('y', 'float32', [2, 3]);
    await expect(buildEngine(serializeModel(g.finish()), { target })).rejects.toThrow(
      /"the.node" \(DeformConv\)/,
    );
  });

  test('attention up to a length per row, which TensorRT ignores', async () => {
    await expect(buildEngine(decoderModel('llama/tensor-scatter'), { target })).rejects.toThrow(
      /"[^"]+" \(Attention\): TensorRT's parser ignores nonpad_kv_seqlen/,
    );
  });

  test('a type that TensorRT lacks is named, with its input', async () => {
    const g = new GraphBuilder('text');
    g.op('Identity', [g.input('words', 'string', [2])], {}, { outputs: ['y'] });
    g.output('y', 'string', [2]);
    await expect(buildEngine(serializeModel(g.finish()), { target })).rejects.toThrow(/"words" \(string\)/);
  });

  test('FP32 attention, which has no fused kernel, is compiled from its parts', async () => {
    const g = new GraphBuilder('attention', { opset: 23, irVersion: 11 });
    const [q, k, v] = ['q', 'k', 'v'].map((name) => g.input(name, 'float32', ['batch', 2, 'seq', 8]));
    g.op('Attention', [q!, k!, v!], {}, { outputs: ['y'] });
    g.output('y', 'float32', ['batch', 2, 'seq', 8]);
    const engine = await buildEngine(serializeModel(g.finish()), { target, precision: 'fp32' });
    expect((await engine.inspect()).map(({ type }) => type)).toContain('ATTENTION_INPUT');
  });

  test("PyTorch's guard of a softmax compiles in FP16", async () => {
    const g = new GraphBuilder('guard');
    const [q, k, v] = ['q', 'k', 'v'].map((name) => g.input(name, 'float32', ['batch', 2, 'seq', 32]));
    const scores = g.op('MatMul', [q!, g.op('Transpose', [k!], { perm: [0, 1, 3, 2] })]);
    const p = g.op('Softmax', [scores]);
    const guarded = g.op('Where', [g.op('IsNaN', [p]), g.scalar(0), p]);
    g.op('MatMul', [guarded, v!], {}, { outputs: ['y'] });
    g.output('y', 'float32', ['batch', 2, 'seq', 32]);
    await expect(buildEngine(serializeModel(g.finish()), { target })).resolves.toBeDefined();
  });
});

describe('invalid options', () => {
  const build = (options: object) =>
    buildEngine(fixture('linear.onnx'), { target, shapes: { x }, ...options });

  test.each<[string, object, string, RegExp]>([
    ['a misspelled option', { shape: {} }, 'ERR_INVALID_ARG_VALUE', /did you mean 'shapes'/],
    ['masks', { masks: {} }, 'ERR_INVALID_ARG_TYPE', /options.masks must be a MaskSet/],
    ['calibration data', { calibration: 'all' as never }, 'ERR_INVALID_ARG_TYPE', /options.calibration/],
    ['no calibration data', { calibration: [] }, 'ERR_INVALID_ARG_VALUE', /options.calibration is empty/],
    [
      'calibration data of another model',
      { calibration: [{ y: { type: 'float32', dims: [1], data: new Float32Array(1) } }] },
      'ERR_INVALID_ARG_VALUE',
      /options.calibration\[0\]\['y'\] is not an input/,
    ],
    ['an unknown precision', { precision: 'half' }, 'ERR_INVALID_ARG_VALUE', /options.precision/],
    ['a runtime', { runtime: 'cuda' }, 'ERR_INVALID_ARG_VALUE', /'auto', 'tensorrt', 'tensorrt-rtx'/],
    ['an unknown GPU', { target: 'rtx4090' }, 'ERR_INVALID_ARG_VALUE', /options.target .*'sm_89'/],
    ['a GPU that TensorRT-RTX lacks', { target: 'sm_90' }, 'ERR_INVALID_ARG_VALUE', /sm_90.*sm_89/],
    ['no GPU at all', { target: [] }, 'ERR_INVALID_ARG_VALUE', /options.target/],
    ['a number for a GPU', { target: [89] }, 'ERR_INVALID_ARG_TYPE', /options.target\[0\]/],
    ['an optimization level', { optimizationLevel: 6 }, 'ERR_INVALID_ARG_VALUE', /from 0 to 5/],
    ['all weights to be replaced, without a GPU', { refit: true }, 'ERR_NO_GPU', /options.refit needs a GPU/],
    ['one of them', { refit: ['w'] }, 'ERR_NO_GPU', /options.refit needs a GPU/],
    ['a name for weights', { refit: 'w' }, 'ERR_INVALID_ARG_TYPE', /options.refit/],
    ['a number for a weight', { refit: ['w', 1] }, 'ERR_INVALID_ARG_TYPE', /options.refit\[1\]/],
    [
      'timings of TensorRT-RTX',
      { timingCache: 'timings' },
      'ERR_LIBRARY_UNSUPPORTED',
      /timingCache is for TensorRT/,
    ],
    ['a file of timings', { timingCache: 1 }, 'ERR_INVALID_ARG_TYPE', /options.timingCache/],
    ['weight streaming', { weightStreaming: true }, 'ERR_INVALID_ARG_VALUE', /until a GPU has tested it/],
    ['any version', { versionCompatible: true }, 'ERR_INVALID_ARG_VALUE', /options.versionCompatible/],
    [
      'any GPU',
      { hardwareCompatibility: 'ampere+' },
      'ERR_INVALID_ARG_VALUE',
      /options.hardwareCompatibility/,
    ],
    ['a workspace', { workspace: 1.5 }, 'ERR_INVALID_ARG_VALUE', /options.workspace/],
    ['patterns', { keepFp32: 'MatMul' }, 'ERR_INVALID_ARG_TYPE', /options.keepFp32/],
    ['a listener', { onProgress: 1 }, 'ERR_INVALID_ARG_TYPE', /options.onProgress/],
    ['a signal', { signal: {} }, 'ERR_INVALID_ARG_TYPE', /options.signal/],
    ['a library path', { libraryPath: 1 }, 'ERR_INVALID_ARG_TYPE', /options.libraryPath/],
  ])('%s', async (_, options, code, message) => {
    await expect(build(options)).rejects.toThrow(withCode(code));
    await expect(build(options)).rejects.toThrow(message);
  });

  test.each<[string, unknown, string, RegExp]>([
    ['a text', 'x', 'ERR_INVALID_ARG_TYPE', /options.shapes must be/],
    ['an empty list', [], 'ERR_INVALID_ARG_VALUE', /options.shapes/],
    ['another input', { y: x }, 'ERR_INVALID_ARG_VALUE', /options.shapes.y is not an input/],
    ['another rank', { x: [1, 2, 4] }, 'ERR_INVALID_ARG_VALUE', /options.shapes.x has 3 dimensions/],
    ['another static size', { x: { ...x, opt: [1, 5], max: [1, 5] } }, 'ERR_INVALID_ARG_VALUE', /fixes at 4/],
    ['a negative size', { x: { ...x, min: [-1, 4] } }, 'ERR_INVALID_ARG_VALUE', /options.shapes.x.min\[0\]/],
    ['NaN', { x: { ...x, max: [Number.NaN, 4] } }, 'ERR_INVALID_ARG_VALUE', /options.shapes.x.max\[0\]/],
    ['a fraction', { x: [1.5, 4] }, 'ERR_INVALID_ARG_VALUE', /options.shapes.x\[0\]/],
    ['texts', { x: ['1', 4] }, 'ERR_INVALID_ARG_TYPE', /options.shapes.x\[0\]/],
    [
      'min above max',
      { x: { ...x, min: [9, 4] } },
      'ERR_INVALID_ARG_VALUE',
      /order min, opt, max in dimension 0: 9, 2, 8/,
    ],
    ['no max', { x: { min: [1, 4], opt: [1, 4] } }, 'ERR_INVALID_ARG_TYPE', /options.shapes.x.max/],
    ['a fourth side', { x: { ...x, best: [1, 4] } }, 'ERR_INVALID_ARG_VALUE', /options.shapes.x.best/],
    ['in one of two profiles', [{ x }, { x: [9] }], 'ERR_INVALID_ARG_VALUE', /options.shapes\[1\].x/],
  ])('shapes: %s', async (_, shapes, code, message) => {
    await expect(build({ shapes })).rejects.toThrow(withCode(code));
    await expect(build({ shapes })).rejects.toThrow(message);
  });

  test('a dimension whose name suggests no size', async () => {
    const g = new GraphBuilder('g');
    g.op('Relu', [g.input('x', 'float32', [1, 'mystery'])], {}, { outputs: ['y'] });
    g.output('y', 'float32', [1, 'mystery']);
    const building = buildEngine(serializeModel(g.finish()), { target });
    await expect(building).rejects.toThrow(/options.shapes.x is needed: .* dimension 1/);
  });

  test('no model', async () => {
    await expect(buildEngine(undefined as never)).rejects.toThrow(withCode('ERR_INVALID_ARG_TYPE'));
    await expect(buildEngine(fixture('linear.onnx'), null as never)).rejects.toThrow(
      withCode('ERR_INVALID_ARG_TYPE'),
    );
  });
});

describe('TensorRT libraries', () => {
  const build = (options: object = {}) =>
    buildEngine(fixture('linear.onnx'), { target, shapes: { x }, ...options });

  test('without a GPU and a target, the error names the option', async () => {
    await expect(build({ target: undefined })).rejects.toThrow(withCode('ERR_NO_GPU'));
    await expect(build({ target: undefined })).rejects.toThrow(/options.target/);
  });

  test('missing ones are named, with what to do', async () => {
    await expect(build({ libraryPath: directory })).rejects.toThrow(withCode('ERR_LIBRARY_NOT_FOUND'));
    await expect(build({ libraryPath: directory })).rejects.toThrow(/libs install rtx/);
    vi.stubEnv('NODE_TENSORRT_TENSORRT_PATH', path.join(directory, 'absent'));
    await expect(build()).rejects.toThrow(withCode('ERR_LIBRARY_NOT_FOUND'));
  });

  describe("libraries that can't be opened, aren't TensorRT, or are too old or too new", () => {
    const rtx = ['libtensorrt_rtx.so.1', 'libtensorrt_onnxparser_rtx.so.1'] as const;
    const ten = ['libnvinfer.so.10', 'libnvonnxparser.so.10'] as const;
    const compile = (folder: string, name: string, source: string) =>
      execFileSync('cc', ['-shared', '-fPIC', '-x', 'c', '-', '-o', path.join(folder, name)], {
        input: source,
      });
    /** A library that reports its version, and must not be asked for more. */
    const stub = (major: number, minor: number, parserInterface: number) =>
      `int getInferLibMajorVersion() { return ${major}; } int getInferLibMinorVersion() { return ${minor}; }
       int getInferLibPatchVersion() { return 0; } int getInferLibBuildVersion() { return 0; }
       int getNvOnnxParserVersion() { return ${parserInterface}; }
       void *createInferBuilder_INTERNAL() { __builtin_trap(); } void *createNvOnnxParser_INTERNAL() { __builtin_trap(); }`;
    const supported = /supports TensorRT 10.11 and later 10.x, TensorRT 11, and TensorRT-RTX 1.5/;

    test.each<[string, readonly string[], string, RegExp]>([
      ['no library', rtx, 'int x;', /^ERR_LIBRARY_UNSUPPORTED: .* is not a TensorRT library/],
      ['an old TensorRT-RTX', rtx, stub(1, 4, 100), /^ERR_LIBRARY_UNSUPPORTED: .* is TensorRT-RTX 1\.4\.0/],
      ['a new TensorRT-RTX', rtx, stub(2, 0, 200), /^ERR_LIBRARY_UNSUPPORTED: .* is TensorRT-RTX 2\.0\.0/],
      ['an old TensorRT', ten, stub(8, 6, 1), /^ERR_LIBRARY_UNSUPPORTED: .* is TensorRT 8\.6\.0/],
      ['an old TensorRT 10', ten, stub(10, 10, 100), /^ERR_LIBRARY_UNSUPPORTED: .* is TensorRT 10\.10\.0/],
      ['a new TensorRT', ten, stub(12, 0, 200), /^ERR_LIBRARY_UNSUPPORTED: .* is TensorRT 12\.0\.0/],
    ])('%s', async (what, names, source, expected) => {
      const folder = path.join(directory, what);
      await mkdir(folder);
      for (const name of names) compile(folder, name, source);
      const error = await build({ libraryPath: folder }).catch((error) => error);
      expect(`${error.code}: ${error.message}`).toMatch(expected);
      expect(error.message).toMatch(supported);
    });

    test('a text', async () => {
      const folder = path.join(directory, 'a text');
      await mkdir(folder);
      await writeFile(path.join(folder, rtx[0]), 'text');
      await expect(build({ libraryPath: folder })).rejects.toThrow(withCode('ERR_LIBRARY_NOT_FOUND'));
      await expect(build({ libraryPath: folder })).rejects.toThrow(/file too short/);
    });

    test('a parser that is missing, or of another release', async () => {
      const folder = path.join(directory, 'parsers');
      await mkdir(folder);
      compile(folder, ten[0], stub(10, 15, 0));
      await expect(build({ libraryPath: folder })).rejects.toThrow(withCode('ERR_LIBRARY_NOT_FOUND'));
      await expect(build({ libraryPath: folder })).rejects.toThrow(/libnvonnxparser.so.10 belongs beside/);
      compile(folder, ten[1], stub(10, 15, 200));
      await expect(build({ libraryPath: folder })).rejects.toThrow(withCode('ERR_LIBRARY_UNSUPPORTED'));
      await expect(build({ libraryPath: folder })).rejects.toThrow(/interface is 0.2, does not belong/);
    });

    test('the other runtime', async () => {
      const folder = path.join(directory, 'other');
      await mkdir(folder);
      for (const name of ten) compile(folder, name, stub(10, 15, 100));
      const options = { libraryPath: folder, runtime: 'tensorrt-rtx' };
      await expect(build(options)).rejects.toThrow(withCode('ERR_LIBRARY_UNSUPPORTED'));
      await expect(build(options)).rejects.toThrow(/options.runtime is 'tensorrt-rtx'.*libs install rtx/);
      const empty = { libraryPath: path.join(directory, 'empty'), runtime: 'tensorrt' };
      await expect(build(empty)).rejects.toThrow(/libnvinfer.so.11 or libnvinfer.so.10 was not found/);
    });
  });

  test('no room for temporary files', async () => {
    const file = path.join(directory, 'a-file');
    await copyFile(fixture('linear.onnx'), file);
    vi.stubEnv('TMPDIR', file);
    await expect(build()).rejects.toThrow(withCode('ERR_IO'));
  });
});

test('a model whose weights are too large for one file keeps them beside it', async () => {
  // The file format's limit is 2 GiB, so this only tests the code path, with a lower limit.
  const { prepareModel } = await import('../../../dist/engine/prepare-model.js');
  const folder = path.join(directory, 'large');
  await mkdir(folder);
  const source = path.join(directory, 'source.onnx');
  await writeFile(source, chain(3));
  const prepared = await prepareModel(
    {
      model: source,
      precision: 'fp16',
      calibration: undefined,
      keepFp32: [],
      runtime: 'tensorrt',
      directory: folder,
      maxInlineBytes: 1000,
    },
    undefined,
  );
  expect((await readdir(folder)).sort()).toEqual(['model.onnx', 'node-tensorrt-weights.bin']);
  const engine = await buildEngine(prepared.file, {
    target,
    precision: 'as-exported',
    shapes: { x: [1, 64] },
  });
  expect(engine.byteLength).toBeGreaterThan(3 * 4096 * 2);
});
