import path from 'node:path';
import { cacheDirectory } from './files/cache-directory.js';
import { readdir } from './files/promises.js';
import { kernelModuleVersion } from './nvidia-driver.js';
import { type CudaMajor, newestCuda } from './nvidia-support.js';

/** Libraries that `libs install` installed lie under `<cache>/lib/<name>`. */
export function installedDirectory(): string {
  return path.join(cacheDirectory(), 'lib');
}

/** Entries of the cache, without an installation's lock, and those that one is still writing. */
export async function installedNames(): Promise<string[]> {
  const names = await readdir(installedDirectory()).catch(() => [] as string[]);
  return names.filter((name) => !name.includes('.partial-') && !name.endsWith('.lock'));
}

/** The folder that holds the libraries in NVIDIA's packages of TensorRT-RTX for Python. */
export const rtxFolder = 'tensorrt_rtx_libs';

/** The CUDA major version to install for: what `NODE_TENSORRT_CUDA` names, else what the driver here runs. */
export function cudaHere(): CudaMajor {
  const named = process.env.NODE_TENSORRT_CUDA;
  if (named) return named === '12' ? 12 : 13;
  const driver = kernelModuleVersion();
  return driver !== undefined && newestCuda(driver) === 12 ? 12 : 13;
}
