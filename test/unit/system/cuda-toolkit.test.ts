// The CUDA parts of machines simulated by files: toolkits as NVIDIA's installer, Debian and pip lay them out.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { findCuda } from '../../../dist/system/cuda-toolkit.js';
import { readDriverFiles } from '../../../dist/system/nvidia-driver.js';
import { fileVersion } from '../../../dist/system/system-files.js';
import { tensorrtPackage } from '../../../dist/system/tensorrt-package.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), 'machine-'));
});
afterEach(() => rmSync(root, { recursive: true }));

const at = (file: string) => path.join(root, file);
function put(file: string, contents: string | Buffer = ''): void {
  mkdirSync(path.dirname(at(file)), { recursive: true });
  writeFileSync(at(file), contents);
}
function link(file: string, target: string): void {
  mkdirSync(path.dirname(at(file)), { recursive: true });
  symlinkSync(target, at(file));
}
// The nvcc of PyPI's nvidia-cuda-nvcc 13.0.48 contains this line; its `nvcc --version` prints it.
const nvcc = (line: string) =>
  Buffer.concat([
    Buffer.from([0x7f, 0x45, 0x4c, 0x46, 0, 0xff]),
    Buffer.from(`${line}\n\0release`),
    Buffer.alloc(9),
  ]);
const nvcc13 = nvcc('Cuda compilation tools, release 13.0, V13.0.48');

test('an empty machine', () => {
  expect(findCuda({ root, env: {} })).toEqual({ nvcc: null, toolkits: [], runtimes: [] });
  expect(readDriverFiles(root, {})).toEqual({
    kernelModule: undefined,
    devices: false,
    onPciBus: false,
    wsl: false,
    container: false,
  });
});

describe('toolkits', () => {
  test("NVIDIA's installer: two toolkits, one of them current", () => {
    put('usr/local/cuda-13.0/bin/nvcc', nvcc13);
    put('usr/local/cuda-13.0/version.json', '{"cuda": {"name": "CUDA SDK", "version": "13.0.0"}}');
    put('usr/local/cuda-13.0/targets/x86_64-linux/lib/libcudart.so.13.0.48');
    link('usr/local/cuda-13.0/targets/x86_64-linux/lib/libcudart.so.13', 'libcudart.so.13.0.48');
    link('usr/local/cuda-13.0/lib64', 'targets/x86_64-linux/lib');
    put('usr/local/cuda-12.4/bin/nvcc', nvcc('Cuda compilation tools, release 12.4, V12.4.131'));
    put('usr/local/cuda-12.4/version.json', '{"cuda": {"name": "CUDA SDK", "version": "12.4.1"}}');
    link('usr/local/cuda', 'cuda-13.0');
    const found = findCuda({ root, env: { PATH: at('usr/local/cuda/bin') } });
    expect(found.nvcc).toEqual({
      path: at('usr/local/cuda/bin/nvcc'),
      release: '13.0',
      version: '13.0.48',
    });
    expect(found.toolkits).toEqual([
      { path: at('usr/local/cuda-13.0'), version: '13.0.0' },
      { path: at('usr/local/cuda-12.4'), version: '12.4.1' },
    ]);
    expect(found.runtimes).toEqual([
      { path: at('usr/local/cuda-13.0/lib64/libcudart.so.13'), version: '13.0.48' },
    ]);
  });

  test('CUDA_HOME goes first, the nvcc on PATH is the one', () => {
    put('opt/cuda/bin/nvcc', nvcc13);
    put('opt/cuda/version.txt', 'CUDA Version 10.2.89\n');
    put('home/cuda/include/cuda.h', '#define CUDA_VERSION 12090\n');
    const found = findCuda({
      root,
      env: { CUDA_HOME: at('home/cuda'), PATH: `/nowhere:${at('opt/cuda/bin')}` },
    });
    expect(found.nvcc?.release).toBe('13.0');
    expect(found.toolkits).toEqual([
      { path: at('home/cuda'), version: '12.9' },
      { path: at('opt/cuda'), version: '10.2.89' },
    ]);
  });

  test("Debian's nvcc, a script before the compiler", () => {
    put('usr/bin/nvcc', '#!/bin/sh\nexec /usr/lib/nvidia-cuda-toolkit/bin/nvcc "$@"\n');
    put('usr/lib/nvidia-cuda-toolkit/bin/nvcc', nvcc('Cuda compilation tools, release 11.8, V11.8.89'));
    put('usr/lib/cuda/version.txt', 'CUDA Version 11.8.89\n');
    put('usr/lib/x86_64-linux-gnu/libcudart.so.11.8.89');
    link('usr/lib/x86_64-linux-gnu/libcudart.so.11.0', 'libcudart.so.11.8.89');
    expect(findCuda({ root, env: { PATH: at('usr/bin') } })).toEqual({
      nvcc: { path: at('usr/lib/nvidia-cuda-toolkit/bin/nvcc'), release: '11.8', version: '11.8.89' },
      toolkits: [{ path: at('usr'), version: '11.8.89' }],
      runtimes: [{ path: at('usr/lib/x86_64-linux-gnu/libcudart.so.11.0'), version: '11.8.89' }],
    });
  });

  test("pip's parts", () => {
    put('site/nvidia/cu13/lib/libcudart.so.13');
    put('site/nvidia/cu13/include/cuda.h', '#define CUDA_VERSION 13000\n');
    put('site/nvidia_cuda_runtime-13.0.48.dist-info/METADATA');
    put('site/nvidia/cuda_runtime/lib/libcudart.so.12');
    put('site/nvidia_cuda_runtime_cu12-12.9.79.dist-info/METADATA');
    expect(findCuda({ root, env: {}, sitePackages: [at('site')] })).toEqual({
      nvcc: null,
      toolkits: [{ path: at('site/nvidia/cu13'), version: '13.0' }],
      runtimes: [
        { path: at('site/nvidia/cu13/lib/libcudart.so.13'), version: '13.0.48' },
        { path: at('site/nvidia/cuda_runtime/lib/libcudart.so.12'), version: '12.9.79' },
      ],
    });
  });
});

