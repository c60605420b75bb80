import path from 'node:path';
import { cacheDirectory } from './files/cache-directory.js';
import { readdir } from './files/promises.js';
import { kernelModuleVersion } from './nvidia-driver.js';
import { type CudaMajor, newestCuda } from './nvidia-support.js';

/** The folder of everything that `libs install` installs, each installation in `<cache>/lib/<name>`. */
export function installedDirectory(): string {
  return path.join(cacheDirectory(), 'lib');
}

/** The names of finished installations. Locks and unfinished installations are left out. */
export async function installedNames(): Promise<string[]> {
  const names = await readdir(installedDirectory()).catch(() => [] as string[]);
  return names.filter((name) => !name.includes('.partial-') && !name.endsWith('.lock'));
}

/** The folder with the libraries in NVIDIA's Python packages of TensorRT-RTX. */
export const rtxFolder = 'tensorrt_rtx_libs';

/** The CUDA major version to install for: `NODE_TENSORRT_CUDA`, or else the newest that the driver supports. */
export function cudaHere(): CudaMajor {
  const named = process.env.NODE_TENSORRT_CUDA;
  if (named) return named === '12' ? 12 : 13;
  const driver = kernelModuleVersion();
  return driver !== undefined && newestCuda(driver) === 12 ? 12 : 13;
}
