// The suites of test/gpu, and `bench`, on a GPU and TensorRT libraries simulated by stand-ins (test/native/stand_in).
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = path.join(import.meta.dirname, '../..');
const standIns = path.join(root, 'build/addon-tests/stand_in');
const full = process.env.NODE_TENSORRT_TEST_FULL === '1';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'stand-ins-'));
});
afterAll(() => rm(directory, { recursive: true }));

function run(flavour: string, computeCapability: number, args: string[]) {
  const env = {
    ...process.env,
    LD_LIBRARY_PATH: path.join(standIns, 'cuda'),
    NODE_TENSORRT_TENSORRT_PATH: path.join(standIns, flavour),
    STAND_IN_CUDA_DEVICES: `Stand-in GPU:${computeCapability}:24576`,
    STAND_IN_JAVASCRIPT: 'main',
    NODE_TENSORRT_CACHE: directory,
  };
  return new Promise<{ code: number; output: string }>((resolve) => {
    execFile(process.execPath, args, { cwd: root, env, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ code: (error?.code as number | undefined) ?? 0, output: `${stdout}${stderr}` });
    });
  });
}

describe.skipIf(!existsSync(path.join(standIns, 'trt10')))('on stand-ins', () => {
  const flavours: [string, number][] = [
    ['trt10', 90],
    ['trt11', 90],
    ['rtx', 89],
  ];
  test.each(flavours)('the GPU suites: %s', { timeout: 600_000 }, async (...gpu) => {
    const vitest = path.join(root, 'node_modules/vitest/vitest.mjs');
    const args = [vitest, 'run', '--project', 'gpu', '--reporter', 'json'];
    // ResNet-50 takes this CPU half a minute; sessions and engines are also tested elsewhere with each flavour.
    const [flavour] = gpu;
    const short = flavour === 'trt10' ? ['-t', '^(?!.*ResNet)'] : ['generation'];
    const { code, output } = await run(...gpu, full ? args : [...args, ...short]);
    const report = JSON.parse(output.slice(output.indexOf('{"numTotalTestSuites"')).split('\n')[0]!);
    expect({ code, failed: report.numFailedTests }).toEqual({ code: 0, failed: 0 });
    expect(report.numPassedTests).toBeGreaterThanOrEqual(full || flavour === 'trt10' ? 50 : 30);
  });

  test('bench: the parts of a query on a GPU, and its memory', async () => {
    const json = path.join(directory, 'bench.json');
    const model = path.join(root, 'test/fixtures/session/linear.onnx');
    const cli = path.join(root, 'dist/apps/cli/main.js');
    const args = [cli, 'bench', model, '--batch', '1,8', '--duration', '0.1', '--json', json];
    const { code, output } = await run('trt10', 90, args);
    expect({ code, output }).toEqual({ code: 0, output: expect.stringMatching(/on cuda:0[\s\S]*H2D/) });
    const { reports } = JSON.parse(await readFile(json, 'utf8'));
    for (const { rows, batch } of reports) {
      const [{ device, runtime, deviceBytes, result }] = rows;
      expect({ device, runtime: runtime.name }).toEqual({ device: 'cuda:0', runtime: 'tensorrt' });
      expect(Object.keys(result.parts)).toEqual(['queueMs', 'enqueueMs', 'h2dMs', 'computeMs', 'd2hMs']);
      // Four floats go in, and three come out twice.
      expect(deviceBytes).toBeGreaterThanOrEqual(batch * 10 * 4);
    }
    // An engine is measured at the shapes it is tuned for, unless others are given.
    const engine = path.join(directory, 'linear.engine');
    const shapes = ['--shapes', 'x:1x4,5x4,16x4'];
    expect(await run('trt10', 90, [cli, 'build', model, '-o', engine, ...shapes])).toMatchObject({ code: 0 });
    const tuned = await run('trt10', 90, [cli, 'bench', engine, '--duration', '0.1']);
    expect(tuned).toEqual({ code: 0, output: expect.stringContaining('batch 5, on cuda:0') });
    const larger = await run('trt10', 90, [cli, 'bench', engine, '--duration', '0.1', '--batch', '17']);
    expect(larger).toEqual({ code: 1, output: expect.stringMatching(/ERR_SHAPE_MISMATCH: .*\[17,4\]/) });
  });
});
