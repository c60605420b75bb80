import type { DataType } from '../../base/data-type.js';
import { invalidArgValue } from '../../base/errors.js';
import { uniformNumbers } from '../../base/random.js';
import { Tensor } from '../../execution/tensor.js';

/** A fixed seed, so that the inputs are the same every time. */
export const randomSeed = 1;

/**
 * Makes a random tensor. Floats are uniform in [-1, 1), 16-bit floats in [0.5, 1); integers and booleans are 0 or 1,
 * which suits ids and masks.
 */
export function randomTensor(type: DataType, dims: readonly number[]): Tensor {
  const uniform = uniformNumbers(randomSeed);
  const elements = { length: dims.reduce((product, size) => product * size, 1) };
  if (elements.length > 2 ** 31) {
    throw invalidArgValue('--input', `can't be random:${dims.join('x')}: that is more than 2^31 elements.`);
  }
  switch (type) {
    case 'string':
      throw invalidArgValue('--input', "can't be random for an input of strings.");
    case 'float32':
      return new Tensor(
        type,
        Float32Array.from(elements, () => 2 * uniform() - 1),
        dims,
      );
    case 'float64':
      return new Tensor(
        type,
        Float64Array.from(elements, () => 2 * uniform() - 1),
        dims,
      );
    // The exponent of 0.5 with any mantissa.
    case 'float16':
      return new Tensor(
        type,
        Uint16Array.from(elements, () => 0x3800 | (uniform() * 0x400)),
        dims,
      );
    case 'bfloat16':
      return new Tensor(
        type,
        Uint16Array.from(elements, () => 0x3f00 | (uniform() * 0x80)),
        dims,
      );
    case 'int64':
    case 'uint64':
      return new Tensor(
        type,
        Array.from(elements, () => BigInt(Math.round(uniform()))),
        dims,
      );
    default:
      return new Tensor(
        type,
        Array.from(elements, () => Math.round(uniform())),
        dims,
      );
  }
}
