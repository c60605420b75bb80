import { type DataType, dataTypes } from './data-type.js';
import { describe, invalidArgType, invalidArgValue, shapeMismatch, TensorRTError } from './errors.js';
import { type DeviceTensor, type HostBuffer, native } from './native.js';

export type Dims = readonly number[];

/** Anything a run accepts: our {@link Tensor}, onnxruntime-common's, or a plain object. */
export interface TensorLike {
  readonly type: DataType;
  readonly dims: Dims;
  readonly data: ArrayBufferView | readonly string[];
}

type TypedArrayConstructor = {
  new (length: number): ArrayBufferView & { readonly length: number };
  new (buffer: ArrayBuffer): ArrayBufferView & { readonly length: number };
  from(values: Iterable<never>): ArrayBufferView & { readonly length: number };
  readonly BYTES_PER_ELEMENT: number;
};

// Node 24 has Float16Array; before it, float16 is its bit patterns in a Uint16Array.
const float16Array = (globalThis as { Float16Array?: unknown }).Float16Array ?? Uint16Array;

const arrayTypes: Readonly<Record<Exclude<DataType, 'string'>, TypedArrayConstructor>> = {
  float32: Float32Array,
  float16: float16Array as typeof Uint16Array,
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
} as unknown as Record<Exclude<DataType, 'string'>, TypedArrayConstructor>;

const defaultTypes: Readonly<Record<string, DataType>> = {
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

const onDevice = Symbol('on the GPU');

/** A tensor in a GPU's memory, which native has allocated. */
export let tensorOnDevice: (type: DataType, dims: Dims, memory: DeviceTensor) => Tensor;

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
export function checkTensor(tensor: TensorLike, path: string): void {
  if (typeof tensor !== 'object' || tensor === null) throw invalidArgType(path, 'a tensor', tensor);
  // Native made it, whole.
  if (deviceTensors.has(tensor)) return;
  const { type, dims, data } = tensor;
  if (!Object.hasOwn(dataTypes, type)) {
    throw invalidArgValue(`${path}.type`, `must be one of ${Object.keys(dataTypes)}, not ${describe(type)}.`);
  }
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
    const expected = arrayTypes[type];
    const isBits = type === 'float16' && data instanceof Uint16Array;
    const isClamped = type === 'uint8' && data instanceof Uint8ClampedArray;
    if (!(data instanceof (expected as unknown as typeof Uint8Array)) && !isBits && !isClamped) {
      throw invalidArgType(
        `${path}.data`,
        `a ${(expected as unknown as { name: string }).name} for type ${type}`,
        data,
      );
    }
    length = (data as ArrayBufferView & { length: number }).length;
    if (length === 0 && count > 0 && isDetached((data as ArrayBufferView).buffer)) {
      throw invalidArgValue(
        `${path}.data`,
        'is detached: its ArrayBuffer was transferred. Use the receiving buffer.',
      );
    }
  }
  if (length !== count) {
    throw shapeMismatch(`${path}.data has ${length} elements, but dims [${dims}] hold ${count}.`);
  }
}

