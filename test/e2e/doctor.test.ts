// The doctor on machines that the stand-in CUDA driver simulates (test/native/stand_in).
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import type { SystemReport } from 'node-tensorrt';
import { describe, expect, test } from 'vitest';

const root = path.join(import.meta.dirname, '../..');
const standIn = path.join(root, 'build/addon-tests/stand_in/cuda');
const name = 'doctor, on a stand-in driver';
// It isn't built without GoogleTest; `npm test` reports that.
const onStandIn = existsSync(path.join(standIn, 'libcuda.so.1')) ? describe : describe.skip;

async function doctor(env: Record<string, string>, ...options: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [path.join(root, 'dist/apps/cli/main.js'), 'doctor', ...options],
    { env: { ...process.env, LD_LIBRARY_PATH: standIn, STAND_IN_JAVASCRIPT: 'main', ...env } },
  );
  return stdout;
}
const report = async (env: Record<string, string>): Promise<SystemReport> =>
  JSON.parse(await doctor(env, '--json'));

onStandIn(name, () => {
  test('reports what nvidia-smi would', async () => {
    const env = {
      STAND_IN_CUDA_DEVICES: 'NVIDIA H100 80GB HBM3:90:81047,Tesla V100-SXM2-16GB:70:16384',
      STAND_IN_NVIDIA_DRIVER: '580.65.06',
      STAND_IN_CUDA_VERSION: '13000',
    };
    const found = await report(env);
    expect(found).toMatchObject({
      driver: '580.65.06',
      cuda: '13.0',
      libcuda: path.join(standIn, 'libcuda.so.1'),
      gpus: [
        {
          name: 'NVIDIA H100 80GB HBM3',
          computeCapability: '9.0',
          memory: 81559 * 2 ** 20,
          uuid: expect.stringMatching(/^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
          pciBusId: expect.stringMatching(/^00000000:[0-9A-F]{2}:00\.0$/),
          flavours: ['trt10', 'trt11'],
        },
        { name: 'Tesla V100-SXM2-16GB', computeCapability: '7.0', flavours: [] },
      ],
    });
    const text = await doctor(env);
    expect(text).toMatch(/^✗ Run engines on NVIDIA H100 80GB HBM3: .*TensorRT-RTX 1\..* does not run on it/m);
    const volta = found.findings.find(({ what }) => what.endsWith('Tesla V100-SXM2-16GB'));
    expect(volta).toMatchObject({ works: false, detail: expect.stringContaining('last TensorRT is 10.4') });
    expect(text).toMatch(/^Driver {4}580\.65\.06, CUDA 13\.0, /m);
    expect(text).toMatch(
      /^GPU 0 {5}NVIDIA H100 80GB HBM3, compute capability 9\.0, 81559 MiB, .*, runs trt10, trt11$/m,
    );
    expect(text).toMatch(/^GPU 1 {5}Tesla V100-SXM2-16GB, .*, not supported by current TensorRT$/m);
  });

  test('a GPU that runs what is installed', async () => {
    const text = await doctor({ STAND_IN_CUDA_DEVICES: 'NVIDIA GeForce RTX 4090:89:24052' });
    expect(text).toMatch(/^✓ Run engines on NVIDIA GeForce RTX 4090: TensorRT-RTX 1\..*'sm_89'/m);
  });

  test('a driver that is older than the library needs', async () => {
    const { findings } = await report({
      STAND_IN_CUDA_DEVICES: 'NVIDIA GeForce RTX 4090:89:24564',
      STAND_IN_NVIDIA_DRIVER: '535.183.01',
      STAND_IN_CUDA_VERSION: '12020',
    });
    expect(findings).toContainEqual({
      works: false,
      what: expect.stringMatching(/^TensorRT-RTX 1\..* with this driver$/),
      detail: expect.stringMatching(/CUDA 13.*580 or newer; this is 535\.183\.01 \(CUDA 12\.2\)/),
      remedy: expect.stringContaining('npx node-tensorrt libs install rtx'),
    });
  });

  test('no GPU, and hidden ones: each finding that does not work has its remedy', async () => {
    const machines: Record<string, string>[] = [
      { STAND_IN_CUDA_DEVICES: 'none' },
      { STAND_IN_CUDA_DEVICES: 'none', CUDA_VISIBLE_DEVICES: '' },
    ];
    for (const env of machines) {
      const { findings, gpus } = await report(env);
      expect(gpus).toEqual([]);
      const gpu = findings.find(({ what }) => what === 'Run engines on a GPU');
      expect(gpu).toMatchObject({ works: false, remedy: expect.stringMatching(/./) });
      if ('CUDA_VISIBLE_DEVICES' in env) expect(gpu?.remedy).toBe('Unset CUDA_VISIBLE_DEVICES.');
    }
  });
});

test("if the addon doesn't load, that is the first finding", async () => {
  const found = await report({ LD_LIBRARY_PATH: '', NODE_TENSORRT_BINARY: '/nowhere.node' });
  expect(found).toMatchObject({
    addon: null,
    findings: [
      {
        works: false,
        what: 'Load the native addon',
        detail: expect.stringMatching(/^Could not load the native addon/),
        remedy: 'Correct NODE_TENSORRT_BINARY, or unset it.',
      },
    ],
  });
});
