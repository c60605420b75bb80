import { readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { MessageChannel } from 'node:worker_threads';
import {
  buildEngine,
  InferenceSession,
  LanguageModel,
  type RunTiming,
  Tensor,
  type TensorLike,
} from 'node-tensorrt';
import { GraphBuilder, parseModel, readModel, serializeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const ort = createRequire(import.meta.url)('onnxruntime-node') as typeof import('onnxruntime-node');
const fixture = (name: string) => path.join(import.meta.dirname, '../../fixtures/session', name);
const withCode = (code: string) => expect.objectContaining({ code });

let linear: InferenceSession;
let slow: InferenceSession;
beforeAll(async () => {
  linear = await InferenceSession.create(fixture('linear.onnx'));
  slow = await InferenceSession.create(fixture('slow.onnx'));
});
afterAll(() => Promise.all([linear.dispose(), slow.dispose()]));

function random(dims: number[]): Tensor {
  const size = dims.reduce((product, dim) => product * dim, 1);
  return new Tensor(
    'float32',
    Float32Array.from({ length: size }, () => Math.random() - 0.5),
    dims,
  );
}
function slowFeeds(n = 384): Record<string, Tensor> {
  return { x: random([n, n]), v0: random([n, n]) };
}

describe('numbers', () => {
  test('equal onnxruntime-node, async and sync, from a path and from bytes', async () => {
    const oracle = await ort.InferenceSession.create(fixture('linear.onnx'));
    const bytes = new Uint8Array(readFileSync(fixture('linear.onnx')));
    const fromBytes = await InferenceSession.create(bytes);
    const x = random([5, 4]);
    const expected = await oracle.run({ x: new ort.Tensor('float32', x.data as Float32Array, [5, 4]) });
    for (const results of [await linear.run({ x }), linear.runSync({ x }), await fromBytes.run({ x })]) {
      expect(Object.keys(results)).toEqual(['y', 's']);
      for (const name of ['y', 's']) {
        expect(results[name]!.dims).toEqual([5, 3]);
        expect(results[name]!.data).toEqual(expected[name]!.data);
      }
    }
    await fromBytes.dispose();
  });

  test('metadata equals that of onnxruntime-node, symbolic names included', async () => {
    for (const name of ['linear.onnx', 'slow.onnx']) {
      const oracle = await ort.InferenceSession.create(fixture(name));
      await using session = await InferenceSession.create(fixture(name));
      expect(session.inputMetadata).toEqual(oracle.inputMetadata);
      expect(session.outputMetadata).toEqual(oracle.outputMetadata);
      expect(session.inputNames).toEqual(oracle.inputNames);
      expect(session.device).toBe('cpu');
      expect(session.runtime.name).toBe('onnxruntime');
    }
  });

  test.each([0, 1, 3, 5000])('every data type passes through unchanged, %i rows', async (rows) => {
    await using session = await InferenceSession.create(fixture('types.onnx'));
    const n = rows * 2;
    const values = Array.from({ length: n }, (_, i) => i % 100);
    const data: Record<string, ArrayBufferView | string[]> = {
      float32: Float32Array.from(values),
      float16: Uint16Array.from(values),
      bfloat16: Uint16Array.from(values),
      float64: Float64Array.from(values),
      int8: Int8Array.from(values, (v) => -v),
      uint8: Uint8Array.from(values),
      int16: Int16Array.from(values, (v) => -v),
      uint16: Uint16Array.from(values),
      int32: Int32Array.from(values, (v) => -v),
      uint32: Uint32Array.from(values),
      int64: BigInt64Array.from(values, (v) => -BigInt(v)),
      uint64: BigUint64Array.from(values, (v) => BigInt(v)),
      bool: Uint8Array.from(values, (v) => v % 2),
      string: values.map((v) => `é${v}`),
    };
    const feeds = Object.fromEntries(
      Object.entries(data).map(([type, d]) => [
        `in_${type}`,
        { type, dims: [rows, 2], data: d } as TensorLike,
      ]),
    );
    const results = await session.run(feeds);
    for (const [type, expected] of Object.entries(data)) {
      const output = results[`out_${type}`]!;
      expect(output.type).toBe(type);
      expect(output.dims).toEqual([rows, 2]);
      if (type === 'float16')
        expect(bytesOf(output)).toEqual(new Uint8Array((expected as Uint16Array).buffer));
      else expect(output.data).toEqual(expected);
    }
  });

  test('a model is read from any kind of memory, and from a part of it', async () => {
    const file = readFileSync(fixture('linear.onnx'));
    const buffer = Uint8Array.from(file).buffer;
    const shared = new SharedArrayBuffer(file.length);
    new Uint8Array(shared).set(file);
    const around = Buffer.concat([Buffer.alloc(3), file, Buffer.alloc(5)]);
    const padded = Uint8Array.from(around).buffer;
    const { length } = file;
    const cpu = { device: 'cpu' } as const;
    const x = random([2, 4]);
    const expected = linear.runSync({ x }).y!.data;
    for (const creating of [
      InferenceSession.create(file, cpu),
      InferenceSession.create(buffer),
      InferenceSession.create(buffer, cpu),
      InferenceSession.create(shared, cpu),
      InferenceSession.create(new Uint8Array(shared), cpu),
      InferenceSession.create(around.subarray(3, 3 + length), cpu),
      InferenceSession.create(padded, 3, length, cpu),
      InferenceSession.create(buffer, 0, undefined, cpu),
      InferenceSession.create(Uint8Array.from(around.subarray(0, 3 + length)).buffer, 3),
      InferenceSession.create(buffer, { ...cpu, precision: 'fp16' }),
    ]) {
      await using session = await creating;
      const { y } = await session.run({ x });
      if (session.precision === 'as-exported') expect(y!.data).toEqual(expected);
      else expect(y!.dims).toEqual([2, 3]);
    }
    for (const [creating, message] of [
      [InferenceSession.create(buffer, -1), /^byteOffset must be an integer from 0 to \d+, not -1/],
      [InferenceSession.create(buffer, 1.5), /^byteOffset/],
      [InferenceSession.create(buffer, length + 1), /^byteOffset/],
      [InferenceSession.create(buffer, 1, length), /^byteLength/],
      [InferenceSession.create(buffer, 0, 10, { theads: 1 } as never), /did you mean 'threads'/],
      [InferenceSession.create(file, 3 as never), /^options must be an object, not 3/],
      [InferenceSession.create(file, null as never), /^options must be an object, not null/],
    ] as const) {
      await expect(creating).rejects.toThrow(message);
    }
  });

  test('bytes that were transferred are refused by name, before and while a session is created', async () => {
    const bytes = Uint8Array.from(readFileSync(fixture('linear.onnx')));
    const meanwhile = [undefined, 'fp16' as const].map((precision) => {
      const copy = bytes.slice();
      const creating = InferenceSession.create(copy, precision ? { precision } : {});
      structuredClone(copy, { transfer: [copy.buffer] });
      return creating;
    });
    structuredClone(bytes, { transfer: [bytes.buffer] });
    const attempts = [InferenceSession.create(bytes), InferenceSession.create(bytes.buffer), ...meanwhile];
    const reason = expect.objectContaining({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringMatching(/^model is detached/),
    });
    expect(await Promise.allSettled(attempts)).toEqual(Array(4).fill({ status: 'rejected', reason }));
  });

  test('external data is read from beside the model', async () => {
    await using session = await InferenceSession.create(fixture('external.onnx'));
    const x = random([2, 4]);
    expect((await session.run({ x })).y!.data).toEqual(linear.runSync({ x }).y!.data);
  });

  test('outputs share memory neither with inputs nor with each other', async () => {
    await using session = await InferenceSession.create(fixture('alias.onnx'));
    const x = Tensor.allocate('float32', [20_000]);
    (x.data as Float32Array).fill(2);
    const { same, n1, n2 } = await session.run({ x });
    (x.data as Float32Array).fill(7);
    (n1!.data as Float32Array).fill(8);
    expect((same!.data as Float32Array)[19_999]).toBe(2);
    expect((n2!.data as Float32Array)[19_999]).toBe(-2);
  });
});

function bytesOf(tensor: Tensor): Uint8Array {
  const view = tensor.data as ArrayBufferView;
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

describe('buffers', () => {
  test('feeds may be overwritten or transferred as soon as run() has returned', async () => {
    const x = random([5, 4]);
    const expected = linear.runSync({ x }).y!.data;
    const first = linear.run({ x });
    (x.data as Float32Array).fill(Number.NaN);
    const y = new Tensor(Float32Array.from(random([5, 4]).data as Float32Array), [5, 4]);
    const expectedY = linear.runSync({ x: y }).y!.data;
    const second = linear.run({ x: y });
    structuredClone(0, { transfer: [(y.data as Float32Array).buffer as ArrayBuffer] });
    expect((await first).y!.data).toEqual(expected);
    expect((await second).y!.data).toEqual(expectedY);
  });

  test('fetches choose outputs, and write into given tensors', async () => {
    const x = random([2, 4]);
    const expected = linear.runSync({ x }).y!.data;
    expect(Object.keys(await linear.run({ x }, ['s']))).toEqual(['s']);
    for (const y of [Tensor.allocate('float32', [2, 3]), new Tensor(new Float32Array(6), [2, 3])]) {
      const results = await linear.run({ x }, { y, s: null });
      expect(results.y).toBe(y);
      expect(y.data).toEqual(expected);
      expect(results.s!.dims).toEqual([2, 3]);
    }
  });
});

function disposedOrtTensor(): unknown {
  const tensor = new ort.Tensor('float32', new Float32Array(4), [1, 4]);
  tensor.dispose();
  return tensor;
}

/** Its `data` throws: only onnxruntime-node has the elements. */
function ortTensorOnGpu(): unknown {
  const download = () => Promise.resolve(new Float32Array(4));
  return ort.Tensor.fromGpuBuffer({} as never, { dataType: 'float32', dims: [1, 4], download });
}

describe('bad input is refused with a code and leaves the session working', () => {
  const good = { type: 'float32', dims: [1, 4], data: new Float32Array(4) } as const;
  const detached = new Float32Array(4);
  structuredClone(0, { transfer: [detached.buffer] });

  test.each<[string, Record<string, unknown>, string]>([
    ['an unknown name', { z: good, x: good }, 'ERR_INVALID_ARG_VALUE'],
    ['a missing input', {}, 'ERR_INVALID_ARG_VALUE'],
    ["onnxruntime-node's, disposed", { x: disposedOrtTensor() }, 'ERR_INVALID_ARG_VALUE'],
    ["onnxruntime-node's, on a GPU", { x: ortTensorOnGpu() }, 'ERR_INVALID_ARG_VALUE'],
    ['a wrong type', { x: { ...good, type: 'float64', data: new Float64Array(4) } }, 'ERR_INVALID_ARG_VALUE'],
    ['a wrong array', { x: { ...good, data: new Float64Array(4) } }, 'ERR_INVALID_ARG_TYPE'],
    ['a wrong rank', { x: { ...good, dims: [4] } }, 'ERR_SHAPE_MISMATCH'],
    ['a wrong static dimension', { x: { ...good, dims: [4, 1] } }, 'ERR_SHAPE_MISMATCH'],
    ['a wrong length', { x: { ...good, dims: [2, 4] } }, 'ERR_SHAPE_MISMATCH'],
    ['a negative dimension', { x: { ...good, dims: [-1, 4] } }, 'ERR_INVALID_ARG_VALUE'],
    ['a NaN dimension', { x: { ...good, dims: [Number.NaN, 4] } }, 'ERR_INVALID_ARG_VALUE'],
    ['a fractional dimension', { x: { ...good, dims: [0.5, 4] } }, 'ERR_INVALID_ARG_VALUE'],
    ['a detached buffer', { x: { ...good, data: detached } }, 'ERR_INVALID_ARG_VALUE'],
    ['null', { x: null }, 'ERR_INVALID_ARG_TYPE'],
  ])('feeds: %s', async (_what, feeds, code) => {
    await expect(linear.run(feeds as never)).rejects.toEqual(withCode(code));
    expect(() => linear.runSync(feeds as never)).toThrow(withCode(code));
    expect((await linear.run({ x: good })).y!.dims).toEqual([1, 3]);
  });

  test('fetches and options', async () => {
    await expect(linear.run({ x: good }, ['nope'])).rejects.toEqual(withCode('ERR_INVALID_ARG_VALUE'));
    await expect(linear.run({ x: good }, [])).rejects.toEqual(withCode('ERR_INVALID_ARG_VALUE'));
    await expect(linear.run({ x: good }, { y: random([2, 3]) })).rejects.toEqual(
      withCode('ERR_SHAPE_MISMATCH'),
    );
    await expect(linear.run({ x: good }, { sginal: 1 } as never)).rejects.toThrow(/did you mean 'signal'/);
    const create = (options: object) => InferenceSession.create(fixture('linear.onnx'), options);
    await expect(create({ theads: 1 })).rejects.toThrow(/did you mean 'threads'/);
    await expect(create({ threads: -1 })).rejects.toEqual(withCode('ERR_INVALID_ARG_VALUE'));
    await expect(create({ batching: {} })).rejects.toThrow(/not supported in this version/);
    await expect(create({ device: 'cuda' })).rejects.toEqual(withCode('ERR_NO_GPU'));
    await expect(create({ device: 'tpu' })).rejects.toEqual(withCode('ERR_INVALID_ARG_VALUE'));
    // An option for building, which doesn't happen on the CPU.
    await expect(create({ workspace: -1 })).rejects.toEqual(withCode('ERR_INVALID_ARG_VALUE'));
    await expect(create({ onProgress: 5 as never })).rejects.toEqual(withCode('ERR_INVALID_ARG_TYPE'));
  });

  test('models', async () => {
    const bytes = readFileSync(fixture('linear.onnx'));
    const folder = await mkdtemp(path.join(os.tmpdir(), 'node-tensorrt-'));
    await writeFile(path.join(folder, 'empty.onnx'), '');
    await writeFile(path.join(folder, 'truncated.onnx'), bytes.subarray(0, 100));
    // The data exists in the folder above, but must be refused all the same.
    await mkdir(path.join(folder, 'inside'));
    await copyFile(fixture('external.bin'), path.join(folder, 'external.bin'));
    await copyFile(fixture('external-escape.onnx'), path.join(folder, 'inside/escape.onnx'));
    const cases: [string | Uint8Array, string][] = [
      [path.join(folder, 'missing.onnx'), 'ERR_MODEL_NOT_FOUND'],
      [folder, 'ERR_MODEL_NOT_FOUND'],
      [path.join(folder, 'empty.onnx'), 'ERR_MODEL_INVALID'],
      [path.join(folder, 'truncated.onnx'), 'ERR_MODEL_INVALID'],
      [new Uint8Array(0), 'ERR_MODEL_INVALID'],
      [Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919) % 251), 'ERR_MODEL_INVALID'],
      [fixture('external-absent.onnx'), 'ERR_MODEL_NOT_FOUND'],
      [path.join(folder, 'inside/escape.onnx'), 'ERR_MODEL_INVALID'],
      [fixture('sequence.onnx'), 'ERR_MODEL_UNSUPPORTED'],
      [42 as never, 'ERR_INVALID_ARG_TYPE'],
    ];
    for (const [model, code] of cases) {
      await expect(InferenceSession.create(model), String(model).slice(0, 80)).rejects.toEqual(
        withCode(code),
      );
    }
    await rm(folder, { recursive: true });
  });
});

describe('files that ONNX Runtime explains poorly', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'session-'));
  });
  afterAll(() => rm(folder, { recursive: true }));
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 12345\n`;
  const latin1 = (text: string) => Buffer.from(text, 'latin1');
  const zip = (name: string) => latin1(`PK\x03\x04${'\0'.repeat(26)}${name}`);

  test.each<[string, Uint8Array, RegExp]>([
    ["Git LFS's pointer", latin1(pointer), /: This is Git LFS's pointer .*`git lfs pull` fetches it/],
    ['a web page', latin1('\n<!DOCTYPE html>\n<html>'), /: This is a web page, not the file: download/],
    ["a server's answer", latin1('<?xml version="1.0"?><Error><Code>AccessDenied</Code>'), /: This is XML/],
    ['JSON', latin1('{"error": "Entry not found"}'), /: This is text that begins with "\{\\"error\\"/],
    ['safetensors', latin1('\x20\0\0\0\0\0\0\0{"w":{"dtype":"F32"}}'), /: This is a safetensors file/],
    ['GGUF', latin1('GGUF\x03\0\0\0'), /: This is a GGUF file/],
    ['PyTorch', zip('archive/data.pkl'), /: This is a PyTorch file/],
    ['an old PyTorch', latin1('\x80\x02\x8a\x0al\xfc\x9cF\xf9'), /: This is a Python pickle/],
    ['TFLite', latin1('\x1c\0\0\0TFL3'), /: This is a TensorFlow Lite model/],
    ['HDF5', latin1('\x89HDF\r\n\x1a\n'), /: This is an HDF5 file/],
    ['NumPy', latin1('\x93NUMPY\x01\0'), /: This is a NumPy array/],
    ['zip', zip('model.onnx'), /: This is a zip archive: unpack it/],
    ['gzip', latin1('\x1f\x8b\x08'), /: This is a gzip archive/],
    ['a plan', latin1('ptrt\0\0\0\0'), /: This is a TensorRT plan: Engine\.load/],
    ['zeros', new Uint8Array(4096), /: This is a file of zero bytes/],
  ])('%s is recognised, from a path and from bytes', async (name, bytes, message) => {
    const file = path.join(folder, `${name}.onnx`);
    await writeFile(file, bytes);
    for (const precision of ['as-exported', 'fp16'] as const) {
      const loading = InferenceSession.create(file, { device: 'cpu', precision });
      await expect(loading).rejects.toThrow(
        expect.objectContaining({ code: 'ERR_MODEL_INVALID', message: expect.stringMatching(message) }),
      );
    }
    const withoutPath = new RegExp(message.source.replace(/^: /, '^'));
    await expect(InferenceSession.create(bytes, { device: 'cpu' })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_MODEL_INVALID', message: expect.stringMatching(withoutPath) }),
    );
  });

  test('a truncated file is reported, with the position', async () => {
    const whole = readFileSync(fixture('linear.onnx'));
    const file = path.join(folder, 'cut.onnx');
    for (let length = 1; length < whole.length; length += 61) {
      await writeFile(file, whole.subarray(0, length));
      const error = await InferenceSession.create(file, { device: 'cpu' }).catch((reason) => reason);
      expect(error).toMatchObject({ name: 'TensorRTError', code: 'ERR_MODEL_INVALID' });
      expect(error.message).toMatch(
        /cut\.onnx: This (isn't a valid ONNX file: at byte \d+|is no ONNX model)/,
      );
    }
  });

  describe('external data', () => {
    /** A model with its weights, 64 bytes, at `location`. */
    async function modelWith(location: string, name: string): Promise<string> {
      const g = new GraphBuilder('external');
      const w = g.initializer('w', 'float32', [4, 4], new Float32Array(16));
      g.op('MatMul', [g.input('x', 'float32', ['n', 4]), w], {}, { outputs: ['y'] });
      g.output('y', 'float32', ['n', 4]);
      const file = path.join(folder, name, 'model.onnx');
      await mkdir(path.join(folder, name, 'sub'), { recursive: true });
      const model = g.finish();
      const { rawData, ...tensor } = model.graph.initializer[0]!;
      const externalData = [{ key: 'location', value: location }];
      model.graph.initializer = [{ ...tensor, dataLocation: 1, externalData }];
      await writeFile(file, serializeModel(model));
      return file;
    }
    const load = (model: string | Uint8Array) => InferenceSession.create(model, { device: 'cpu' });
    const identity = Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 2 : 0));

    test('that is missing is named', async () => {
      for (const location of ['w.bin', 'sub/w.bin', 'w.bin/inside']) {
        const file = await modelWith(location, 'missing');
        await expect(load(file)).rejects.toThrow(
          expect.objectContaining({
            code: 'ERR_MODEL_NOT_FOUND',
            message: expect.stringContaining(`There is no file ${path.join(path.dirname(file), location)}`),
          }),
        );
      }
    });

    test('that is a pointer, too short, a folder or unreadable is reported as such', async () => {
      const file = await modelWith('w.bin', 'odd');
      const weights = path.join(folder, 'odd/w.bin');
      await writeFile(weights, pointer);
      await expect(load(file)).rejects.toThrow(/odd\/w\.bin .* is Git LFS's pointer/);
      await writeFile(weights, identity.subarray(0, 15));
      await expect(load(file)).rejects.toThrow(
        /model\.onnx: Tensor "w" should be bytes 0 to 64 of .*odd\/w\.bin, which has 60/,
      );
      await expect(load(await modelWith('sub', 'odd'))).rejects.toThrow(withCode('ERR_IO'));
      await expect(load(await modelWith('../outside.bin', 'odd'))).rejects.toThrow(
        /model\.onnx: Tensor "w" has external data at "\.\.\/outside\.bin", outside the model's folder/,
      );
    });

    test.each<[string, string, RegExp]>([
      ["Git LFS's pointer", pointer, /is Git LFS's pointer .*git lfs pull/],
      ['a web page', `\n<!DOCTYPE html>\n<html>${' '.repeat(3000)}</html>`, /is a web page, not the file/],
      ["a server's answer", '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', /is XML/],
    ])('that is %s is not taken for weights', async (_, text, message) => {
      // The second graph is larger than 64 KiB.
      for (const wide of [false, true]) {
        const file = await modelWith('w.bin', 'downloads');
        if (wide) {
          const model = parseModel(readFileSync(file));
          await writeFile(file, serializeModel({ ...model, docString: 'long '.repeat(20_000) }));
        }
        await writeFile(path.join(folder, 'downloads/w.bin'), text);
        for (const precision of ['as-exported', 'fp16'] as const) {
          const creating = InferenceSession.create(file, { device: 'cpu', precision });
          await expect(creating).rejects.toThrow(
            expect.objectContaining({ code: 'ERR_MODEL_INVALID', message: expect.stringMatching(message) }),
          );
        }
        const building = buildEngine(file, { target: 'sm_89', cache: false });
        await expect(building).rejects.toThrow(
          expect.objectContaining({ code: 'ERR_MODEL_INVALID', message: expect.stringMatching(message) }),
        );
      }
    });

    test("of a model given as bytes can't be found, without a folder", async () => {
      const bytes = new Uint8Array(readFileSync(await modelWith('nowhere.bin', 'bytes')));
      await expect(load(bytes)).rejects.toThrow(
        /^Tensor "w" lies in the file nowhere\.bin .* give the model's path/,
      );
    });

    test('in the folder is found by any path', async () => {
      for (const location of ['w.bin', './w.bin', 'sub/../w.bin', 'sub//..//w.bin', '../within/w.bin']) {
        const file = await modelWith(location, 'within');
        await writeFile(path.join(folder, 'within/w.bin'), identity);
        for (const precision of ['as-exported', 'fp16'] as const) {
          await using session = await InferenceSession.create(file, { device: 'cpu', precision });
          const { y } = await session.run({ x: new Tensor('float32', [1, 2, 3, 4], [1, 4]) });
          expect(Array.from(y!.data as Float32Array), location).toEqual([2, 4, 6, 8]);
        }
      }
    });
  });
});

test('shared memory may be fed', async () => {
  const shared = new Float32Array(new SharedArrayBuffer(32));
  shared.set([1, 2, 3, 4, 5, 6, 7, 8]);
  const expected = await linear.run({ x: new Tensor('float32', Float32Array.from(shared), [2, 4]) });
  const results = await linear.run({ x: { type: 'float32', data: shared, dims: [2, 4] } });
  expect(results.y!.data).toEqual(expected.y!.data);
});

describe('cancelling and disposing', () => {
  test('an abort before, during or in the queue rejects with the reason; the session continues', async () => {
    const reason = new Error('enough');
    await expect(slow.run(slowFeeds(), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);

    const during = new AbortController();
    const feeds = slowFeeds(1024);
    const started = performance.now();
    slow.runSync(feeds);
    const whole = performance.now() - started;
    const run = slow.run(feeds, { signal: during.signal });
    const queued = new AbortController();
    const waiting = slow.run(feeds, { signal: queued.signal });
    queued.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    setTimeout(() => during.abort(reason), 5);
    const aborted = performance.now();
    await expect(run).rejects.toBe(reason);
    expect(performance.now() - aborted).toBeLessThan(whole * 0.8);

    const after = new AbortController();
    const { v64 } = await slow.run(slowFeeds(8), { signal: after.signal });
    after.abort(reason);
    expect(v64!.dims).toEqual([8, 8]);
  });

  test('an abort before or during creation rejects with the reason', async () => {
    const reason = new Error('enough');
    const model = fixture('slow.onnx');
    await expect(InferenceSession.create(model, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    for (const delay of [0, 0.2, 1, 2]) {
      const during = new AbortController();
      const creating = InferenceSession.create(model, { signal: during.signal });
      const wait = performance.now() + delay;
      while (performance.now() < wait);
      during.abort(reason);
      await expect(creating).rejects.toBe(reason);
    }
  });

  test('dispose lets accepted runs finish, refuses later ones, and may be called again', async () => {
    const session = await InferenceSession.create(fixture('slow.onnx'));
    const runs = [session.run(slowFeeds()), session.run(slowFeeds())];
    const disposed = session.dispose();
    await expect(session.run(slowFeeds(8))).rejects.toEqual(withCode('ERR_DISPOSED'));
    expect(() => session.runSync(slowFeeds(8))).toThrow(withCode('ERR_DISPOSED'));
    await disposed;
    expect((await Promise.all(runs)).length).toBe(2);
    await session.dispose();
    await session.release();
  });

  test('a full queue refuses by name', async () => {
    await using session = await InferenceSession.create(fixture('slow.onnx'), { maxQueue: 2 });
    const runs = Array.from({ length: 6 }, () => session.run(slowFeeds(512)));
    const results = await Promise.allSettled(runs);
    const refused = results.filter((result) => result.status === 'rejected');
    expect(refused.length).toBeGreaterThanOrEqual(1);
    for (const { reason } of refused as PromiseRejectedResult[])
      expect(reason).toEqual(withCode('ERR_QUEUE_FULL'));
    expect(results.length - refused.length).toBeGreaterThanOrEqual(2);
  });

  test('many sessions at once, each with several threads', async () => {
    const sessions = await Promise.all(
      Array.from({ length: 4 }, () =>
        InferenceSession.create(fixture('linear.onnx'), { concurrency: 2, threads: 1 }),
      ),
    );
    const x = random([3, 4]);
    const expected = linear.runSync({ x }).y!.data;
    const runs = await Promise.all(sessions.flatMap((s) => Array.from({ length: 50 }, () => s.run({ x }))));
    for (const { y } of runs) expect(y!.data).toEqual(expected);
    await Promise.all(sessions.map((s) => s.dispose()));
  });
});

test("a tensor can't be the target of two outputs, and strings can't contain a zero", async () => {
  const target = Tensor.allocate('float32', [2, 3]);
  await expect(linear.run({ x: random([2, 4]) }, { y: target, s: target })).rejects.toThrow(/same tensor/);
  expect(() => new Tensor('string', ['a\0b'], [1])).toThrow(withCode('ERR_INVALID_ARG_VALUE'));
  await expect(InferenceSession.create('m.onnx\0.txt')).rejects.toEqual(withCode('ERR_INVALID_ARG_VALUE'));
  const wrong = Tensor.allocate('float32', [5, 3]);
  await expect(linear.run({ x: random([2, 4]) }, { y: wrong })).rejects.toEqual(
    withCode('ERR_SHAPE_MISMATCH'),
  );
});

test('an input without a declared rank accepts any', async () => {
  const g = new GraphBuilder('ranks');
  g.op('Relu', [g.input('any', 'float32', [])], {}, { outputs: ['y'] });
  g.output('y', 'float32', []);
  const model = g.finish();
  for (const { type } of [model.graph.input[0]!, model.graph.output[0]!]) delete type!.tensorType!.shape;
  await using session = await InferenceSession.create(serializeModel(model));
  for (const dims of [[], [6], [2, 3]]) {
    expect((await session.run({ any: random(dims) })).y!.dims).toEqual(dims);
  }
});

describe("outputs that aren't tensors", () => {
  const zipmap = fixture('zipmap.onnx');
  const x = [1, 2, 3, 4, -1, -2, 1, 0];

  test('are listed as onnxruntime-node lists them, and the others are computed', async () => {
    const oracle = await ort.InferenceSession.create(zipmap);
    const feeds = { float_input: new Tensor('float32', x, [2, 4]) };
    const expected = await oracle.run({ float_input: new ort.Tensor('float32', x, [2, 4]) }, [
      'output_label',
    ]);
    await using session = await InferenceSession.create(zipmap);
    expect(session.outputNames).toEqual(['output_label', 'output_probability']);
    expect(session.outputMetadata).toEqual(oracle.outputMetadata);
    expect(session.inputMetadata).toEqual(oracle.inputMetadata);
    for (const results of [
      await session.run(feeds),
      await session.run(feeds, ['output_label']),
      await session.run(feeds, { output_label: null }),
      session.runSync(feeds),
    ]) {
      expect(Object.keys(results)).toEqual(['output_label']);
      expect(results.output_label!.data).toEqual(expected.output_label!.data);
    }
    await using cast = await InferenceSession.create(zipmap, { precision: 'fp16' });
    expect((await cast.run(feeds)).output_label!.data).toEqual(expected.output_label!.data);
  });

  test('are refused by name if they are fetched', async () => {
    await using session = await InferenceSession.create(zipmap);
    const feeds = { float_input: new Tensor('float32', x, [2, 4]) };
    const refused = expect.objectContaining({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringMatching(/^fetches\['output_probability'\] is a sequence, .*'output_label'/),
    });
    await expect(session.run(feeds, ['output_probability'])).rejects.toEqual(refused);
    await expect(session.run(feeds, ['output_label', 'output_probability'])).rejects.toEqual(refused);
    await expect(session.run(feeds, { output_probability: null })).rejects.toEqual(refused);
    expect(() => session.runSync(feeds, ['output_probability'])).toThrow(refused);

    const model = await readModel(zipmap);
    model.graph.output.shift();
    await using none = await InferenceSession.create(serializeModel(model));
    expect(none.outputMetadata).toEqual([{ name: 'output_probability', isTensor: false }]);
    await expect(none.run(feeds)).rejects.toThrow(/this model has none/);
  });

  test('among the inputs are refused by name', async () => {
    await expect(InferenceSession.create(fixture('sequence.onnx'))).rejects.toThrow(
      /input 'list' is not a tensor/,
    );
  });
});

describe("onnxruntime-node's options", () => {
  // Every name in onnxruntime-common 1.30's SessionOptions and RunOptions, and the text to look for in the message.
  const session = {
    executionProviders: 'options.device',
    intraOpNumThreads: 'options.threads',
    interOpNumThreads: 'one after the other',
    freeDimensionOverrides: 'options.shapes',
    graphOptimizationLevel: 'options.optimizationLevel',
    enableCpuMemArena: 'no counterpart',
    enableMemPattern: 'no counterpart',
    executionMode: 'one after the other',
    optimizedModelFilePath: 'Engine.save()',
    enableProfiling: 'session.stats()',
    profileFilePrefix: 'session.stats()',
    logId: 'nothing is logged',
    logSeverityLevel: 'nothing is logged',
    logVerbosityLevel: 'nothing is logged',
    enableGraphCapture: 'options.cudaGraph',
    extra: 'no counterpart',
    externalData: "the model's path",
  };
  const run = {
    logSeverityLevel: 'nothing is logged',
    logVerbosityLevel: 'nothing is logged',
    terminate: 'options.signal',
    tag: 'nothing is logged',
    extra: 'no counterpart',
  };
  const refused = (name: string, instead: string) =>
    expect.objectContaining({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringMatching(
        new RegExp(`^options\\.${name} is onnxruntime-node's.*${instead.replaceAll(/[().]/g, '\\$&')}`),
      ),
    });

  test('are all known here', () => {
    const declared = readFileSync(
      path.join(import.meta.dirname, '../../../node_modules/onnxruntime-common/lib/inference-session.ts'),
      'utf8',
    );
    const names = (kind: string) => {
      const [, body] = new RegExp(`interface ${kind} (?:extends \\w+ )?\\{(.*?)\\n  \\}`, 's').exec(
        declared,
      )!;
      return [...body!.matchAll(/^ {4}(\w+)\?:/gm)].map(([, name]) => name!);
    };
    const ours = ['preferredOutputLocation'];
    expect([...Object.keys(session), ...ours].sort()).toEqual(
      [...names('SessionOptions'), 'externalData'].sort(),
    );
    expect(Object.keys(run).sort()).toEqual(names('RunOptions').sort());
  });

  test.each(Object.entries(session))('%s names ours', async (name, instead) => {
    await expect(InferenceSession.create(fixture('linear.onnx'), { [name]: 1 })).rejects.toEqual(
      refused(name, instead),
    );
    await expect(buildEngine(fixture('linear.onnx'), { [name]: 1 })).rejects.toEqual(refused(name, ''));
    const model = path.join(import.meta.dirname, '../../../examples/demo-model');
    const ofModel = name === 'freeDimensionOverrides' ? /options\.kvCache/ : /is onnxruntime-node's/;
    await expect(LanguageModel.load(model, { [name]: 1 })).rejects.toThrow(ofModel);
  });

  test.each(Object.entries(run))('%s of a run names ours', async (name, instead) => {
    await expect(linear.run({ x: random([2, 4]) }, { [name]: 1 } as never)).rejects.toEqual(
      refused(name, instead),
    );
  });

  test('the location of outputs is checked', async () => {
    for (const preferredOutputLocation of ['gpu-buffer', 'cpu-pinned', { y: 'cpu' }]) {
      const creating = InferenceSession.create(fixture('linear.onnx'), { preferredOutputLocation } as never);
      await expect(creating).rejects.toThrow(
        /^options\.preferredOutputLocation must be one of 'cpu', 'cuda', not/,
      );
    }
  });

  test('profiling names the alternative', () => {
    expect(() => linear.startProfiling()).toThrow(withCode('ERR_INVALID_ARG_VALUE'));
    expect(() => linear.endProfiling()).toThrow(/session\.stats\(\)/);
  });
});