function isDetached(buffer: ArrayBufferLike): boolean {
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

/** A typed array over `buffer` for elements of `type`. */
export function typedArray(type: Exclude<DataType, 'string'>, buffer: ArrayBuffer): ArrayBufferView {
  return new arrayTypes[type](buffer);
}

/** A superset of onnxruntime-common's Tensor. `data` is row-major. */
export class Tensor implements TensorLike {
  readonly type: DataType;
  readonly dims: Dims;
  readonly location: 'cpu' | 'cuda';
  #data: ArrayBufferView | readonly string[] | undefined;

  static {
    tensorOnDevice = (type, dims, memory) => {
      const tensor = new (Tensor as unknown as new (...args: unknown[]) => Tensor)(onDevice, type, dims);
      deviceTensors.set(tensor, memory);
      return tensor;
    };
  }

  /**
   * `float16` data is a Uint16Array of bit patterns (a Float16Array where the host has one; both are accepted),
   * `bfloat16` a Uint16Array of bit patterns, `bool` a Uint8Array of 0 and 1.
   * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE or ERR_SHAPE_MISMATCH
   */
  constructor(type: DataType, data: ArrayBufferView | readonly unknown[], dims?: Dims);
  /** The type follows from the typed array's; strings make `string`, booleans `bool`. */
  constructor(data: ArrayBufferView | readonly string[] | readonly boolean[], dims?: Dims);
  constructor(...args: unknown[]) {
    this.location = args[0] === onDevice ? 'cuda' : 'cpu';
    if (args[0] === onDevice) {
      this.type = args[1] as DataType;
      this.dims = Object.freeze([...(args[2] as Dims)]);
      return;
    }
    const named = typeof args[0] === 'string';
    let data = named ? args[1] : args[0];
    const type = (named ? args[0] : inferType(data)) as DataType;
    if (!Object.hasOwn(dataTypes, type)) {
      throw invalidArgValue('type', `must be one of ${Object.keys(dataTypes)}, not ${describe(type)}.`);
    }
    if (Array.isArray(data) && type !== 'string') {
      // As onnxruntime-common: where the array is one of bit patterns, numbers would become patterns.
      if (type === 'bfloat16' || (type === 'float16' && arrayTypes.float16 === (Uint16Array as unknown))) {
        throw invalidArgType(
          'data',
          `a Uint16Array of ${type} bit patterns, for this host has no array of them`,
          data,
        );
      }
      try {
        data = arrayTypes[type].from(data as unknown as Iterable<never>);
      } catch (cause) {
        throw Object.assign(invalidArgType('data', `an array of ${type} elements`, data), { cause });
      }
    }
    const dims = (named ? args[2] : args[1]) ?? [(data as { length?: number } | undefined)?.length ?? 0];
    this.type = type;
    this.dims = Array.isArray(dims) ? Object.freeze([...dims]) : (dims as Dims);
    this.#data = data as ArrayBufferView | readonly string[];
    checkTensor({ type, dims: this.dims, data: this.#data }, 'tensor');
  }

  /**
   * A zeroed tensor in memory of ours: runs read and write it without a copy, and keep it alive while they use it.
   * Don't write to it during a run. Where the host allows no ArrayBuffer over native memory (Electron), it is an
   * ordinary tensor, copied as others are.
   * @throws TensorRTError ERR_OUT_OF_MEMORY
   */
  static allocate(type: DataType, dims: Dims): Tensor {
    if (!Object.hasOwn(dataTypes, type) || type === 'string') {
      throw invalidArgValue('type', `must be a numeric type or bool, not ${describe(type)}.`);
    }
    const byteLength = elementCount(dims, 'dims') * dataTypes[type].byteSize;
    const buffer = new (native().HostBuffer)(byteLength);
    const { arrayBuffer } = buffer;
    const tensor = new Tensor(type, typedArray(type, arrayBuffer ?? new ArrayBuffer(byteLength)), dims);
    if (arrayBuffer) hostBuffers.set(tensor, buffer);
    return tensor;
  }

  /**
   * The elements, of a tensor in host memory.
   * @throws TensorRTError ERR_DISPOSED; RangeError ERR_INVALID_ARG_VALUE where the tensor lies on a GPU
   */
  get data(): ArrayBufferView | readonly string[] {
    if (deviceTensors.has(this)) {
      throw invalidArgValue(
        'tensor.data',
        'is on the GPU: `await tensor.getData()` copies it to host memory.',
      );
    }
    if (this.#data === undefined) throw new TensorRTError('ERR_DISPOSED', 'The tensor was disposed.');
    return this.#data;
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
   * @throws (rejects) TensorRTError ERR_DISPOSED, ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY
   */
  async getData(): Promise<ArrayBufferView | readonly string[]> {
    const memory = deviceTensors.get(this);
    if (memory) {
      return typedArray(this.type as Exclude<DataType, 'string'>, await native().downloadTensor(memory));
    }
    return this.data;
  }

  /** Frees the memory on a GPU, or drops the data; a run that uses it keeps what it needs. May be called again. */
  dispose(): void {
    this.#data = undefined;
    hostBuffers.delete(this);
    const memory = deviceTensors.get(this);
    if (memory) native().releaseTensor(memory);
  }
}

function inferType(data: unknown): DataType {
  if (Array.isArray(data) && typeof data[0] === 'string') return 'string';
  if (Array.isArray(data) && typeof data[0] === 'boolean') return 'bool';
  const type =
    ArrayBuffer.isView(data) && !(data instanceof DataView) ? defaultTypes[data.constructor.name] : undefined;
  if (!type) throw invalidArgType('data', 'a typed array, or an array of strings or booleans', data);
  return type;
}
