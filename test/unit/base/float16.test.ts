import { fromBfloat16Bits, fromFloat16Bits, toFloat16Bits } from 'node-tensorrt/onnx';
import { expect, test } from 'vitest';
import { python } from '../../oracle/python.js';

const allBits = Uint16Array.from({ length: 0x1_0000 }, (_, i) => i);
const bytesOf = (array: Float32Array | Uint16Array) =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** NumPy's result for `input`, as bytes. */
function numpy(expression: string, input: Uint8Array): Buffer {
  const code = `
import sys, numpy as np
np.seterr(all='ignore')
data = sys.stdin.buffer.read()
sys.stdout.buffer.write((${expression}).tobytes())`;
  return Buffer.from(python(code, [], input, 'latin1'), 'latin1');
}

test("every float16 becomes numpy's float32", () => {
  const expected = numpy("np.frombuffer(data, '<f2').astype('<f4')", bytesOf(allBits));
  const actual = fromFloat16Bits(allBits);
  const values = new Float32Array(new Uint8Array(expected).buffer);
  allBits.forEach((_, i) => {
    if (!Object.is(actual[i], values[i])) expect([i, actual[i]]).toEqual([i, values[i]]);
  });
});

test("float32 becomes numpy's float16: every exponent, ties, subnormals, infinities", () => {
  const source = new Float32Array(2 ** 20);
  const bits = new Uint32Array(source.buffer);
  let state = 7;
  for (let i = 0; i < bits.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // Half of the values have mantissas that lie on or beside a tie.
    bits[i] = i % 2 ? state : ((state & 0xffff_e000) | 0x1000) + ((i >> 1) % 3) - 1;
  }
  const expected = new Uint16Array(
    new Uint8Array(numpy("np.frombuffer(data, '<f4').astype('<f2')", bytesOf(source))).buffer,
  );
  const actual = toFloat16Bits(source);
  const isNaN16 = (half: number) => (half & 0x7fff) > 0x7c00;
  let nans = 0;
  for (let i = 0; i < bits.length; i++) {
    if (Number.isNaN(source[i])) {
      expect(isNaN16(actual[i]!)).toBe(true);
      nans++;
    } else if (actual[i] !== expected[i]) {
      expect([source[i], actual[i]]).toEqual([source[i], expected[i]]);
    }
  }
  expect(nans).toBeGreaterThan(0);
});

test('bfloat16 is the upper half of a float32', () => {
  expect([...fromBfloat16Bits(Uint16Array.of(0x3f80, 0xc000, 0x7f80, 0x0001))]).toEqual([
    1,
    -2,
    Infinity,
    2 ** -133,
  ]);
});
