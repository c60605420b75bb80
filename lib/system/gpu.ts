import { TensorRTError } from '../base/errors.js';
import type { NativeGpu } from './native/cuda.js';
import { native } from './native.js';

/** A GPU that a session can run on. */
export interface Gpu {
  /** `cuda:0`. */
  readonly device: string;
  /** CUDA's device number. */
  readonly ordinal: number;
  /** `NVIDIA GeForce RTX 4090 (sm_89)`. */
  readonly label: string;
  /** Identifies the GPU uniquely: `GPU-…`, or its label if the driver is too old to give one. */
  readonly identity: string;
}

/**
 * Finds the GPU with CUDA's device number `ordinal`.
 * @throws (rejects) TensorRTError ERR_NO_GPU
 */
export async function findGpu(ordinal: number): Promise<Gpu> {
  const { gpus, error } = await native().probeCuda();
  if (error !== undefined) throw new TensorRTError('ERR_NO_GPU', error);
  const found: NativeGpu | undefined = gpus[ordinal];
  if (!found) {
    const last = gpus.length - 1;
    const there = last === 0 ? 'cuda:0 is the only one' : `there are cuda:0 to cuda:${last}`;
    throw new TensorRTError('ERR_NO_GPU', `This machine has no cuda:${ordinal}; ${there}.`);
  }
  const label = `${found.name} (sm_${found.computeCapability.join('')})`;
  return { device: `cuda:${ordinal}`, ordinal, label, identity: found.uuid || label };
}

/** The compute capability as one number: 89 for sm_89. */
export function numberOf({ computeCapability: [major, minor] }: NativeGpu): number {
  return major * 10 + minor;
}
