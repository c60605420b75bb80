import { type InspectOptionsStylized, inspect } from 'node:util';
import { type DataType, dataTypes } from '../base/data-type.js';
import { describe, invalidArgType, invalidArgValue, shapeMismatch, TensorRTError } from '../base/errors.js';
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from '../base/float16.js';
import { checkAttached, isDetached } from '../base/options.js';
import type { Dims, TensorLike } from '../base/tensor-like.js';
import { type DeviceTensor, type HostBuffer, native } from '../system/native.js';

/** A {@link TensorLike} whose type, dimensions and data were checked. */
interface CheckedTensor extends TensorLike {
  readonly type: DataType;
}

/** A Float16Array, by its tag: TypeScript knows the class only with the library `esnext.float16`. */
type Float16 = ArrayBufferView & {
  readonly length: number;
  readonly [index: number]: number;
  readonly [Symbol.toStringTag]: 'Float16Array';
};

/** The type of `tensor.data`. */
export type DataOf<T extends DataType> = Tensor.DataTypeMap[T];

/** What a tensor of a type can be made of. */
type DataFor<T extends DataType> = {
  [K in T]:
    | DataOf<K>
    | (K extends 'string' ? readonly string[] : readonly (Tensor.ElementTypeMap[K] | number)[])
    | (K extends 'uint8' ? Uint8ClampedArray : never)
    | (K extends 'float16' ? Float16 : never);
}[T];

/** The types that follow from the class of a typed array. */
type InferredType = Exclude<DataType, 'float16' | 'bfloat16' | 'bool' | 'string'>;

/** Data that says what type it is. */
type SelfDescribing =
  | DataOf<InferredType>
  | Uint8ClampedArray
  | Float16
  | readonly string[]
  | readonly boolean[]
  | readonly bigint[];

type TypeOf<Data> = Data extends Uint8ClampedArray
  ? 'uint8'
  : Data extends Float16
    ? 'float16'
    : Data extends readonly string[]
      ? 'string'
      : Data extends readonly boolean[]
        ? 'bool'
        : Data extends readonly bigint[]
          ? 'int64'
          : { [T in InferredType]: Data extends DataOf<T> ? T : never }[InferredType];

type NumericArray = ArrayBufferView & { readonly length: number; [index: number]: number | bigint };
type NumericArrayConstructor = {
  new (length: number): NumericArray;
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): NumericArray;
};

// Node 24 has Float16Array; before it, float16 is its bit patterns in a Uint16Array.
const float16Array = (globalThis as { Float16Array?: NumericArrayConstructor }).Float16Array;

