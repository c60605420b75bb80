// The doctor's findings: for each state of a machine, the finding and its remedy.
import { describe, expect, test } from 'vitest';
import { diagnose, type Facts } from '../../../../dist/apps/doctor/diagnosis.js';

const gpu = {
  name: 'NVIDIA H100 80GB HBM3',
  computeCapability: [9, 0] as [number, number],
  memory: 81559 * 2 ** 20,
  uuid: 'GPU-00102030-4050-6070-8090-a0b0c0d0e0f0',
  pciBusId: '0000:1B:00.0',
};
const libcuda = '/usr/lib/x86_64-linux-gnu/libcuda.so.1';
const trt10 = {
  flavour: 'trt10',
  version: '10.15.1',
  path: '/opt/trt/libnvinfer.so.10',
  source: 'system',
} as const;
const rtx = {
  flavour: 'rtx',
  version: '1.7.1',
  path: '/opt/rtx/libtensorrt_rtx.so.1',
  source: 'libs install',
} as const;

const files = { kernelModule: '580.65.06', devices: true, onPciBus: true, wsl: false, container: false };
const bare = { kernelModule: undefined, devices: false, onPciBus: false, wsl: false, container: false };
const working: Facts = {
  files,
  cuda: { library: libcuda, driver: '580.65.06', cudaVersion: '13.0', gpus: [gpu] },
  libcuda: '580.65.06',
  tensorrt: [trt10],
};

const withGpu = (computeCapability: [number, number], more: Partial<Facts> = {}): Facts => ({
  ...working,
  cuda: { ...working.cuda, gpus: [{ ...gpu, computeCapability }] } as Facts['cuda'],
  ...more,
});
const failing = (error: string, more: Partial<Facts> = {}, library = libcuda): Facts => ({
  ...working,
  cuda: { library, driver: '580.65.06', cudaVersion: '13.0', gpus: [], error },
  ...more,
});
const cuInit = (name: string, code: number) => `The CUDA driver's cuInit failed with ${name} (${code}).`;
const noDriver = (more: Partial<Facts['files']>): Facts => ({
  files: { ...bare, ...more },
  cuda: { library: '', driver: '', cudaVersion: '', gpus: [], error: 'There is no NVIDIA driver here.' },
  tensorrt: [],
});

