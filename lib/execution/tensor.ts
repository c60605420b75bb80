import { type InspectOptionsStylized, inspect } from 'node:util';
import { type DataType, dataTypes } from '../base/data-type.js';
import { describe, invalidArgType, invalidArgValue, TensorRTError } from '../base/errors.js';
import { checkAttached } from '../base/options.js';
import type { Dims, TensorLike } from '../base/tensor-like.js';
import type { DeviceTensor } from '../system/native/tensor.js';
import { native } from '../system/native.js';
import { checkTensor, checkType, elementCount } from './check-tensor.js';
import { firstValues, inferType, toData, toJsonElement, typedArray, valuesOf } from './tensor-elements.js';
import { deviceTensors, hostBuffers } from './tensor-memory.js';
import type * as types from './tensor-types.js';
import type { DataFor, DataOf, SelfDescribing, TypeOf } from './tensor-types.js';

/** The constructor's first argument for a tensor on a GPU. It is private to this file. */
const onDevice = Symbol('on the GPU');

/** Wraps memory on a GPU, which the addon allocated, in a tensor. */
export function tensorOnDevice(type: DataType, dims: Dims, memory: DeviceTensor): Tensor {
  const tensor = new TypedTensor<DataType>(onDevice, type, dims);
  deviceTensors.set(tensor, memory);
  return tensor;
}

/** A {@link Tensor} whose elements have the type `T`. */
export class TypedTensor<T extends DataType> implements TensorLike {
  /** @internal */
  static readonly name = 'Tensor';
  /** The type of the elements. */
  readonly type: T;
  /** The dimensions, outermost first; empty for a scalar. */
  readonly dims: Dims;
  /**
   * The elements of a tensor in host memory, row-major.
   * @throws TensorRTError ERR_DISPOSED; RangeError ERR_INVALID_ARG_VALUE if the tensor lies on a GPU
   */
  // This is a property of each tensor, not of the class, because structuredClone() and postMessage() copy properties:
  // they turn a tensor in host memory into a TensorLike, and throw for any other what reading its data throws.
  declare readonly data: DataOf<T>;
  #location: 'cpu' | 'cuda' | 'none';

  /** Describes `data` while there is none in host memory: reading it throws. */
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
   * Allocates a tensor of zeros in native memory. Runs read and write it without a copy, and keep it alive while they
   * use it: don't write to it during a run. On a host that allows no ArrayBuffer over native memory (Electron) it is an
   * ordinary tensor, which runs copy.
   *
   * @throws TensorRTError ERR_OUT_OF_MEMORY; RangeError ERR_INVALID_ARG_VALUE
   * @example
   * ```js
   * import { InferenceSession, Tensor } from 'node-tensorrt';
   *
   * const session = await InferenceSession.create('model.onnx', { device: 'cpu' });
   * const x = Tensor.allocate('float32', [1, 3, 224, 224]);
   * x.data.fill(0.5);
   * await session.run({ x });
   * await session.dispose();
   * ```
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

  /** The memory that holds the elements: 'cpu', 'cuda' for a GPU's, or 'none' after {@link dispose}. */
  get location(): 'cpu' | 'cuda' | 'none' {
    return this.#location;
  }

  /** How many elements there are. */
  get size(): number {
    return this.dims.reduce((product, dim) => product * dim, 1);
  }

  /** How many bytes the elements take; 0 for strings. */
  get byteLength(): number {
    return this.size * dataTypes[this.type].byteSize;
  }

  /**
   * Returns the elements. Those of a tensor on a GPU are copied to host memory first.
   * @param releaseData frees the memory on the GPU after the copy: the tensor then lies in host memory. Defaults to false
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
   * Makes a tensor with other dimensions that shares the elements.
   * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_SHAPE_MISMATCH if the dimensions hold another number of
   *   elements, ERR_INVALID_ARG_VALUE if they aren't valid or the tensor lies on a GPU; TensorRTError ERR_DISPOSED
   */
  reshape(dims: Dims): Tensor<T> {
    if (dims === undefined) throw invalidArgType('dims', 'an array of integers', dims);
    const tensor = new TypedTensor<T>(this.type, this.data, dims);
    const buffer = hostBuffers.get(this);
    if (buffer) hostBuffers.set(tensor, buffer);
    return tensor;
  }

