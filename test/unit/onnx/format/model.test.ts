import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { TensorRTError } from 'node-tensorrt';
import {
  externalData,
  type ModelProto,
  makeTensor,
  parseModel,
  parseSafetensors,
  readModel,
  serializeModel,
  tensorBytes,
  tensorElements,
  writeModel,
} from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pythonOracle } from '../../../../scripts/python-oracle.mjs';
import { python } from '../../../oracle/python.js';

const fixture = (name: string) => path.join(import.meta.dirname, '../../../fixtures/session', name);
const withCode = (code: string) => expect.objectContaining({ code });

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'onnx-'));
});
afterAll(() => rm(directory, { recursive: true }));

describe('reading and writing', () => {
  test("the onnx package's own test models come back equal, by the onnx package", async () => {
    const data = path.join(pythonOracle(), 'onnx/backend/test/data');
    const files = (await readdir(data, { recursive: true })).filter((file) => file.endsWith('model.onnx'));
    expect(files.length).toBeGreaterThan(1000);
    for (const file of files) {
      const copy = path.join(directory, 'again', file);
      await mkdir(path.dirname(copy), { recursive: true });
      await writeModel(await readModel(path.join(data, file)), copy);
    }
    const different = python(
      `
import sys, onnx
data, copies = sys.argv[1:3]
for file in sys.stdin.read().split():
    if onnx.load(f'{data}/{file}', load_external_data=False) != onnx.load(f'{copies}/{file}', load_external_data=False):
        print(file)
`,
      [data, path.join(directory, 'again')],
      files.join('\n'),
    );
    expect(different).toBe('');
  });

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

  test('a write that fails says so and leaves nothing behind', async () => {
    const model = await readModel(fixture('linear.onnx'));
    const folder = path.join(directory, 'folder.onnx');
    await mkdir(folder);
    await expect(writeModel(model, folder)).rejects.toThrow(withCode('ERR_IO'));
    // Another process may remove at any moment what is to be replaced.
    const removed = path.join(directory, 'removed.onnx');
    const remove = async () => {
      for (let i = 0; i < 500; i++) await rm(removed, { force: true });
    };
    const write = async () => {
      for (let i = 0; i < 200; i++) await writeModel(model, removed);
    };
    await Promise.all([write(), write(), remove(), remove()]);
    await expect(writeModel(model, path.join(directory, 'absent/x.onnx'))).rejects.toThrow(
      withCode('ERR_IO'),
    );
    expect((await readdir(directory)).filter((name) => name.includes('.tmp'))).toEqual([]);
  });
});

test('models and safetensors are read from any kind of memory', async () => {
  const bytes = await readFile(fixture('linear.onnx'));
  const header = Buffer.from('{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}');
  const tensors = Buffer.concat([
    Buffer.from(BigUint64Array.of(BigInt(header.length)).buffer),
    header,
    Buffer.of(7, 8),
  ]);
  const shared = (source: Uint8Array) => {
    const buffer = new SharedArrayBuffer(source.length);
    new Uint8Array(buffer).set(source);
    return buffer;
  };
  for (const source of [Uint8Array.from(bytes).buffer, shared(bytes), new Uint8Array(shared(bytes))]) {
    expect(serializeModel(parseModel(source))).toEqual(serializeModel(parseModel(bytes)));
  }
  for (const source of [Uint8Array.from(tensors).buffer, shared(tensors)]) {
    expect([...parseSafetensors(source).tensors.get('w')!.bytes]).toEqual([7, 8]);
  }
  const gone = Uint8Array.from(bytes);
  structuredClone(gone, { transfer: [gone.buffer] });
  for (const parse of [parseModel, parseSafetensors]) {
    expect(() => parse(gone)).toThrow(withCode('ERR_INVALID_ARG_VALUE'));
    expect(() => parse('model.onnx' as never)).toThrow(withCode('ERR_INVALID_ARG_TYPE'));
  }
});

describe('what is no model', () => {
  test('missing, empty, a folder, text', async () => {
    await expect(readModel(path.join(directory, 'absent.onnx'))).rejects.toThrow(
      withCode('ERR_MODEL_NOT_FOUND'),
    );
    await expect(readModel(directory)).rejects.toThrow(withCode('ERR_IO'));
    expect(() => parseModel(new Uint8Array())).toThrow(withCode('ERR_MODEL_INVALID'));
    expect(() => parseModel(Buffer.from('<html>'))).toThrow(withCode('ERR_MODEL_INVALID'));
  });

  test('every truncation, and bits flipped at random, end in a typed error or a model', async () => {
    const bytes = await readFile(fixture('types.onnx'));
    let random = 1;
    const next = (limit: number) => {
      random = (Math.imul(random, 1103515245) + 12345) >>> 0;
      return (random >>> 8) % limit;
    };
    const candidates = Array.from({ length: bytes.length }, (_, length) => bytes.subarray(0, length));
    for (let i = 0; i < 5000; i++) {
      const flipped = Buffer.from(bytes);
      for (let n = 0; n <= next(4); n++) flipped[next(bytes.length)]! ^= 1 << next(8);
      candidates.push(flipped);
    }
    let refused = 0;
    for (const candidate of candidates) {
      try {
        const model = parseModel(candidate);
        for (const tensor of model.graph.initializer) tensorBytes(tensor);
        parseModel(serializeModel(model));
      } catch (error) {
        expect(error).toBeInstanceOf(TensorRTError);
        expect((error as TensorRTError).code).toMatch(/^ERR_MODEL_(INVALID|UNSUPPORTED)$/);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(bytes.length / 2);
  });
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