describe('a driver that does not work', () => {
  test.each<[string, Facts, RegExp, RegExp]>([
    ['no driver', noDriver({}), /^There is no NVIDIA driver here\.$/, /options\.target/],
    ['WSL without the driver of Windows', noDriver({ wsl: true }), /WSL 2/, /driver for Windows/],
    [
      'a container without its GPU',
      noDriver({ container: true, kernelModule: '580.65.06' }),
      /no access to its driver/,
      /--gpus all/,
    ],
    [
      'a container on a machine without GPU',
      noDriver({ container: true }),
      /^There is no/,
      /options\.target/,
    ],
    [
      'a kernel module alone',
      noDriver({ kernelModule: '580.65.06' }),
      /kernel module 580\.65\.06 is loaded/,
      /libnvidia-compute-580\)/,
    ],
    ['a GPU alone', noDriver({ onPciBus: true }), /on the PCI bus, but no driver/, /driver 580 or newer/],
    [
      'an updated library before a restart',
      failing(cuInit('CUDA_ERROR_SYSTEM_DRIVER_MISMATCH', 803), { libcuda: '580.95.05' }),
      /Driver\/library version mismatch: the kernel module is 580\.65\.06.* is 580\.95\.05/,
      /^Restart the machine/,
    ],
    [
      'the same in a container',
      failing(cuInit('CUDA_ERROR_SYSTEM_DRIVER_MISMATCH', 803), {
        libcuda: '580.95.05',
        files: { ...files, container: true },
      }),
      /Driver\/library version mismatch/,
      /^Recreate the container/,
    ],
    [
      'a mismatch that no file shows',
      failing(cuInit('CUDA_ERROR_SYSTEM_DRIVER_MISMATCH', 803), { libcuda: undefined }),
      /Driver\/library version mismatch/,
      /^Restart the machine/,
    ],
    [
      'a stub on LD_LIBRARY_PATH',
      failing(cuInit('CUDA_ERROR_STUB_LIBRARY', 34), {}, '/usr/local/cuda/lib64/stubs/libcuda.so.1'),
      /is a stub/,
      /^Remove \/usr\/local\/cuda\/lib64\/stubs from LD_LIBRARY_PATH\.$/,
    ],
    [
      'a Linux driver inside WSL',
      failing(cuInit('CUDA_ERROR_NO_DEVICE', 100), { files: { ...bare, wsl: true, devices: true } }),
      /hides it/,
      /Remove the Linux driver/,
    ],
    [
      'cuda-compat on a GeForce',
      failing(
        cuInit('CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE', 804),
        { libcuda: '580.95.05', files: { ...files, kernelModule: '535.183.01' } },
        '/usr/local/cuda/compat/libcuda.so.1',
      ),
      /cuda-compat/,
      /compat folder/,
    ],
    [
      'NVSwitch without its manager',
      failing(cuInit('CUDA_ERROR_SYSTEM_NOT_READY', 802)),
      /fabric manager/,
      /nvidia-fabricmanager/,
    ],
    [
      'hidden GPUs',
      failing(cuInit('CUDA_ERROR_NO_DEVICE', 100), { visibleDevices: '-1' }),
      /CUDA_VISIBLE_DEVICES='-1' hides/,
      /^Unset CUDA_VISIBLE_DEVICES/,
    ],
    [
      'a container without device files',
      failing(cuInit('CUDA_ERROR_NO_DEVICE', 100), { files: { ...files, container: true, devices: false } }),
      /no GPU's device files/,
      /--gpus all/,
    ],
    [
      'an unloaded kernel module',
      failing(cuInit('CUDA_ERROR_UNKNOWN', 999), { files: { ...files, kernelModule: undefined } }),
      /kernel module is not loaded/,
      /modprobe nvidia/,
    ],
    ['no GPU', failing('The CUDA driver reports no GPU.'), /^The CUDA driver reports no GPU\.$/, /lspci/],
    [
      'anything else',
      failing(cuInit('CUDA_ERROR_UNKNOWN', 999)),
      /^The CUDA driver's cuInit failed/,
      /dmesg/,
    ],
  ])('%s', (_, facts, detail, remedy) => {
    expect(diagnose(facts)).toEqual([
      {
        works: false,
        what: 'Run engines on a GPU',
        detail: expect.stringMatching(detail),
        remedy: expect.stringMatching(remedy),
      },
    ]);
  });
});

describe('GPUs and flavours', () => {
  test.each<[string, Facts, RegExp, RegExp]>([
    ['a V100', withGpu([7, 0]), /7\.0.*last TensorRT is 10\.4/, /device: 'cpu'/],
    ['a P100', withGpu([6, 0]), /6\.0 is not supported: the TensorRT flavours here/, /device: 'cpu'/],
    [
      'an H100 with TensorRT-RTX',
      withGpu([9, 0], { tensorrt: [rtx] }),
      /does not run on it/,
      /NODE_TENSORRT_TENSORRT_PATH/,
    ],
    ['an RTX 4090 with nothing', withGpu([8, 9], { tensorrt: [] }), /none was found/, /libs install rtx/],
    [
      'a driver older than CUDA 12',
      withGpu([8, 6], {
        cuda: { ...working.cuda, driver: '470.256.02', cudaVersion: '11.4' } as Facts['cuda'],
      }),
      /Driver 470\.256\.02 is too old/,
      /^Update the driver to 580/,
    ],
  ])('%s', (_, facts, detail, remedy) => {
    expect(diagnose(facts)[0]).toEqual({
      works: false,
      what: 'Run engines on NVIDIA H100 80GB HBM3',
      detail: expect.stringMatching(detail),
      remedy: expect.stringMatching(remedy),
    });
  });

  test('a GPU, a driver and a library that work together', () => {
    expect(diagnose(working)).toEqual([
      {
        works: true,
        what: 'Run engines on NVIDIA H100 80GB HBM3',
        detail: "TensorRT 10.15.1, for compute capability 9.0 (options.target: 'sm_90')",
      },
    ]);
  });

  test('a library that runs on the GPU, but not with the driver', () => {
    const cuda = { ...working.cuda, driver: '535.183.01', cudaVersion: '12.2' } as Facts['cuda'];
    const newer = { ...trt10, cuda: 13 as const };
    const older = { ...trt10, cuda: 12 as const, path: '/opt/trt-cuda12/libnvinfer.so.10' };
    expect(diagnose({ ...working, cuda, tensorrt: [newer] })[0]).toMatchObject({
      works: false,
      detail: 'Compute capability 9.0: TensorRT 10.15.1 runs on it, but not with this driver.',
      remedy: expect.stringContaining('580'),
    });
    expect(diagnose({ ...working, cuda, tensorrt: [newer, older] })[0]).toMatchObject({ works: true });
  });

  test('each GPU has a finding', () => {
    const two = { ...working.cuda, gpus: [gpu, { ...gpu, name: 'Tesla V100', computeCapability: [7, 0] }] };
    const findings = diagnose({ ...working, cuda: two as Facts['cuda'] });
    expect(findings.map(({ what }) => what)).toEqual([
      'Run engines on NVIDIA H100 80GB HBM3',
      'Run engines on Tesla V100',
    ]);
  });
});