  /** Frees the memory on a GPU, or drops the data. A run that uses the tensor isn't disturbed. It may be called again. */
  dispose(): void {
    Object.defineProperty(this, 'data', TypedTensor.#absent);
    this.#location = 'none';
    hostBuffers.delete(this);
    const memory = deviceTensors.get(this);
    if (memory) native().releaseTensor(memory);
  }

  /**
   * Returns plain data from which `new Tensor(type, data, dims)` makes the same tensor. Elements are numbers, also those
   * of float16 and bfloat16. Integers beyond 2^53 become strings of digits; values that JSON can't hold become 'NaN',
   * 'Infinity' or '-Infinity'.
   * @throws as {@link data}; RangeError ERR_INVALID_ARG_VALUE if the ArrayBuffer was transferred
   */
  toJSON(): { type: T; dims: Dims; data: (number | string)[] } {
    const { type, dims } = this;
    const data: ArrayBufferView | readonly string[] = this.data;
    if (ArrayBuffer.isView(data)) checkAttached(data.buffer, 'tensor.data');
    return { type, dims, data: Array.from(valuesOf(type, data), toJsonElement) };
  }

  /** @internal Prints type, dimensions, location and the first elements. */
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

/**
 * Makes tensors. The data is a typed array, which is used without a copy, or an array of elements, which are copied.
 * `float16` takes a Uint16Array of bit patterns, or a Float16Array on a host that has one (Node 24); `bfloat16` takes a
 * Uint16Array of bit patterns, and `bool` a Uint8Array of 0 and 1. Elements of an array must be in the type's range;
 * floating-point types round them.
 *
 * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE or ERR_SHAPE_MISMATCH
 */
export interface TensorConstructor {
  /** @param dims the dimensions, outermost first. Defaults to one dimension */
  new <T extends DataType>(type: T, data: DataFor<T>, dims?: Dims): Tensor<T>;
  /** Takes the type from the data: from a typed array's class; strings make `string`, booleans `bool`, bigints `int64`. */
  new <Data extends SelfDescribing>(data: Data, dims?: Dims): Tensor<TypeOf<Data>>;
  /** Takes a type and data that TypeScript can't match. It throws if they don't fit. */
  new (type: DataType, data: DataFor<DataType>, dims?: Dims): Tensor;
  /** Allocates a tensor of zeros in native memory: see TypedTensor's `allocate`. */
  readonly allocate: typeof TypedTensor.allocate;
  /** The prototype of tensors, for `instanceof`. */
  readonly prototype: Tensor;
}

/** A tensor: elements of one type and their dimensions, row-major. It is a superset of onnxruntime-common's Tensor. */
export type Tensor<T extends DataType = DataType> = TypedTensor<T>;
/**
 * Makes a tensor from a type, data and dimensions, or from data whose class implies the type.
 *
 * @example
 * ```js
 * import { Tensor } from 'node-tensorrt';
 *
 * const x = new Tensor('float32', [1, 2, 3, 4, 5, 6], [2, 3]);
 * const ids = new Tensor(BigInt64Array.of(101n, 7592n, 102n), [1, 3]);
 * console.log(x.dims, x.data[5], ids.type);
 * ```
 */
export const Tensor: TensorConstructor = TypedTensor;

/** A value that can be fed or fetched, by onnxruntime-common's name. */
export type OnnxValue = Tensor;

/** Types by the names that onnxruntime-common gives them. */
export declare namespace Tensor {
  /** The class of `tensor.data`, by element type. */
  interface DataTypeMap extends types.DataTypeMap {}
  /** The JavaScript type of one element, by element type. */
  interface ElementTypeMap extends types.ElementTypeMap {}
  /** The name of an element type. */
  type Type = keyof DataTypeMap;
  /** The class of `tensor.data`. */
  type DataType = DataTypeMap[Type];
  /** The JavaScript type of one element. */
  type ElementType = ElementTypeMap[Type];
  /** Where a tensor's elements are. */
  type DataLocation = Tensor['location'];
}
