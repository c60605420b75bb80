import { invalidArgType, TensorRTError } from '../../base/errors.js';
import { fromBfloat16Bits, fromFloat16Bits } from '../../base/float16.js';
import { viewAs } from '../format/initializer.js';
import type { Safetensors } from '../format/safetensors.js';

/** Where a graph that is built takes its weights from. */
export interface Weights {
  /**
   * The weight of a name, row-major; `dims` are those that the graph needs.
   * @throws TensorRTError ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED
   */
  get(name: string, dims: readonly number[]): Float32Array;
}

/** Weights of a safetensors file (F32, F16 or BF16), as float32. */
export class SafetensorsWeights implements Weights {
  readonly #file: Safetensors;
  readonly #nameInFile: (name: string) => string;

  /** `nameInFile`: what the file calls a weight, where that is another name. */
  constructor(file: Safetensors, nameInFile = (name: string) => name) {
    this.#file = file;
    this.#nameInFile = nameInFile;
  }

  get(name: string, dims: readonly number[]): Float32Array {
    const fullName = this.#nameInFile(name);
    const tensor = this.#file.tensors.get(fullName);
    if (tensor === undefined) {
      throw new TensorRTError('ERR_MODEL_INVALID', `model.safetensors has no weight "${fullName}".`);
    }
    if (tensor.dims.length !== dims.length || dims.some((d, i) => d !== tensor.dims[i])) {
      throw new TensorRTError(
        'ERR_MODEL_INVALID',
        `Weight "${fullName}" has shape [${tensor.dims}]; by its configuration it is [${dims}].`,
      );
    }
    switch (tensor.type) {
      case 'float32':
        return viewAs('float32', tensor.bytes) as Float32Array;
      case 'float16':
        return fromFloat16Bits(viewAs('float16', tensor.bytes) as Uint16Array);
      case 'bfloat16':
        return fromBfloat16Bits(viewAs('bfloat16', tensor.bytes) as Uint16Array);
      default:
        throw new TensorRTError(
          'ERR_MODEL_UNSUPPORTED',
          `Weight "${fullName}" is ${tensor.dtype}; graphs are built of F32, F16 and BF16.`,
        );
    }
  }
}

/**
 * Numbers of a normal distribution with mean 0 and deviation 1; the same seed gives the same numbers. Box and Muller's
 * transformation (1958) of Marsaglia's 32-bit xorshift (Journal of Statistical Software 8(14), 2003).
 */
export function normalNumbers(seed: number): () => number {
  const uniform = uniformNumbers(seed);
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** Numbers between 0 and 1, neither of them included; the same seed gives the same numbers. */
export function uniformNumbers(seed: number): () => number {
  // A xorshift's state must not be 0, and seeds next to each other should not give sequences that are alike.
  let state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) - 0.5) / 2 ** 32;
  };
  for (let i = 0; i < 8; i++) next();
  return next;
}

/** @throws TypeError ERR_INVALID_ARG_TYPE */
export function checkSeed(seed: unknown, path: string): asserts seed is number {
  if (!Number.isSafeInteger(seed)) throw invalidArgType(path, 'a whole number', seed);
}
