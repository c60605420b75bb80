import { type DataType, dataTypes } from '../base/data-type.js';
import { describe, invalidArgType, invalidArgValue, shapeMismatch } from '../base/errors.js';
import { checkAttached } from '../base/options.js';
import type { TensorLike } from '../base/tensor-like.js';
import { arrayName, arrayTypes, isBits, type NumericArray } from './tensor-elements.js';
import { deviceTensorOf } from './tensor-memory.js';

/** A {@link TensorLike} whose type, dimensions and data were checked. */
interface CheckedTensor extends TensorLike {
  readonly type: DataType;
}

/**
 * Checks dimensions and returns how many elements they hold (1 for a scalar, `[]`).
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function elementCount(dims: unknown, path: string): number {
  if (!Array.isArray(dims)) throw invalidArgType(path, 'an array of integers', dims);
  let count = 1;
  for (let i = 0; i < dims.length; i++) {
    const dim: unknown = dims[i];
    if (typeof dim !== 'number') throw invalidArgType(`${path}[${i}]`, 'a number', dim);
    if (!Number.isSafeInteger(dim) || dim < 0) {
      throw invalidArgValue(`${path}[${i}]`, `must be an integer of at least 0, not ${dim}.`);
    }
    count *= dim;
  }
  if (!Number.isSafeInteger(count)) throw invalidArgValue(path, `[${dims}] holds too many elements.`);
  return count;
}

/**
 * Checks that `data` fits `type` and has as many elements as `dims` hold.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE or ERR_SHAPE_MISMATCH
 */
export function checkTensor(tensor: TensorLike, path: string): asserts tensor is CheckedTensor {
  if (typeof tensor !== 'object' || tensor === null) throw invalidArgType(path, 'a tensor', tensor);
  // Native made it, so it is complete.
  if (deviceTensorOf(tensor)) return;
  const { type, dims } = tensor;
  const data = readData(tensor, `${path}.data`);
  checkType(type, `${path}.type`);
  const count = elementCount(dims, `${path}.dims`);
  let length: number;
  if (type === 'string') {
    if (!Array.isArray(data)) throw invalidArgType(`${path}.data`, 'an array of strings', data);
    const bad = data.findIndex((element) => typeof element !== 'string');
    if (bad >= 0) throw invalidArgType(`${path}.data[${bad}]`, 'a string', data[bad]);
    // ONNX Runtime ends a string at its first zero.
    const cut = data.findIndex((element) => element.includes('\0'));
    if (cut >= 0) throw invalidArgValue(`${path}.data[${cut}]`, 'has a zero character in it.');
    length = data.length;
  } else {
    const { name } = arrayTypes[type];
    // Arrays of another realm are recognised by name.
    if (!(data instanceof arrayTypes[type]) && arrayName(data) !== name) {
      const isClamped = type === 'uint8' && arrayName(data) === 'Uint8ClampedArray';
      if (!isClamped && !isBits(type, data)) {
        throw invalidArgType(`${path}.data`, `a ${name} for type ${type}`, data);
      }
    }
    length = (data as NumericArray).length;
    if (length === 0) checkAttached((data as NumericArray).buffer, `${path}.data`);
  }
  if (length !== count) {
    throw shapeMismatch(`${path}.data has ${length} elements, but dims [${dims}] hold ${count}.`);
  }
}

/**
 * Reads the elements, even if another library's `data` throws, as onnxruntime-common's does for a tensor that is on a
 * GPU or disposed.
 */
function readData(tensor: TensorLike, path: string): TensorLike['data'] {
  try {
    return tensor.data;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause) throw cause;
    throw invalidArgValue(path, `can't be read: ${(cause as Error).message}`, { cause });
  }
}

export function checkType(type: unknown, path: string): asserts type is DataType {
  if (typeof type === 'string' && Object.hasOwn(dataTypes, type)) return;
  throw invalidArgValue(path, `must be one of ${Object.keys(dataTypes)}, not ${describe(type)}.`);
}
