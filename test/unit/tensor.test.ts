import { Tensor } from 'node-tensorrt';
import { expect, test } from 'vitest';

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
  [() => new Tensor('string', ['a', 1], [2]), 'ERR_INVALID_ARG_TYPE'],
  [() => new Tensor('int64', [1, 2], [2]), 'ERR_INVALID_ARG_TYPE'],
  [() => Tensor.allocate('string', [1]), 'ERR_INVALID_ARG_VALUE'],
  [() => Tensor.allocate('float32', [2 ** 50]), 'ERR_OUT_OF_MEMORY'],
])('refuses bad arguments with a code: %s', (make, code) => {
  expect(make).toThrow(expect.objectContaining({ code }));
});

test('allocated memory starts as zeros, and is gone after dispose', () => {
  const tensor = Tensor.allocate('float32', [2, 2]);
  expect(tensor.data).toEqual(new Float32Array(4));
  expect(tensor.byteLength).toBe(16);
  tensor.dispose();
  tensor.dispose();
  expect(() => tensor.data).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
});
