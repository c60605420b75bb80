import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {
  externalData,
  type ModelProto,
  makeTensor,
  parseModel,
  serializeModel,
  tensorBytes,
  tensorElements,
} from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { python } from '../../../oracle/python.js';

const withCode = (code: string) => expect.objectContaining({ code });

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'onnx-'));
});
afterAll(() => rm(directory, { recursive: true }));

test('weights are found in every field that may hold them', () => {
  const code = `
import onnx, sys, numpy as np
from onnx import helper, TensorProto as T, numpy_helper
values = [0, 1, 2, 100]
tensors = []
for t in ['FLOAT','DOUBLE','INT8','UINT8','INT16','UINT16','INT32','UINT32','INT64','UINT64','BOOL','FLOAT16','BFLOAT16']:
    typed = helper.make_tensor(t, getattr(T, t), [2, 2], values)
    tensors += [typed]
    if t != 'BFLOAT16': tensors += [numpy_helper.from_array(numpy_helper.to_array(typed), t + '_raw')]
graph = helper.make_graph([], 'g', [], [], tensors)
sys.stdout.buffer.write(helper.make_model(graph).SerializeToString())`;
  const model = parseModel(Buffer.from(python(`${code.trim()}`, [], '', 'latin1'), 'latin1'));
  expect(model.graph.initializer.length).toBe(25);
  for (const tensor of model.graph.initializer) {
    const elements = [...tensorElements(tensor)].map(Number);
    const half = [0, 0x3c00, 0x4000, 0x5640];
    const brain = [0, 0x3f80, 0x4000, 0x42c8];
    const expected = tensor.name!.startsWith('FLOAT16')
      ? half
      : tensor.name === 'BFLOAT16'
        ? brain
        : undefined;
    const plain = tensor.name!.startsWith('BOOL') ? elements.map((_, i) => Math.min(i, 1)) : [0, 1, 2, 100];
    expect([
      tensor.name,
      elements.map((e) => (tensor.name!.startsWith('BOOL') ? Math.min(e, 1) : e)),
    ]).toEqual([tensor.name, expected ?? plain]);
  }
});

describe('external data', () => {
  const tensor = (entries: Record<string, string>) => ({
    name: 'w',
    dataType: 1,
    dims: [4],
    dataLocation: 1,
    externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
  });

  test('is read from beside the model, at its offset', async () => {
    const values = Float32Array.of(9, 9, 1, 2, 3, 4);
    await writeFile(path.join(directory, 'w.bin'), Buffer.from(values.buffer));
    const w = tensor({ location: 'w.bin', offset: '8', length: '16' });
    expect([...tensorElements(w, { directory })]).toEqual([1, 2, 3, 4]);
  });

  test.each(['../w.bin', '/etc/passwd', 'a/../../w.bin', '..\\w.bin', 'C:\\w.bin', '', '.', 'a\0b'])(
    'does not leave the folder: %j',
    (location) => {
      expect(() => externalData(tensor({ location }), directory)).toThrow(withCode('ERR_MODEL_INVALID'));
    },
  );

  test('that is missing or too short is said to be', () => {
    const read = (entries: Record<string, string>) => () => tensorBytes(tensor(entries), { directory });
    expect(read({ location: 'absent.bin' })).toThrow(withCode('ERR_MODEL_NOT_FOUND'));
    expect(read({ location: 'w.bin', offset: '100' })).toThrow(withCode('ERR_MODEL_INVALID'));
    expect(read({ location: 'w.bin', offset: '-1' })).toThrow(withCode('ERR_MODEL_INVALID'));
    expect(read({ location: 'w.bin', length: '99999999999' })).toThrow(withCode('ERR_MODEL_INVALID'));
  });
});

test('tensors refuse data that contradicts their dimensions', () => {
  expect(() => makeTensor('w', 'float32', [3], new Float32Array(2))).toThrow(
    withCode('ERR_INVALID_ARG_VALUE'),
  );
  const model: ModelProto = parseModel(
    serializeModel({
      irVersion: 9,
      opsetImport: [{ version: 20 }],
      graph: {
        node: [],
        input: [],
        output: [],
        valueInfo: [],
        initializer: [{ name: 'w', dataType: 1, dims: [-1, 2], rawData: new Uint8Array(8) }],
      },
    }),
  );
  expect(() => tensorBytes(model.graph.initializer[0]!)).toThrow(withCode('ERR_MODEL_INVALID'));
});
