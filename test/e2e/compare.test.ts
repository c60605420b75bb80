// `node-tensorrt compare`: what it prints, its JSON, its inputs and wrong usage.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { castToFloat16, GraphBuilder, writeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { python } from '../oracle/python.js';

const cli = path.join(import.meta.dirname, '../../dist/apps/cli/main.js');

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'compare-cli-'));
  await writeModel(model(1), path.join(directory, 'a.onnx'));
  await writeModel(model(1.01), path.join(directory, 'b.onnx'));
  await writeModel(castToFloat16(model(1)).model, path.join(directory, 'half.onnx'));
});
afterAll(() => rm(directory, { recursive: true }));

/** A perceptron whose first product goes beyond FP16. `factor` scales the weight of the node `down`. */
function model(factor: number) {
  const g = new GraphBuilder('perceptron');
  const weight = (name: string, scale: number) =>
    g.initializer(
      name,
      'float32',
      [8, 8],
      Float32Array.from({ length: 64 }, (_, i) => scale * Math.sin(i)),
    );
  const x = g.input('x', 'float32', ['batch', 8]);
  const up = g.op('MatMul', [x, weight('w.up', 33000)], {}, { name: 'up' });
  const relu = g.op('Relu', [up], {}, { name: 'relu' });
  const down = g.op('MatMul', [relu, weight('w.down', 0.001 * factor)], {}, { name: 'down' });
  g.op('MatMul', [down, weight('w.head', 0.05)], {}, { name: 'head', outputs: ['logits'] });
  g.output('logits', 'float32', ['batch', 8]);
  return g.finish();
}

interface Result {
  code: number;
  stdout: string;
  stderr: string;
}
function compare(...args: string[]): Promise<Result> {
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, 'compare', ...args], { cwd: directory }, (error, stdout, stderr) => {
      resolve({ code: (error?.code as number | undefined) ?? 0, stdout, stderr });
    });
  });
}

test('prints how outputs and layers differ, and where the models part', async () => {
  const { code, stdout, stderr } = await compare('a.onnx', 'b.onnx', '--layers');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toContain('a.onnx (FP32) and b.onnx (FP32), on 2 random samples, seed 0');
  expect(stdout).toMatch(
    /^output +dims +largest +relative +mean +cosine +top-1 +KL\nlogits +2×8 .* 0\.01 .* 100 % /m,
  );
  expect(stdout).toMatch(/^relu +Relu +2×8 +0 +0 +0 +1\.000000 +0$/m);
  expect(stdout).toMatch(/^the models part at down \(MatMul\): its error is 0\.0/m);
});

test('prints the list for keepFp32, of a cast and of a model in FP16', async () => {
  for (const b of ['fp16', 'half.onnx']) {
    const { code, stdout } = await compare('a.onnx', b, '--bisect', '0.01');
    expect(code).toBe(0);
    expect(stdout).toContain(`and ${b} (FP16, simulated)`);
    expect(stdout).toContain('the cast to FP16 differs by Infinity; with 2 nodes in FP32 by ');
    expect(stdout).toContain('keepFp32: ["up","down"]\n--keep-fp32 up --keep-fp32 down\n');
  }
});

test('--json prints one document, with infinity as a string', async () => {
  const { code, stdout } = await compare(
    'a.onnx',
    'fp16',
    '--layers',
    '--bisect',
    '0.01',
    '--seed',
    '3',
    '--json',
  );
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    a: 'a.onnx',
    b: 'fp16',
    precision: { a: 'fp32', b: 'fp16' },
    inputs: { source: 'random', samples: 2, seed: 3 },
    agree: false,
    outputs: [{ name: 'logits', largest: 'Infinity' }],
    parted: { node: 'up', kind: 'overflow' },
    bisect: { keepFp32: ['up', 'down'], reached: true, before: 'Infinity' },
  });
});

describe('--inputs', () => {
  const save = (folder: string, name: string, rows: number) =>
    python('import numpy as np, sys\nnp.save(sys.argv[1], np.ones((int(sys.argv[2]), 8), np.float32))', [
      path.join(directory, folder, name),
      String(rows),
    ]);

  test('takes a folder of .npy files, or of folders', async () => {
    await mkdir(path.join(directory, 'one'));
    save('one', 'x.npy', 3);
    for (const sample of ['2', '10']) {
      await mkdir(path.join(directory, 'many', sample), { recursive: true });
      save(`many/${sample}`, 'x.npy', Number(sample));
    }
    const one = JSON.parse((await compare('a.onnx', 'b.onnx', '--inputs', 'one', '--json')).stdout);
    expect(one).toMatchObject({ inputs: { source: 'given', samples: 1 }, outputs: [{ dims: [3, 8] }] });
    const many = JSON.parse((await compare('a.onnx', 'b.onnx', '--inputs', 'many', '--json')).stdout);
    expect(many).toMatchObject({ inputs: { source: 'given', samples: 2 }, outputs: [{ dims: [2, 8] }] });
  });

  test('names what is wrong with a folder', async () => {
    await mkdir(path.join(directory, 'empty'));
    expect((await compare('a.onnx', 'b.onnx', '--inputs', 'empty')).stderr).toMatch(
      /ERR_INVALID_ARG_VALUE: --inputs has no/,
    );
    await mkdir(path.join(directory, 'wrong'));
    await writeFile(path.join(directory, 'wrong', 'z.npy'), '');
    const { code, stderr } = await compare('a.onnx', 'b.onnx', '--inputs', 'wrong');
    expect(code).toBe(1);
    expect(stderr).toMatch(/--inputs names 'z', which is not an input of this model/);
  });
});

test.each<[string, string[], number, RegExp]>([
  ['one model', ['a.onnx'], 2, /missing required argument/],
  ['a tolerance that is no number', ['a.onnx', 'b.onnx', '--bisect', 'low'], 2, /--bisect must be a number/],
  ['a negative tolerance', ['a.onnx', 'b.onnx', '--tolerance=-1'], 2, /--tolerance must be a number/],
  ['a seed that is no number', ['a.onnx', 'b.onnx', '--seed', 'x'], 2, /--seed must be a whole number/],
  ['a missing file', ['a.onnx', 'c.onnx'], 1, /ERR_MODEL_NOT_FOUND/],
  [
    'a bisection of FP32',
    ['a.onnx', 'b.onnx', '--bisect', '0.1'],
    1,
    /ERR_INVALID_ARG_VALUE: --bisect needs a model b/,
  ],
])('%s ends with an error', async (_, args, expected, message) => {
  const { code, stdout, stderr } = await compare(...args);
  expect({ code, stdout }).toEqual({ code: expected, stdout: '' });
  expect(stderr).toMatch(message);
});
