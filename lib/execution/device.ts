import { describe, invalidArgValue, TensorRTError } from '../base/errors.js';
import { findGpu, type Gpu } from '../system/gpu.js';

/** A parsed `options.device`. */
export interface DeviceChoice {
  /** CUDA's number of the GPU; undefined for the CPU. */
  readonly ordinal: number | undefined;
  /** True if the CPU may be used when no GPU works. */
  readonly auto: boolean;
}

/**
 * The result of `make` with its GPU and the reason for choosing it; or, if the model is to run on the CPU, the reason
 * for that.
 */
export type Placement<Made> =
  | { readonly made: Made; readonly gpu: Gpu; readonly why: string }
  | {
      readonly made?: undefined;
      readonly why: string;
      /** The error of the GPU that was tried; undefined if none was tried. */
      readonly error?: TensorRTError;
    };

/**
 * The errors that send a model to the CPU when the device is 'auto': no GPU, no library, or one that can't compile it.
 */
const cpuInstead: ReadonlySet<string> = new Set([
  'ERR_NO_GPU',
  'ERR_LIBRARY_NOT_FOUND',
  'ERR_LIBRARY_UNSUPPORTED',
  'ERR_MODEL_UNSUPPORTED',
  'ERR_BUILD_FAILED',
]);

/** @throws RangeError ERR_INVALID_ARG_VALUE */
export function deviceOption(device: unknown, path: string): DeviceChoice {
  if (device === 'cpu') return { ordinal: undefined, auto: false };
  if (device === undefined || device === 'auto') return { ordinal: 0, auto: true };
  const cuda = typeof device === 'string' ? /^cuda(?::(\d{1,3}))?$/.exec(device) : null;
  if (cuda) return { ordinal: Number(cuda[1] ?? 0), auto: false };
  throw invalidArgValue(
    path,
    `must be 'auto', 'cpu', 'cuda' or 'cuda:' and a number, not ${describe(device)}.`,
  );
}

/**
 * Calls `make` with the chosen GPU. With 'auto', a GPU that is missing or can't run the model isn't an error, but a
 * reason to use the CPU.
 * @throws (rejects) TensorRTError ERR_NO_GPU, whatever `make` throws; the signal's reason
 */
export async function placeOnGpu<Made>(
  { ordinal, auto }: DeviceChoice,
  signal: AbortSignal | undefined,
  make: (gpu: Gpu) => Promise<Made>,
): Promise<Placement<Made>> {
  if (ordinal === undefined) return { why: 'options.device asked for it' };
  try {
    const gpu = await findGpu(ordinal);
    const why = auto ? `there is ${gpu.label}` : `options.device asked for it: ${gpu.label}`;
    return { made: await make(gpu), gpu, why };
  } catch (error) {
    signal?.throwIfAborted();
    const instead = auto && error instanceof TensorRTError && cpuInstead.has(error.code);
    if (!instead) throw error;
    return { why: error.message, error };
  }
}
