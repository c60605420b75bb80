import type { DataType } from '../base/data-type.js';

// The types of a tensor's data: its class by element type, and the element type by class.

/** The class of `tensor.data`, by element type. */
export interface DataTypeMap {
  /** 32-bit floats. */
  float32: Float32Array;
  /** Bit patterns, or a Float16Array on a host that has one. */
  float16: typeof globalThis extends { Float16Array: { readonly prototype: infer Values } }
    ? Uint16Array | Values
    : Uint16Array;
  /** Bit patterns. */
  bfloat16: Uint16Array;
  /** 64-bit floats. */
  float64: Float64Array;
  /** Signed bytes. */
  int8: Int8Array;
  /** Unsigned bytes. */
  uint8: Uint8Array;
  /** Signed 16-bit integers. */
  int16: Int16Array;
  /** Unsigned 16-bit integers. */
  uint16: Uint16Array;
  /** Signed 32-bit integers. */
  int32: Int32Array;
  /** Unsigned 32-bit integers. */
  uint32: Uint32Array;
  /** Signed 64-bit integers. */
  int64: BigInt64Array;
  /** Unsigned 64-bit integers. */
  uint64: BigUint64Array;
  /** 0 or 1. */
  bool: Uint8Array;
  /** Strings. */
  string: string[];
}

/** The JavaScript type of one element, by element type. */
export interface ElementTypeMap
  extends Record<Exclude<DataType, 'int64' | 'uint64' | 'bool' | 'string'>, number> {
  /** A signed 64-bit integer. */
  int64: bigint;
  /** An unsigned 64-bit integer. */
  uint64: bigint;
  /** true or false. */
  bool: boolean;
  /** A string. */
  string: string;
}

/** A Float16Array, by its tag: TypeScript knows the class only with the library `esnext.float16`. */
type Float16 = ArrayBufferView & {
  readonly length: number;
  readonly [index: number]: number;
  readonly [Symbol.toStringTag]: 'Float16Array';
};

/** The type of `tensor.data`. */
export type DataOf<T extends DataType> = DataTypeMap[T];

/** The data that a tensor of an element type can be made from. */
export type DataFor<T extends DataType> = {
  [K in T]:
    | DataOf<K>
    | (K extends 'string' ? readonly string[] : readonly (ElementTypeMap[K] | number)[])
    | (K extends 'uint8' ? Uint8ClampedArray : never)
    | (K extends 'float16' ? Float16 : never);
}[T];

/** Element types that the class of a typed array implies. */
type InferredType = Exclude<DataType, 'float16' | 'bfloat16' | 'bool' | 'string'>;

/** Data whose class or elements imply the element type. */
export type SelfDescribing =
  | DataOf<InferredType>
  | Uint8ClampedArray
  | Float16
  | readonly string[]
  | readonly boolean[]
  | readonly bigint[];

/** The element type that data implies. */
export type TypeOf<Data> = Data extends Uint8ClampedArray
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