describe("the driver's files", () => {
  test('on a machine with a GPU', () => {
    put(
      'proc/driver/nvidia/version',
      'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22)\n' +
        'GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n',
    );
    put('dev/nvidia0');
    put('sys/bus/pci/devices/0000:1b:00.0/vendor', '0x10de\n');
    put('sys/bus/pci/devices/0000:1b:00.0/class', '0x030200\n');
    expect(readDriverFiles(root, {})).toEqual({
      kernelModule: '580.65.06',
      devices: true,
      onPciBus: true,
      wsl: false,
      container: false,
    });
  });

  test("a GPU's sound device isn't a GPU, and /dev/nvidiactl isn't a device", () => {
    put('sys/bus/pci/devices/0000:1b:00.1/vendor', '0x10de\n');
    put('sys/bus/pci/devices/0000:1b:00.1/class', '0x040300\n');
    put('dev/nvidiactl');
    expect(readDriverFiles(root, {})).toMatchObject({ onPciBus: false, devices: false });
  });

  test('under WSL, in a container', () => {
    put('proc/version', 'Linux version 5.15.167.4-microsoft-standard-WSL2');
    put('dev/dxg');
    put('.dockerenv');
    expect(readDriverFiles(root, {})).toMatchObject({ wsl: true, devices: true, container: true });
  });

  test('in a pod', () => {
    expect(readDriverFiles(root, { KUBERNETES_SERVICE_HOST: '10.0.0.1' })).toMatchObject({ container: true });
  });

  test("the library's version is its file's", () => {
    put('lib/libcuda.so.580.65.06');
    link('lib/libcuda.so.1', 'libcuda.so.580.65.06');
    expect(fileVersion(at('lib/libcuda.so.1'))).toBe('580.65.06');
    put('other/libcuda.so.1');
    expect(fileVersion(at('other/libcuda.so.1'))).toBeUndefined();
    expect(fileVersion(at('nowhere'))).toBeUndefined();
  });
});

describe('the package of a TensorRT library', () => {
  test("pip's package has CUDA's version", () => {
    put('site/tensorrt_rtx_libs/libtensorrt_rtx.so.1');
    put('site/tensorrt_rtx_cu12_libs-1.7.1.116.dist-info/METADATA');
    expect(tensorrtPackage(at('site/tensorrt_rtx_libs/libtensorrt_rtx.so.1'))).toEqual({ cuda: 12 });
    put('site2/tensorrt_libs/libnvinfer.so.10');
    put('site2/tensorrt_cu13_libs-10.16.0.72.dist-info/METADATA');
    expect(tensorrtPackage(at('site2/tensorrt_libs/libnvinfer.so.10'))).toEqual({ cuda: 13 });
  });

  test("Debian's package does too, and the parser's file name has its release", () => {
    const library = 'usr/lib/x86_64-linux-gnu/libnvinfer.so.10';
    link(library, 'libnvinfer.so.10.15.1');
    put('usr/lib/x86_64-linux-gnu/libnvonnxparser.so.10.9.0');
    link('usr/lib/x86_64-linux-gnu/libnvonnxparser.so.10', 'libnvonnxparser.so.10.9.0');
    put(
      'var/lib/dpkg/status',
      'Package: libc6\nVersion: 2.36\n\nPackage: libnvinfer10\nStatus: install ok installed\nVersion: 10.15.1.29-1+cuda13.1\n',
    );
    expect(tensorrtPackage(at(library), root)).toEqual({ cuda: 13, parser: '10.9.0' });
  });

  test('a tarball has no version', () => {
    put('opt/TensorRT/lib/libnvinfer.so.10');
    expect(tensorrtPackage(at('opt/TensorRT/lib/libnvinfer.so.10'), root)).toEqual({});
  });
});
