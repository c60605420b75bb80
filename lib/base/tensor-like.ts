import type { DataType } from './data-type.js';

/** Sizes of a tensor's dimensions. */
export type Dims = readonly number[];

/** Anything a run accepts: our Tensor, onnxruntime-common's, or a plain object. */
export interface TensorLike {
  /** onnxruntime-common also has 4-bit types, which runs refuse. */
  readonly type: DataType | 'int4' | 'uint4';
  readonly dims: Dims;
  readonly data: ArrayBufferView | readonly string[];
}
