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

/** One of the libraries that compile and run engines; engines of one are not those of another. */
export type Flavour = 'trt10' | 'trt11' | 'rtx';

/** What NVIDIA calls the product that a flavour is a major version of. */
export function productOf(flavour: Flavour): 'TensorRT' | 'TensorRT-RTX' {
  return flavour === 'rtx' ? 'TensorRT-RTX' : 'TensorRT';
}

/** TensorRT-RTX has a list (of 8.0 its library says so, its documents don't), TensorRT a range. */
const gpusOfFlavour: Record<Flavour, readonly string[] | { from: string; to?: string }> = {
  trt10: { from: '7.5', to: '12.1' },
  trt11: { from: '7.5' },
  rtx: ['7.5', '8.0', '8.6', '8.9', '12.0', '12.1'],
};

/** Whether a flavour runs on GPUs of a compute capability, such as '8.9'. */
export function runsOn(flavour: Flavour, computeCapability: string): boolean {
  const gpus = gpusOfFlavour[flavour];
  if (!('from' in gpus)) return gpus.includes(computeCapability);
  const { from, to } = gpus;
  return versionAtLeast(computeCapability, from) && (!to || versionAtLeast(to, computeCapability));
}
