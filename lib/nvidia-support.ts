/**
 * What NVIDIA supports with what, as tables: drivers and CUDA, TensorRT's flavours and GPUs. Sources: the CUDA
 * Toolkit's release notes ("CUDA driver versions"), TensorRT's and TensorRT-RTX's support matrices.
 */

/** '2.36' ≥ '2.34'. Missing parts are zero. */
export function versionAtLeast(version: string, floor: string): boolean {
  const [found, wanted] = [version, floor].map((text) =>
    text.split('.').map((part) => Number.parseInt(part, 10)),
  );
  for (let i = 0; i < Math.max(found!.length, wanted!.length); ++i) {
    const difference = (found![i] ?? 0) - (wanted![i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}

/** The oldest driver for Linux that runs programs of a CUDA major version. */
export const driverFloors = { 12: '525.60.13', 13: '580.65.06' } as const;

/** The newest CUDA major version that a driver runs; undefined where it is older than all that are known here. */
export function newestCuda(driver: string): 12 | 13 | undefined {
  if (versionAtLeast(driver, driverFloors[13])) return 13;
  return versionAtLeast(driver, driverFloors[12]) ? 12 : undefined;
}