test("precision reports the model's types: on the CPU its own, unless it is cast", async () => {
  for (const [options, expected] of [
    [{}, 'as-exported'],
    [{ precision: 'fp32' }, 'as-exported'],
    [{ precision: 'fp16' }, 'fp16'],
  ] as const) {
    await using session = await InferenceSession.create(fixture('linear.onnx'), options);
    expect(session.precision).toBe(expected);
  }
});

test("onnxruntime-common's tensors are fed, and a clone of ours is, from another thread too", async () => {
  const x = random([2, 4]);
  const expected = linear.runSync({ x }).y!.data;
  const theirs = new ort.Tensor('float32', x.data as Float32Array, [2, 4]);
  expect((await linear.run({ x: theirs })).y!.data).toEqual(expected);
  const { port1, port2 } = new MessageChannel();
  const received = new Promise<TensorLike>((resolve) => {
    port2.on('message', resolve);
  });
  port1.postMessage(x);
  expect((await linear.run({ x: await received })).y!.data).toEqual(expected);
  port1.close();
});

test('cloning a session is refused', () => {
  expect(() => structuredClone(linear)).toThrow(expect.objectContaining({ name: 'DataCloneError' }));
  const { port1 } = new MessageChannel();
  expect(() => port1.postMessage({ linear })).toThrow(expect.objectContaining({ name: 'DataCloneError' }));
  port1.close();
  expect(JSON.parse(JSON.stringify(linear))).toMatchObject({ inputNames: ['x'], device: 'cpu' });
  expect(linear.constructor).toBe(InferenceSession);
  const printed = inspect({ linear }, { depth: 0 });
  expect(printed).toBe('{ linear: [InferenceSession] }');
  expect(inspect(linear)).toMatch(/^InferenceSession \{/);
  expect(inspect(linear)).not.toContain('constructor');
});

describe('shapes', () => {
  const range = { min: [1, 4], opt: [2, 4], max: [8, 4] };

  test('are binding: a run outside them is refused, and one inside runs', async () => {
    await using session = await InferenceSession.create(fixture('linear.onnx'), { shapes: { x: range } });
    expect((await session.run({ x: random([8, 4]) })).y!.dims).toEqual([8, 3]);
    for (const rows of [0, 9]) {
      await expect(session.run({ x: random([rows, 4]) })).rejects.toEqual(withCode('ERR_SHAPE_MISMATCH'));
      expect(() => session.runSync({ x: random([rows, 4]) })).toThrow(/allows \[1,4\] to \[8,4\]/);
    }
  });

  test('any of several profiles will do', async () => {
    const shapes = [{ x: range }, { x: [100, 4] }];
    await using session = await InferenceSession.create(fixture('linear.onnx'), { shapes });
    expect((await session.run({ x: random([100, 4]) })).y!.dims).toEqual([100, 3]);
    await expect(session.run({ x: random([50, 4]) })).rejects.toEqual(withCode('ERR_SHAPE_MISMATCH'));
  });

  test('that contradict the model or themselves are refused', async () => {
    const create = (options: object) => InferenceSession.create(fixture('linear.onnx'), options);
    await expect(create({ shapes: { y: range } })).rejects.toThrow(/options.shapes.y is not an input/);
    await expect(create({ shapes: { x: [2, 5] } })).rejects.toThrow(/fixes at 4/);
    await expect(create({ shapes: { x: { ...range, min: [-1, 4] } } })).rejects.toThrow(
      /options.shapes.x.min/,
    );
    await expect(create({ precision: 'half' })).rejects.toThrow(/options.precision must be one of/);
    await expect(create({ target: 'sm_89' })).rejects.toThrow(/options.target is not an option of a session/);
    await using session = await create({ precision: 'fp32' });
    expect(session.device).toBe('cpu');
  });
});

describe('timing and statistics', () => {
  test("onTiming receives the parts of a run's time", async () => {
    const feeds = slowFeeds(256);
    const timings: RunTiming[] = [];
    const onTiming = (timing: RunTiming) => timings.push(timing);
    const called = performance.now();
    const runs = [slow.run(feeds, { onTiming }), slow.run(feeds, ['v64'], { onTiming })];
    const calling = performance.now() - called;
    await Promise.all(runs);
    for (const { queueMs, computeMs, totalMs } of timings) {
      expect(computeMs).toBeGreaterThan(0);
      expect(totalMs).toBeCloseTo(queueMs + computeMs, 9);
    }
    // There is one thread, so the second run waited until the first ended. The calls themselves may have shifted that
    // by their own duration.
    expect(timings[1]!.queueMs).toBeGreaterThan(timings[0]!.totalMs - calling - 1);
    expect(Object.keys(timings[0]!)).toEqual(['queueMs', 'computeMs', 'totalMs']);

    const thrown = new Error('not listening');
    const run = slow.run(feeds, {
      onTiming() {
        throw thrown;
      },
    });
    await expect(run).rejects.toBe(thrown);
    await expect(slow.run(feeds, { onTiming: 1 } as never)).rejects.toEqual(withCode('ERR_INVALID_ARG_TYPE'));
  });

  test('stats() counts runs and gives their latency', async () => {
    const session = await InferenceSession.create(fixture('slow.onnx'));
    expect(session.stats()).toEqual({
      runs: { completed: 0, failed: 0, cancelled: 0, queued: 0, executing: 0 },
      latencyMs: null,
      memory: null,
      graphs: null,
    });
    const totals: number[] = [];
    const onTiming = ({ totalMs }: RunTiming) => totals.push(totalMs);
    const stop = new AbortController();
    const feeds = slowFeeds(256);
    const runs = Array.from({ length: 5 }, () => session.run(feeds, { onTiming }));
    const stopped = session.run(feeds, { signal: stop.signal });
    const { queued, executing, completed } = session.stats().runs;
    expect(queued + executing + completed).toBe(6);
    stop.abort();
    await expect(stopped).rejects.toThrow();
    await Promise.all(runs);
    // A product of matrices whose sizes don't match.
    const misfit = { ...feeds, v0: random([128, 128]) };
    await expect(session.run(misfit)).rejects.toEqual(withCode('ERR_EXECUTION_FAILED'));
    const stats = session.stats();
    expect(stats.runs).toEqual({ completed: 5, failed: 1, cancelled: 1, queued: 0, executing: 0 });
    totals.sort((a, b) => a - b);
    expect(stats.latencyMs!.p50).toBeCloseTo(totals[2]!, 9);
    expect(stats.latencyMs!.p90).toBeCloseTo(totals[4]!, 9);
    expect(stats.latencyMs!.max).toBeCloseTo(totals[4]!, 9);
    await session.dispose();
    expect(session.stats().runs.completed).toBe(5);
  });
});
