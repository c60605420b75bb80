import { type DataType, dataTypes } from '../base/data-type.js';
import { describe, invalidArgType, invalidArgValue } from '../base/errors.js';
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from '../base/float16.js';
import { checkAttached, isDetached } from '../base/options.js';
import type { DataOf } from './tensor-types.js';

export type NumericArray = ArrayBufferView & { readonly length: number; [index: number]: number | bigint };
type NumericArrayConstructor = {
  new (length: number): NumericArray;
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): NumericArray;
};

// Node 24 has Float16Array. Older versions keep float16 bit patterns in a Uint16Array.
const float16Array = (globalThis as { Float16Array?: NumericArrayConstructor }).Float16Array;

export const arrayTypes = {
  float32: Float32Array,
  float16: float16Array ?? Uint16Array,
  bfloat16: Uint16Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as unknown as Readonly<Record<Exclude<DataType, 'string'>, NumericArrayConstructor & { name: string }>>;

const inferredTypes: Readonly<Record<string, DataType>> = {
  Float32Array: 'float32',
  Float16Array: 'float16',
  Float64Array: 'float64',
  Int8Array: 'int8',
  Uint8Array: 'uint8',
  Uint8ClampedArray: 'uint8',
  Int16Array: 'int16',
  Uint16Array: 'uint16',
  Int32Array: 'int32',
  Uint32Array: 'uint32',
  BigInt64Array: 'int64',
  BigUint64Array: 'uint64',
};

const arrayTag = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  Symbol.toStringTag,
)!.get!;

/**
 * The name of a typed array's type, 'Float32Array' …, also for arrays of another realm and for subclasses (Buffer);
 * undefined for anything else.
 */
export function arrayName(data: unknown): string | undefined {
  return arrayTag.call(data) as string | undefined;
}

/** A typed array over `buffer` for elements of `type`. */
export function typedArray<T extends Exclude<DataType, 'string'>>(type: T, buffer: ArrayBuffer): DataOf<T> {
  return new arrayTypes[type](buffer) as unknown as DataOf<T>;
}

/** The smallest and largest value of an integer type. */
function integerRange(type: DataType): readonly [min: bigint, max: bigint] {
  const bits = BigInt(8 * dataTypes[type].byteSize);
  return type.startsWith('u') ? [0n, 2n ** bits - 1n] : [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n];
}

/**
 * Makes a typed array from elements given one by one. Values that would wrap around or be cut off are refused.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
function fromElements(type: Exclude<DataType, 'string'>, elements: readonly unknown[]): NumericArray {
  const array = new arrayTypes[type](elements.length);
  if (type === 'int64' || type === 'uint64') {
    const [min, max] = integerRange(type);
    for (let i = 0; i < elements.length; i++) array[i] = bigInteger(type, elements[i], i, min, max);
  } else if (type === 'bool') {
    for (let i = 0; i < elements.length; i++) {
      const element = elements[i];
      if (typeof element !== 'boolean' && typeof element !== 'number') {
        throw invalidArgType(`data[${i}]`, 'a boolean', element);
      }
      if (Number(element) !== 0 && Number(element) !== 1) {
        throw invalidArgValue(`data[${i}]`, `must be a boolean, 0 or 1 for type bool, not ${element}.`);
      }
      array[i] = Number(element);
    }
  } else if (/float/.test(type)) {
    const values = array instanceof Uint16Array ? new Float32Array(elements.length) : array;
    for (let i = 0; i < elements.length; i++) {
      const element = elements[i];
      values[i] = typeof element === 'number' ? element : namedNumber(element, i);
    }
    if (type === 'bfloat16') return toBfloat16Bits(values as Float32Array);
    if (values !== array) return toFloat16Bits(values as Float32Array);
  } else {
    const [min, max] = integerRange(type).map(Number) as [number, number];
    for (let i = 0; i < elements.length; i++) {
      const element = elements[i];
      if (typeof element !== 'number') throw invalidArgType(`data[${i}]`, 'a number', element);
      if (!Number.isInteger(element) || element < min || element > max) throw outOfRange(type, element, i);
      array[i] = element;
    }
  }
  return array;
}

/** Reads a whole number. A tensor's JSON may also give it in decimal digits. */
function bigInteger(type: DataType, element: unknown, i: number, min: bigint, max: bigint): bigint {
  let value: bigint;
  if (typeof element === 'bigint') value = element;
  else if (typeof element === 'string' && /^-?\d+$/.test(element)) value = BigInt(element);
  else if (typeof element !== 'number') throw invalidArgType(`data[${i}]`, 'a bigint or a number', element);
  else if (Number.isInteger(element)) value = BigInt(element);
  else throw outOfRange(type, element, i);
  if (value < min || value > max) throw outOfRange(type, element, i);
  return value;
}