const arrayTypes = {
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

/** 'Float32Array' …, of another realm's and of subclasses (Buffer) too; undefined for what is not a typed array. */
function arrayName(data: unknown): string | undefined {
  return arrayTag.call(data) as string | undefined;
}

/** Native memory of tensors made by {@link Tensor.allocate}. */
const hostBuffers = new WeakMap<object, HostBuffer>();

/** The native memory behind `tensor`, when it was allocated by {@link Tensor.allocate} and not disposed. */
export function hostBufferOf(tensor: TensorLike): HostBuffer | undefined {
  return hostBuffers.get(tensor);
}

/** The GPU memory of tensors that lie there. */
const deviceTensors = new WeakMap<object, DeviceTensor>();

/** The GPU memory behind `tensor`, where it lies on a GPU; disposed or not. */
export function deviceTensorOf(tensor: TensorLike): DeviceTensor | undefined {
  return deviceTensors.get(tensor);
}

/** The constructor's first argument for a tensor on a GPU. Nothing outside this file has it. */
const onDevice = Symbol('on the GPU');

/** A tensor in a GPU's memory, which native has allocated. */
export function tensorOnDevice(type: DataType, dims: Dims, memory: DeviceTensor): Tensor {
  const tensor = new TypedTensor<DataType>(onDevice, type, dims);
  deviceTensors.set(tensor, memory);
  return tensor;
}

/**
 * Checks dimensions and returns how many elements they hold (1 for a scalar, `[]`).
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
function elementCount(dims: unknown, path: string): number {
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
 * Checks that `data` is right for `type` and holds as many elements as `dims` say.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE or ERR_SHAPE_MISMATCH
 */
export function checkTensor(tensor: TensorLike, path: string): asserts tensor is CheckedTensor {
  if (typeof tensor !== 'object' || tensor === null) throw invalidArgType(path, 'a tensor', tensor);
  // Native made it, whole.
  if (deviceTensors.has(tensor)) return;
  const { type, dims } = tensor;
  const data = readData(tensor, `${path}.data`);
  checkType(type, `${path}.type`);
  const count = elementCount(dims, `${path}.dims`);
  let length: number;
  if (type === 'string') {
    if (!Array.isArray(data)) throw invalidArgType(`${path}.data`, 'an array of strings', data);
    const bad = data.findIndex((element) => typeof element !== 'string');
    if (bad >= 0) throw invalidArgType(`${path}.data[${bad}]`, 'a string', data[bad]);
    // ONNX Runtime takes strings that end at their first zero.
    const cut = data.findIndex((element) => element.includes('\0'));
    if (cut >= 0) throw invalidArgValue(`${path}.data[${cut}]`, 'has a zero character in it.');
    length = data.length;
  } else {
    const { name } = arrayTypes[type];
    // By name where it is another realm's.
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

/** The elements of another library's tensor too, whose `data` may throw: onnxruntime-common's does on a GPU, or disposed. */
function readData(tensor: TensorLike, path: string): TensorLike['data'] {
  try {
    return tensor.data;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause) throw cause;
    throw invalidArgValue(path, `can't be read: ${(cause as Error).message}`, { cause });
  }
}

function checkType(type: unknown, path: string): asserts type is DataType {
  if (typeof type === 'string' && Object.hasOwn(dataTypes, type)) return;
  throw invalidArgValue(path, `must be one of ${Object.keys(dataTypes)}, not ${describe(type)}.`);
}

/** A typed array over `buffer` for elements of `type`. */
export function typedArray<T extends Exclude<DataType, 'string'>>(type: T, buffer: ArrayBuffer): DataOf<T> {
  return new arrayTypes[type](buffer) as unknown as DataOf<T>;
}

/** The values that an integer type has. */
function integerRange(type: DataType): readonly [min: bigint, max: bigint] {
  const bits = BigInt(8 * dataTypes[type].byteSize);
  return type.startsWith('u') ? [0n, 2n ** bits - 1n] : [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n];
}

/**
 * A typed array for elements of `type`, as they were given one by one: nothing wraps around, and nothing is cut off.
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

/** A whole number; of a tensor's JSON also in decimal digits. */
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

/** The number that a tensor's JSON names, since JSON has no literal for it: 'NaN', 'Infinity' or '-Infinity'. */
function namedNumber(element: unknown, i: number): number {
  if (notFinite.includes(element as string)) return Number(element);
  throw invalidArgType(`data[${i}]`, 'a number', element);
}

function outOfRange(type: DataType, element: unknown, i: number): RangeError {
  const [min, max] = integerRange(type);
  const problem = `must be an integer from ${min} to ${max} for type ${type}, not ${describe(element)}.`;
  return invalidArgValue(`data[${i}]`, problem);
}

/** Whether `data` are bit patterns, of values that JavaScript has no array of. */
function isBits(type: DataType, data: unknown): data is Uint16Array {
  return /float16/.test(type) && arrayName(data) === 'Uint16Array';
}

/** The values of bit patterns; anything else as it is. */
function valuesOf(type: DataType, data: ArrayBufferView | readonly string[]): ArrayLike<unknown> {
  if (!isBits(type, data)) return data as NumericArray | readonly string[];
  return type === 'float16' ? fromFloat16Bits(data) : fromBfloat16Bits(data);
}

/** A number as JSON has it, or its name or digits where JSON has none that is exact. */
function toJsonElement(element: unknown): number | string {
  if (typeof element === 'bigint') {
    return Number.isSafeInteger(Number(element)) ? Number(element) : String(element);
  }
  return Number.isFinite(element) ? (element as number) : String(element);
}

/** A {@link Tensor} of elements of type `T`. */
export class TypedTensor<T extends DataType> implements TensorLike {
  static readonly name = 'Tensor';
  readonly type: T;
  readonly dims: Dims;
  /**
   * The elements, row-major, of a tensor in host memory.
   * @throws TensorRTError ERR_DISPOSED; RangeError ERR_INVALID_ARG_VALUE where the tensor lies on a GPU
   */
  // A property of each tensor, not of the class: structuredClone() and postMessage() copy it, so that they make a
  // TensorLike of a tensor in host memory, and throw what reading throws for any other.
  declare readonly data: DataOf<T>;
  #location: 'cpu' | 'cuda' | 'none';

  /** What becomes of `data` while there is none in host memory. */
  static readonly #absent: PropertyDescriptor = {
    enumerable: true,
    configurable: true,
    get(this: TypedTensor<DataType>): never {
      if (this.#location === 'none') throw new TensorRTError('ERR_DISPOSED', 'The tensor was disposed.');
      throw invalidArgValue(
        'tensor.data',
        'is on the GPU: `await tensor.getData()` copies it to host memory.',
      );
    },
  };

  /** @internal */
  constructor(first: unknown, second?: unknown, third?: unknown) {
    if (first === onDevice) {
      this.type = second as T;
      this.dims = Object.freeze([...(third as Dims)]);
      this.#location = 'cuda';
      Object.defineProperty(this, 'data', TypedTensor.#absent);
      return;
    }
    const isNamed = typeof first === 'string';
    const given = isNamed ? second : first;
    const type: unknown = isNamed ? first : inferType(given);
    checkType(type, 'type');
    const data = toData(type, given);
    const dims = isNamed ? third : second;
    this.type = type as T;
    if (Array.isArray(dims)) this.dims = Object.freeze([...dims]);
    else if (dims !== undefined) throw invalidArgType('tensor.dims', 'an array of integers', dims);
    else this.dims = Object.freeze([(data as { length?: number } | undefined)?.length ?? 0]);
    this.data = data as DataOf<T>;
    this.#location = 'cpu';
    checkTensor({ type, dims: this.dims, data: data as ArrayBufferView }, 'tensor');
  }

  /**
   * A zeroed tensor in memory of ours: runs read and write it without a copy, and keep it alive while they use it.
   * Don't write to it during a run. Where the host allows no ArrayBuffer over native memory (Electron), it is an
   * ordinary tensor, copied as others are.
   * @throws TensorRTError ERR_OUT_OF_MEMORY
   */
  static allocate<T extends Exclude<DataType, 'string'>>(type: T, dims: Dims): Tensor<T> {
    if (!Object.hasOwn(dataTypes, type) || (type as DataType) === 'string') {
      throw invalidArgValue('type', `must be a numeric type or bool, not ${describe(type)}.`);
    }
    const byteLength = elementCount(dims, 'dims') * dataTypes[type].byteSize;
    const buffer = new (native().HostBuffer)(byteLength);
    const { arrayBuffer } = buffer;
    const data = typedArray(type, arrayBuffer ?? new ArrayBuffer(byteLength));
    const tensor = new TypedTensor<T>(type, data, dims);
    if (arrayBuffer) {
      hostBuffers.set(tensor, buffer);
      // Runs use the buffer: other data would be passed over.
      Object.defineProperty(tensor, 'data', { writable: false });
    }
    return tensor;
  }

  /** Where the elements are: 'cuda' is a GPU's memory; 'none' after {@link dispose}. */
  get location(): 'cpu' | 'cuda' | 'none' {
    return this.#location;
  }

  /** Elements. */
  get size(): number {
    return this.dims.reduce((product, dim) => product * dim, 1);
  }

  /** Bytes of the elements; 0 for strings. */
  get byteLength(): number {
    return this.size * dataTypes[this.type].byteSize;
  }

  /**
   * The elements, copied from the GPU where they lie there.
   * @param releaseData frees the memory on the GPU, once copied: the tensor then lies in host memory. Defaults to false.
   * @throws (rejects) TensorRTError ERR_DISPOSED, ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY
   */
  async getData(releaseData = false): Promise<DataOf<T>> {
    const memory = deviceTensors.get(this);
    if (!memory) return this.data;
    const bytes = await native().downloadTensor(memory);
    const elements = typedArray(this.type as Exclude<DataType, 'string'>, bytes) as DataOf<T>;
    if (releaseData && this.#location === 'cuda') {
      native().releaseTensor(memory);
      deviceTensors.delete(this);
      Object.defineProperty(this, 'data', { value: elements });
      this.#location = 'cpu';
    }
    return elements;
  }

  /**
   * A tensor with other dimensions over the same elements, which it shares.
   * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_SHAPE_MISMATCH where they hold another number of elements,
   *   ERR_INVALID_ARG_VALUE, also where the tensor lies on a GPU; TensorRTError ERR_DISPOSED
   */
  reshape(dims: Dims): Tensor<T> {
    if (dims === undefined) throw invalidArgType('dims', 'an array of integers', dims);
    const tensor = new TypedTensor<T>(this.type, this.data, dims);
    const buffer = hostBuffers.get(this);
    if (buffer) hostBuffers.set(tensor, buffer);
    return tensor;
  }

  /** Frees the memory on a GPU, or drops the data; a run that uses it keeps what it needs. May be called again. */
  dispose(): void {
    Object.defineProperty(this, 'data', TypedTensor.#absent);
    this.#location = 'none';
    hostBuffers.delete(this);
    const memory = deviceTensors.get(this);
    if (memory) native().releaseTensor(memory);
  }

  /**
   * What `new Tensor(type, data, dims)` makes the same tensor of: numbers, of float16 and bfloat16 too. Integers beyond
   * 2^53 are strings of digits; what JSON has no number for is 'NaN', 'Infinity' or '-Infinity'.
   * @throws as {@link data}; RangeError ERR_INVALID_ARG_VALUE where its ArrayBuffer was transferred
   */
  toJSON(): { type: T; dims: Dims; data: (number | string)[] } {
    const { type, dims } = this;
    const data: ArrayBufferView | readonly string[] = this.data;
    if (ArrayBuffer.isView(data)) checkAttached(data.buffer, 'tensor.data');
    return { type, dims, data: Array.from(valuesOf(type, data), toJsonElement) };
  }

  /** @internal Type, dimensions, where the elements are, and the first of them. */
  [inspect.custom](depth: number, options: InspectOptionsStylized): string {
    if (depth < 0) return options.stylize('[Tensor]', 'special');
    const { type, dims, location } = this;
    const shown = { type, dims, location };
    if (location === 'cpu') {
      Object.assign(shown, { data: firstValues(type, this.data, options.maxArrayLength ?? Infinity) });
    }
    return `Tensor ${inspect(shown, { ...options, depth: 1 })}`;
  }
}

/** The `data` of a tensor that is made of `given`. What is wrong with it, checkTensor() says. */
function toData(type: DataType, given: unknown): unknown {
  if (type === 'string') return given;
  if (Array.isArray(given)) return fromElements(type, given);
  const isClamped = type === 'uint8' && arrayName(given) === 'Uint8ClampedArray';
  if (!isClamped && !(type === 'float16' && float16Array !== undefined && isBits(type, given))) return given;
  const { buffer, byteOffset, length } = given as NumericArray;
  checkAttached(buffer, 'tensor.data');
  return new arrayTypes[type](buffer, byteOffset, length);
}

function inferType(data: unknown): DataType {
  if (Array.isArray(data)) {
    const type = { string: 'string', boolean: 'bool', bigint: 'int64' }[typeof data[0] as string];
    if (type) return type as DataType;
  }
  const type = inferredTypes[arrayName(data) ?? ''];
  if (type) return type;
  const expected = 'a typed array, or an array of strings, booleans or bigints, where no type is given';
  throw invalidArgType('data', expected, data);
}

/** For `inspect`: the values of bit patterns, as far as they are shown, in an array that says how many there are. */
function firstValues(type: DataType, data: ArrayBufferView | readonly string[], shown: number): unknown {
  if (ArrayBuffer.isView(data) && isDetached(data.buffer)) return 'detached';
  if (!isBits(type, data)) return data;
  const values = new Array<unknown>(Math.min(data.length, 2 ** 32 - 1));
  return Object.assign(values, Array.from(valuesOf(type, data.subarray(0, shown))));
}

/**
 * Makes tensors. `float16` data is a Uint16Array of bit patterns, or a Float16Array where the host has one (Node 24; both
 * are accepted); `bfloat16` is a Uint16Array of bit patterns, `bool` a Uint8Array of 0 and 1. A typed array is used as it
 * is, not copied. An array of elements is copied: values, which have to be in the type's range, so that nothing wraps
 * around or is cut off; those of a floating-point type are rounded.
 * @throws (by each) TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE or ERR_SHAPE_MISMATCH
 */
export interface TensorConstructor {
  /** @param dims by default, one dimension */
  new <T extends DataType>(type: T, data: DataFor<T>, dims?: Dims): Tensor<T>;
  /** The type follows from the typed array's; strings make `string`, booleans `bool`, bigints `int64`. */
  new <Data extends SelfDescribing>(data: Data, dims?: Dims): Tensor<TypeOf<Data>>;
  /** Where the types of `type` and `data` are not known to fit; it throws where they don't. */
  new (type: DataType, data: DataFor<DataType>, dims?: Dims): Tensor;
  readonly allocate: typeof TypedTensor.allocate;
  readonly prototype: Tensor;
}

/** A superset of onnxruntime-common's Tensor. `data` is row-major. */
export type Tensor<T extends DataType = DataType> = TypedTensor<T>;
export const Tensor: TensorConstructor = TypedTensor;

/** onnxruntime-common's name for what is fed and fetched. */
export type OnnxValue = Tensor;

/** onnxruntime-common's names of types. */
export declare namespace Tensor {
  /** What `tensor.data` is, by element type. */
  interface DataTypeMap {
    float32: Float32Array;
    float16: typeof globalThis extends { Float16Array: { readonly prototype: infer Values } }
      ? Uint16Array | Values
      : Uint16Array;
    bfloat16: Uint16Array;
    float64: Float64Array;
    int8: Int8Array;
    uint8: Uint8Array;
    int16: Int16Array;
    uint16: Uint16Array;
    int32: Int32Array;
    uint32: Uint32Array;
    int64: BigInt64Array;
    uint64: BigUint64Array;
    bool: Uint8Array;
    string: string[];
  }
  /** What one element is, by type. */
  interface ElementTypeMap extends Record<Exclude<Type, 'int64' | 'uint64' | 'bool' | 'string'>, number> {
    int64: bigint;
    uint64: bigint;
    bool: boolean;
    string: string;
  }
  type Type = keyof DataTypeMap;
  type DataType = DataTypeMap[Type];
  type ElementType = ElementTypeMap[Type];
  type DataLocation = Tensor['location'];
}
