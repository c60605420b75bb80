import { TensorRTError } from 'node-tensorrt';
import { parseSafetensors, readSafetensors } from 'node-tensorrt/onnx';
import { expect, test } from 'vitest';
import { minilmDirectory } from '../../../../scripts/minilm.mjs';
import { python } from '../../../oracle/python.js';

const withCode = (code: string) => expect.objectContaining({ code });

function file(header: unknown, data: Uint8Array = new Uint8Array()): Uint8Array {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = Buffer.alloc(8 + json.length + data.length);
  bytes.writeBigUInt64LE(BigInt(json.length));
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
}

test('a real file: names, types, dimensions and every element, by numpy', async () => {
  const path = `${await minilmDirectory()}/model.safetensors`;
  const { tensors } = await readSafetensors(path);
  // The format, read independently: 8 bytes of length, JSON, data.
  const expected = JSON.parse(
    python(
      `
import json, struct, sys, numpy as np
data = open(sys.argv[1], 'rb').read()
n = struct.unpack('<Q', data[:8])[0]
header = json.loads(data[8:8 + n])
sums = {}
for name, t in header.items():
    if name == '__metadata__': continue
    a, b = t['data_offsets']
    kind = {'F32': '<f4', 'I64': '<i8'}[t['dtype']]
    sums[name] = [t['shape'], float(np.frombuffer(data[8 + n + a:8 + n + b], kind).astype('f8').sum())]
print(json.dumps(sums))`,
      [path],
    ),
  ) as Record<string, [number[], number]>;
  expect([...tensors.keys()].sort()).toEqual(Object.keys(expected).sort());
  for (const [name, { dims, bytes, type }] of tensors) {
    const copy = new Uint8Array(bytes).buffer;
    const values = type === 'float32' ? new Float32Array(copy) : new BigInt64Array(copy);
    let sum = 0;
    for (const value of values) sum += Number(value);
    expect(dims).toEqual(expected[name]![0]);
    expect(sum).toBeCloseTo(expected[name]![1], 6);
  }
});

test.each<[string, Uint8Array]>([
  ['empty', new Uint8Array()],
  ['shorter than its length field', new Uint8Array(5)],
  ['a header longer than the file', file({}).subarray(0, 9)],
  ['a header of 2^63 bytes', new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0x80, 123])],
  ['no JSON', file('{"a":')],
  ['a header that is a list', file([])],
  ['data cut short', file({ w: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } }, new Uint8Array(4))],
  ['data left over', file({ w: { dtype: 'F32', shape: [1], data_offsets: [0, 4] } }, new Uint8Array(8))],
  [
    'an overlap',
    file(
      {
        a: { dtype: 'U8', shape: [2], data_offsets: [0, 2] },
        b: { dtype: 'U8', shape: [2], data_offsets: [1, 3] },
      },
      new Uint8Array(3),
    ),
  ],
  ['offsets backwards', file({ w: { dtype: 'F32', shape: [1], data_offsets: [4, 0] } }, new Uint8Array(4))],
  [
    'a shape that contradicts them',
    file({ w: { dtype: 'F32', shape: [3], data_offsets: [0, 8] } }, new Uint8Array(8)),
  ],
  [
    'a negative dimension',
    file({ w: { dtype: 'F32', shape: [-2], data_offsets: [0, 8] } }, new Uint8Array(8)),
  ],
  ['an unknown type', file({ w: { dtype: 'Q9', shape: [2], data_offsets: [0, 8] } }, new Uint8Array(8))],
  ['a tensor that is null', file({ w: null })],
  [
    'offsets that are text',
    file({ w: { dtype: 'U8', shape: [1], data_offsets: ['0', '1'] } }, new Uint8Array(1)),
  ],
])('refused: %s', (_, bytes) => {
  expect(() => parseSafetensors(bytes)).toThrow(withCode('ERR_MODEL_INVALID'));
});

test('bits flipped at random end in a typed error or a file', () => {
  const whole = file({ w: { dtype: 'F32', shape: [2, 2], data_offsets: [0, 16] } }, new Uint8Array(16));
  for (let bit = 0; bit < whole.length * 8; bit++) {
    const flipped = new Uint8Array(whole);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    try {
      parseSafetensors(flipped);
    } catch (error) {
      expect(error).toBeInstanceOf(TensorRTError);
    }
  }
});
