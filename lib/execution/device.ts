import { describe, invalidArgValue, TensorRTError } from '../base/errors.js';
import { findGpu, type Gpu } from '../system/gpu.js';

/** The device that `options.device` asks for. */
export interface DeviceChoice {
  /** CUDA's number of the GPU; undefined for the CPU. */
  readonly ordinal: number | undefined;
  /** May it be the CPU, where there is no GPU that works? */
  readonly auto: boolean;
}

/** The thing that a GPU will run, the GPU, and why that one was chosen; or why it will be the CPU. */
export type Placement<Made> =
  | { readonly made: Made; readonly gpu: Gpu; readonly why: string }
  | {
      readonly made?: undefined;
      readonly why: string;
      /** The reason why the GPU can't be used; undefined if none was asked for. */
      readonly error?: TensorRTError;
    };

/**
 * Errors after which a model runs on the CPU if that is allowed: there is no GPU, no library, or none that can compile
 * it.
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
 * Has `make` make what the chosen GPU is to run. Where the CPU will do, a GPU that is missing, or can't run the model, is
 * a reason to take it rather than an error.
 * @throws (rejects) TensorRTError ERR_NO_GPU, what `make` throws; the signal's reason
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
