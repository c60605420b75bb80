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

/** The constructor's first argument for a tensor on a GPU. Nothing outside this file has it. */
const onDevice = Symbol('on the GPU');

/** A tensor in a GPU's memory, which native has allocated. */
export function tensorOnDevice(type: DataType, dims: Dims, memory: DeviceTensor): Tensor {
  const tensor = new TypedTensor<DataType>(onDevice, type, dims);
  deviceTensors.set(tensor, memory);
  return tensor;
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
  interface DataTypeMap extends types.DataTypeMap {}
  /** What one element is, by type. */
  interface ElementTypeMap extends types.ElementTypeMap {}
  type Type = keyof DataTypeMap;
  type DataType = DataTypeMap[Type];
  type ElementType = ElementTypeMap[Type];
  type DataLocation = Tensor['location'];
}