const notFinite = ['NaN', 'Infinity', '-Infinity'];

/**
 * Reads a number that a tensor's JSON gives by name, since JSON has no literal for it: 'NaN', 'Infinity' or
 * '-Infinity'.
 */
function namedNumber(element: unknown, i: number): number {
  if (notFinite.includes(element as string)) return Number(element);
  throw invalidArgType(`data[${i}]`, 'a number', element);
}

function outOfRange(type: DataType, element: unknown, i: number): RangeError {
  const [min, max] = integerRange(type);
  const problem = `must be an integer from ${min} to ${max} for type ${type}, not ${describe(element)}.`;
  return invalidArgValue(`data[${i}]`, problem);
}

/** True if `data` holds bit patterns, because JavaScript has no array for the values. */
export function isBits(type: DataType, data: unknown): data is Uint16Array {
  return /float16/.test(type) && arrayName(data) === 'Uint16Array';
}

/** The values of bit patterns; other data is returned as it is. */
export function valuesOf(type: DataType, data: ArrayBufferView | readonly string[]): ArrayLike<unknown> {
  if (!isBits(type, data)) return data as NumericArray | readonly string[];
  return type === 'float16' ? fromFloat16Bits(data) : fromBfloat16Bits(data);
}

/** A number for JSON, or its name or digits if JSON can't represent it exactly. */
export function toJsonElement(element: unknown): number | string {
  if (typeof element === 'bigint') {
    return Number.isSafeInteger(Number(element)) ? Number(element) : String(element);
  }
  return Number.isFinite(element) ? (element as number) : String(element);
}

/** Converts `given` into the `data` of a tensor. checkTensor() reports anything wrong with it. */
export function toData(type: DataType, given: unknown): unknown {
  if (type === 'string') return given;
  if (Array.isArray(given)) return fromElements(type, given);
  const isClamped = type === 'uint8' && arrayName(given) === 'Uint8ClampedArray';
  if (!isClamped && !(type === 'float16' && float16Array !== undefined && isBits(type, given))) return given;
  const { buffer, byteOffset, length } = given as NumericArray;
  checkAttached(buffer, 'tensor.data');
  return new arrayTypes[type](buffer, byteOffset, length);
}

export function inferType(data: unknown): DataType {
  if (Array.isArray(data)) {
    const type = { string: 'string', boolean: 'bool', bigint: 'int64' }[typeof data[0] as string];
    if (type) return type as DataType;
  }
  const type = inferredTypes[arrayName(data) ?? ''];
  if (type) return type;
  const expected = 'a typed array, or an array of strings, booleans or bigints, if no type is given';
  throw invalidArgType('data', expected, data);
}

/** The values of bit patterns for `inspect`: as many as are shown, in an array that prints the full length. */
export function firstValues(
  type: DataType,
  data: ArrayBufferView | readonly string[],
  shown: number,
): unknown {
  if (ArrayBuffer.isView(data) && isDetached(data.buffer)) return 'detached';
  if (!isBits(type, data)) return data;
  const values = new Array<unknown>(Math.min(data.length, 2 ** 32 - 1));
  return Object.assign(values, Array.from(valuesOf(type, data.subarray(0, shown))));
}
