import { createRequire } from 'node:module';
import { inspect } from 'node:util';
import vm from 'node:vm';
import { type DataType, Tensor } from 'node-tensorrt';
import { fromBfloat16Bits, fromFloat16Bits } from 'node-tensorrt/onnx';
import { describe, expect, test } from 'vitest';

const ort = createRequire(import.meta.url)('onnxruntime-node') as typeof import('onnxruntime-node');
const hasFloat16Array = 'Float16Array' in globalThis;

test('infers the type from the data', () => {
  expect(new Tensor(new Float32Array(6), [2, 3]).type).toBe('float32');
  expect(new Tensor(BigInt64Array.of(1n)).dims).toEqual([1]);
  expect(new Tensor(['a', 'b']).type).toBe('string');
  expect(new Tensor('int64', [1n, 2n], [2]).data).toEqual(BigInt64Array.of(1n, 2n));
});

test.each([
  [() => new Tensor('float32', new Float64Array(1), [1]), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('complex64' as never, new Float32Array(1), [1]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('float32', new Float32Array(5), [2, 3]), 'ERR_SHAPE_MISMATCH'],
  [() => new Tensor('float32', new Float32Array(1), [-1]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('float32', new Float32Array(1), [Number.NaN]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('float32', new Float32Array(1), ['1'] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('string', ['a', 1] as never, [2]), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('float32', new Float32Array(1), null as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('float32', new Float32Array(1), Int32Array.of(1) as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('float32', new ArrayBuffer(4) as never, [1]), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('int8', Buffer.from([1]), [1]), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('int8', new Uint8ClampedArray(1) as never, [1]), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor(new DataView(new ArrayBuffer(4)) as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor([] as string[]), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor([1, 2] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor(['a', 1] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('int4' as never, new Uint8Array(1), [1]), 'ERR_INVALID_ARG_VALUE'],
  // Elements outside the type's range: nothing wraps around, nothing is cut off, nothing becomes NaN.
  [() => new Tensor('int64', [1.5]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int64', [Number.NaN]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int64', [1e300]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int64', [2n ** 63n]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int64', [2 ** 63]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('uint64', [-1n]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('uint64', [-1]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int64', ['1.5'] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('int64', [null] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('int64', new Array(2)), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('uint8', [256]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int8', [-129]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int32', [0.5]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int32', [2 ** 31]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('int32', [1n] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('bool', [2]), 'ERR_INVALID_ARG_VALUE'],
  [() => new Tensor('bool', ['true'] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('float32', ['1'] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('float32', [undefined] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('float32', [[1, 2]] as never), 'ERR_INVALID_ARG_TYPE'],
  [() => Tensor.allocate('string' as 'bool', [1]), 'ERR_INVALID_ARG_VALUE'],
  [() => Tensor.allocate('float32', [2 ** 50]), 'ERR_OUT_OF_MEMORY'],
])('refuses bad arguments with a code: %s', (make, code) => {
  expect(make).toThrow(expect.objectContaining({ code }));
});

test("allocated memory starts as zeros, and can't be used after dispose", () => {
  const tensor = Tensor.allocate('float32', [2, 2]);
  expect(tensor.data).toEqual(new Float32Array(4));
  expect(tensor.byteLength).toBe(16);
  // Runs would not see the change.
  expect(() => Object.assign(tensor, { data: new Float32Array(4) })).toThrow(TypeError);
  tensor.dispose();
  tensor.dispose();
  expect(() => tensor.data).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  expect(tensor.location).toBe('none');
});

// If onnxruntime-common accepts the arguments, ours has the same type, dimensions and data.
test.each<[...unknown[]]>([
  ['int64', [1, 2, 3], [3]],
  ['int64', [-1, 2n, 2 ** 53, -(2 ** 63)]],
  ['int64', Object.freeze([1n, -2n])],
  ['uint64', [0, 2n ** 64n - 1n, 2 ** 60]],
  ['float32', [0.1, -1, Number.NaN, Number.POSITIVE_INFINITY], [2, 2]],
  ['float64', [0.1, 1e300]],
  ['int8', [-128, 127]],
  ['uint8', [0, 255]],
  ['uint8', Uint8ClampedArray.of(1, 2)],
  ['int16', [-32768, 32767]],
  ['uint16', [65535]],
  ['int32', [-(2 ** 31), 2 ** 31 - 1]],
  ['uint32', [2 ** 32 - 1]],
  ['bool', [true, false, true]],
  ['bool', [1, 0]],
  ['bool', Uint8Array.of(0, 1)],
  ['string', ['a', 'é'], [1, 2]],
  ['float32', [7], []],
  ['float32', [], [0, 3]],
  ['uint8', Buffer.from([1, 2])],
  [['a', 'b']],
  [
    [true, false],
    [2, 1],
  ],
  [Uint8ClampedArray.of(3, 4)],
  ...[
    Float32Array,
    Float64Array,
    Int8Array,
    Uint8Array,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
  ].map((TypedArray) => [TypedArray.of(1, 2), [1, 2]]),
  [BigInt64Array.of(-1n)],
  [BigUint64Array.of(1n)],
])('accepts what onnxruntime-common does: %o %o %o', (...args) => {
  const theirs = Reflect.construct(ort.Tensor, args) as import('onnxruntime-node').Tensor;
  const ours = Reflect.construct(Tensor, args) as Tensor;
  const { type, dims, size, data } = ours;
  expect([type, dims, size, data.constructor.name]).toEqual([
    theirs.type,
    theirs.dims,
    theirs.size,
    theirs.data.constructor.name,
  ]);
  expect(Array.from(data as Iterable<unknown>)).toEqual(Array.from(theirs.data as Iterable<unknown>));
});

test('accepts bigints, a Buffer, and arrays of another realm', () => {
  expect(new Tensor([1n, -2n]).data).toEqual(BigInt64Array.of(1n, -2n));
  expect(new Tensor(Buffer.from('ab')).type).toBe('uint8');
  const foreign = vm.runInNewContext('Float32Array.of(1, 2)') as Float32Array;
  expect(foreign instanceof Float32Array).toBe(false);
  expect(new Tensor(foreign, [2]).type).toBe('float32');
  expect(new Tensor('float32', foreign, [2]).data[1]).toBe(2);
});

test.each(['float16', 'bfloat16'] as const)('%s of numbers has their values, rounded', (type) => {
  const { data } = new Tensor(type, [1, -2.5, 0.1, 1e30, Number.NaN], [5]);
  const values =
    data instanceof Uint16Array
      ? (type === 'float16' ? fromFloat16Bits : fromBfloat16Bits)(data)
      : Float32Array.from(data as Iterable<number>);
  // NumPy's np.float16(x), and the upper half of np.float32(x), rounded to nearest.
  const expected =
    type === 'float16'
      ? [1, -2.5, 0.0999755859375, Infinity, NaN]
      : [1, -2.5, 0.10009765625, 1.0002555517425873e30, NaN];
  expect([...values]).toEqual(expected.map(Math.fround));
  expect(data instanceof Uint16Array).toBe(type === 'bfloat16' || !hasFloat16Array);
});

test('data whose buffer was transferred is refused, with any dimensions', () => {
  for (const dims of [undefined, [0], [2]]) {
    for (const data of [new Float32Array(2), new Uint8ClampedArray(2)]) {
      structuredClone(data.buffer, { transfer: [data.buffer] });
      expect(() => new Tensor(data, dims)).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_ARG_VALUE',
          message: expect.stringContaining('detached'),
        }),
      );
    }
  }
});

describe('reshape', () => {
  test('shares the elements, as onnxruntime-common does', () => {
    const tensor = new Tensor('int32', [1, 2, 3, 4, 5, 6], [2, 3]);
    const reshaped = tensor.reshape([3, 2, 1]);
    expect([reshaped.type, reshaped.dims]).toEqual(['int32', [3, 2, 1]]);
    expect(reshaped.data).toBe(tensor.data);
    expect(tensor.dims).toEqual([2, 3]);
  });

  test.each([
    [[4], 'ERR_SHAPE_MISMATCH'],
    [[-1], 'ERR_INVALID_ARG_VALUE'],
    [[1.5, 2], 'ERR_INVALID_ARG_VALUE'],
    ['3' as never, 'ERR_INVALID_ARG_TYPE'],
    [undefined as never, 'ERR_INVALID_ARG_TYPE'],
  ])('to %o is refused', (dims, code) => {
    const tensor = new Tensor('int32', [1, 2, 3], [3]);
    expect(() => tensor.reshape(dims)).toThrow(expect.objectContaining({ code }));
    tensor.dispose();
    expect(() => tensor.reshape([3])).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });
});

const one: Record<DataType, unknown[]> = {
  float32: [0.5, -1, Number.NaN, Number.NEGATIVE_INFINITY],
  float16: [0.5, -1, Number.NaN, Number.NEGATIVE_INFINITY],
  bfloat16: [0.5, -1, Number.NaN, Number.NEGATIVE_INFINITY],
  float64: [0.1, 5e-324],
  int8: [-128, 127],
  uint8: [255],
  int16: [-32768],
  uint16: [65535],
  int32: [-(2 ** 31)],
  uint32: [2 ** 32 - 1],
  int64: [1n, -(2n ** 63n), 2n ** 53n],
  uint64: [2n ** 64n - 1n, 7n],
  bool: [1, 0],
  string: ['a', 'é\n'],
};

test.each(Object.keys(one) as DataType[])('JSON of %s makes the same tensor again', (name) => {
  const tensor = new Tensor(name, one[name] as number[], [1, one[name].length]);
  const { type, dims, data } = JSON.parse(JSON.stringify(tensor));
  const again = new Tensor(type, data, dims);
  expect([again.type, again.dims]).toEqual([name, [1, one[name].length]]);
  expect(again.data).toEqual(tensor.data);
});

test('JSON has numbers if they are exact', () => {
  const json = (tensor: Tensor) => JSON.parse(JSON.stringify(tensor));
  expect(json(new Tensor('int64', [1, 2, 3], [3]))).toEqual({ type: 'int64', dims: [3], data: [1, 2, 3] });
  expect(json(new Tensor('int64', [2n ** 53n], [1])).data).toEqual(['9007199254740992']);
  expect(json(new Tensor('float32', [1, Number.NaN], [2])).data).toEqual([1, 'NaN']);
  expect(json(new Tensor('float16', [1.5], [1])).data).toEqual([1.5]);
});

test.each(Object.keys(one) as DataType[])('a structured clone of %s is a tensor to feed', (name) => {
  for (const make of [
    () => new Tensor(name, one[name] as number[]),
    () => {
      if (name === 'string') return new Tensor(['b']);
      const tensor = Tensor.allocate(name, [one[name].length]);
      (tensor.data as Uint8Array).set(new Tensor(name, one[name] as number[]).data as Uint8Array);
      return tensor;
    },
  ]) {
    const tensor = make();
    const clone = structuredClone(tensor);
    expect([clone.type, clone.dims]).toEqual([tensor.type, tensor.dims]);
    expect(clone.data).toEqual(tensor.data);
    expect(clone.data).not.toBe(tensor.data);
    expect(new Tensor(clone.type, clone.data, clone.dims).data).toEqual(tensor.data);
  }
});

test('a disposed tensor is neither cloned nor written as JSON', () => {
  const tensor = new Tensor('float32', [1, 2]);
  tensor.dispose();
  for (const lose of [structuredClone, JSON.stringify]) {
    expect(() => lose(tensor)).toThrow(expect.objectContaining({ message: 'The tensor was disposed.' }));
  }
  expect(inspect(tensor)).toBe("Tensor { type: 'float32', dims: [ 2 ], location: 'none' }");
});

test("a tensor whose buffer was transferred isn't written as JSON, but prints", () => {
  for (const type of ['float32', 'float16', 'bfloat16', 'bool', 'int64'] as const) {
    const tensor = new Tensor(type, [1, 0]);
    structuredClone(0, { transfer: [(tensor.data as Uint8Array).buffer as ArrayBuffer] });
    expect(() => JSON.stringify(tensor)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_ARG_VALUE',
        message: expect.stringMatching(/^tensor\.data is detached/),
      }),
    );
    expect(inspect({ tensor })).toContain("data: 'detached'");
  }
});

test('prints its type, dimensions and first values', () => {
  expect(inspect(new Tensor('int64', [1, 2], [1, 2]), { breakLength: 200 })).toBe(
    "Tensor { type: 'int64', dims: [ 1, 2 ], location: 'cpu', data: BigInt64Array(2) [ 1n, 2n ] }",
  );
  expect(inspect(new Tensor('bfloat16', [1, 2.5]), { breakLength: 200 })).toBe(
    "Tensor { type: 'bfloat16', dims: [ 2 ], location: 'cpu', data: [ 1, 2.5 ] }",
  );
  for (const type of ['float32', 'bfloat16', 'string'] as const) {
    const data = type === 'string' ? new Array<string>(1000).fill('a') : new Array<number>(1000).fill(3);
    const large = inspect({ y: new Tensor(type, data, [10, 100]) }, { maxArrayLength: 3 });
    expect(large).toMatch(/type: '\w+',\s+dims: \[ 10, 100 \],\s+location: 'cpu',/);
    expect(large).toMatch(/\[\s*(3|'a'),\s*(3|'a'),\s*(3|'a'),\s*\.\.\. 997 more items\s*\]/);
  }
  expect(inspect({ a: { b: { c: new Tensor(['x']) } } })).toContain('[Tensor]');
  expect(`${Tensor.name} ${new Tensor(['x']).constructor.name}`).toBe('Tensor Tensor');
});
