/**
 * NVIDIA's support matrices: which drivers run which CUDA, and which GPUs TensorRT's flavours run on. Sources: the CUDA
 * Toolkit's release notes (minimum driver of a major version) and TensorRT's and TensorRT-RTX's support matrices.
 */

/** True if `version` isn't older than `floor`: '2.36' ≥ '2.34'. Missing parts count as zero. */
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

/** The CUDA major versions that libraries and binaries exist for. */
export type CudaMajor = 12 | 13;

/** The oldest Linux driver that runs programs of a CUDA major version. */
const driverOfCuda: Record<CudaMajor, string> = { 12: '525.60.13', 13: '580.65.06' };

/** The newest CUDA major version that a driver supports; undefined if it is older than the versions known here. */
export function newestCuda(driver: string): CudaMajor | undefined {
  if (versionAtLeast(driver, driverOfCuda[13])) return 13;
  return versionAtLeast(driver, driverOfCuda[12]) ? 12 : undefined;
}

/** The driver branch that a TensorRT library of a CUDA major version requires: '535' means r535 or newer. */
export const driverOfTensorRT: Record<CudaMajor, string> = { 12: '535', 13: '580' };

/** A library that compiles and runs engines. Engines of one flavour don't run with another. */
export type Flavour = 'trt10' | 'trt11' | 'rtx';

export const flavourNames: Record<Flavour, string> = {
  trt10: 'TensorRT 10',
  trt11: 'TensorRT 11',
  rtx: 'TensorRT-RTX',
};

/** NVIDIA's name of the product that a flavour is a major version of. */
export function productOf(flavour: Flavour): 'TensorRT' | 'TensorRT-RTX' {
  return flavour === 'rtx' ? 'TensorRT-RTX' : 'TensorRT';
}

/** TensorRT-RTX supports a list of GPUs (8.0 is in its library but not in its documentation), TensorRT a range. */
const gpusOfFlavour: Record<Flavour, readonly string[] | { from: string; to?: string }> = {
  trt10: { from: '7.5', to: '12.1' },
  trt11: { from: '7.5' },
  rtx: ['7.5', '8.0', '8.6', '8.9', '12.0', '12.1'],
};

/** True if a flavour runs on GPUs of a compute capability, such as '8.9'. */
export function runsOn(flavour: Flavour, computeCapability: string): boolean {
  const gpus = gpusOfFlavour[flavour];
  if (!('from' in gpus)) return gpus.includes(computeCapability);
  const { from, to } = gpus;
  return versionAtLeast(computeCapability, from) && (!to || versionAtLeast(to, computeCapability));
}

/** The flavours that run on GPUs of a compute capability. */
export function flavoursFor(computeCapability: string): Flavour[] {
  return (Object.keys(gpusOfFlavour) as Flavour[]).filter((flavour) => runsOn(flavour, computeCapability));
}

/** The last TensorRT release for GPUs that no flavour supports any more, if known: V100 and the other GPUs of 7.0. */
export const lastTensorRT: Readonly<Record<string, string>> = { '7.0': '10.4' };

/** 89 for 'sm_89'; undefined if `name` isn't a compute capability. */
export function targetNumber(name: string): number | undefined {
  const digits = /^sm_(\d{2,3})$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}
