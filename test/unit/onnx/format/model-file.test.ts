import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { TensorRTError } from 'node-tensorrt';
import {
  parseModel,
  parseSafetensors,
  readModel,
  serializeModel,
  tensorBytes,
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
