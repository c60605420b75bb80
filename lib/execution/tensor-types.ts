import type { DataType } from '../base/data-type.js';

// What TypeScript knows of a tensor's data: its class by type, and the type by class.

/** What `tensor.data` is, by element type. */
export interface DataTypeMap {
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
export interface ElementTypeMap
  extends Record<Exclude<DataType, 'int64' | 'uint64' | 'bool' | 'string'>, number> {
  int64: bigint;
  uint64: bigint;
  bool: boolean;
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

/** What a tensor of a type can be made of. */
export type DataFor<T extends DataType> = {
  [K in T]:
    | DataOf<K>
    | (K extends 'string' ? readonly string[] : readonly (ElementTypeMap[K] | number)[])
    | (K extends 'uint8' ? Uint8ClampedArray : never)
    | (K extends 'float16' ? Float16 : never);
}[T];

/** The types that follow from the class of a typed array. */
type InferredType = Exclude<DataType, 'float16' | 'bfloat16' | 'bool' | 'string'>;

/** Data that says what type it is. */
export type SelfDescribing =
  | DataOf<InferredType>
  | Uint8ClampedArray
  | Float16
  | readonly string[]
  | readonly boolean[]
  | readonly bigint[];

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