describe('conflicts', () => {
  const conflicts = (facts: Facts) => diagnose(facts).slice(1);
  const driver = (version: string, cudaVersion: string, library = libcuda) =>
    ({ ...working.cuda, driver: version, cudaVersion, library }) as Facts['cuda'];

  test('a machine without problems has none', () => {
    expect(conflicts({ ...working, tensorrt: [{ ...trt10, cuda: 13, parser: '10.15.1' }] })).toEqual([]);
  });

  test.each<[string, Facts['cuda'], 12 | 13, RegExp | undefined]>([
    ['CUDA 13 on r580', driver('580.65.06', '13.0'), 13, undefined],
    [
      'CUDA 13 on r535',
      driver('535.183.01', '12.2'),
      13,
      /^Update the driver to 580 or newer, or install .* CUDA 12\.$/,
    ],
    ['CUDA 12 on r535', driver('535.183.01', '12.2'), 12, undefined],
    ['CUDA 12 on r530', driver('530.30.02', '12.1'), 12, /^Update the driver to 535 or newer\.$/],
    ['CUDA 13 on r530', driver('530.30.02', '12.1'), 13, /^Update the driver to 580 or newer\.$/],
    [
      'CUDA 13 through cuda-compat',
      driver('535.183.01', '13.0', '/usr/local/cuda/compat/libcuda.so.1'),
      13,
      undefined,
    ],
  ])('a library for %s', (_, cuda, major, remedy) => {
    const found = conflicts({ ...working, cuda, tensorrt: [{ ...trt10, cuda: major }] });
    expect(found).toEqual(
      remedy ? [expect.objectContaining({ works: false, remedy: expect.stringMatching(remedy) })] : [],
    );
  });

  test('a library and a parser of different releases', () => {
    const facts = { ...working, tensorrt: [{ ...trt10, parser: '10.9.0' }] };
    expect(conflicts(facts)).toEqual([
      {
        works: false,
        what: 'TensorRT 10.15.1 and its ONNX parser',
        detail:
          '/opt/trt/libnvinfer.so.10 is 10.15.1, and the parser beside it 10.9.0: they must be from the same release.',
        remedy: 'Install both from the same NVIDIA package.',
      },
    ]);
  });

  test('two versions of a flavour', () => {
    const shadowed = { ...trt10, version: '10.9.0', path: '/usr/lib/x86_64-linux-gnu/libnvinfer.so.10' };
    const used = { ...trt10, source: 'LD_LIBRARY_PATH' };
    expect(conflicts({ ...working, tensorrt: [used, rtx, shadowed] })).toEqual([
      {
        works: true,
        what: 'Which TensorRT 10 is used',
        detail:
          '10.15.1 in /opt/trt/libnvinfer.so.10 (LD_LIBRARY_PATH) is used, and 10.9.0 in ' +
          '/usr/lib/x86_64-linux-gnu/libnvinfer.so.10 (system) is not.',
        remedy: 'Remove one, or name one: NODE_TENSORRT_TENSORRT_PATH=/opt/trt',
      },
    ]);
    expect(conflicts({ ...working, tensorrt: [used, rtx] })).toEqual([]);
  });

  test('GPUs that are hidden', () => {
    expect(conflicts({ ...working, visibleDevices: '0' })).toEqual([
      expect.objectContaining({
        works: true,
        detail: expect.stringContaining('CUDA_VISIBLE_DEVICES=0 leaves 1'),
      }),
    ]);
  });
});
