import { TensorRTError } from '../../base/errors.js';
import { fromBfloat16Bits, fromFloat16Bits } from '../../base/float16.js';
import { viewAs } from '../format/initializer.js';
import type { Safetensors } from '../format/safetensors.js';

/** The source of the weights of a graph that is being built. */
export interface Weights {
  /**
   * Returns the weight with a name, row-major. `dims` are the dimensions that the graph needs.
   * @throws TensorRTError ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED
   */
  get(name: string, dims: readonly number[]): Float32Array;
}

/** Weights of a safetensors file (F32, F16 or BF16), as float32. */
export class SafetensorsWeights implements Weights {
  readonly #file: Safetensors;
  readonly #nameInFile: (name: string) => string;

  /** @param nameInFile returns the file's name for a weight. Defaults to the weight's own name */
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
