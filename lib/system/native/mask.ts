import type { NativeBytes } from './bytes.js';
import type { HostBuffer } from './tensor.js';

/** The elements of a tensor, where they are. */
export type NativeElements = ArrayBufferView | HostBuffer | NativeBytes;

/** Numbers of which only the magnitudes matter. */
export interface NativeMagnitudes {
  /** What errors call them. */
  name: string;
  /** ONNX's number for float32, float16 or bfloat16. */
  type: number;
  data: NativeElements;
}

/**
 * A tensor and the scores of its elements: |w|, |w · g| with gradients, |w| · f with a factor for each position along an
 * axis, or random numbers if there is a seed.
 */
export interface NativeScoredTensor {
  dims: readonly number[];
  weights?: NativeMagnitudes;
  gradients?: NativeMagnitudes;
  factors?: { values: Float32Array; axis: number };
  seed?: number;
}

/**
 * Which elements to keep: the `keep` largest of all tensors; the largest of each group of a pattern along an axis; or, of
 * a single tensor, the `keep` blocks with the largest norms (1 for L1, 2 for L2).
 */
export type NativeSelection =
  | { keep: number }
  | { pattern: readonly [keep: number, of: number]; axis: number }
  | { keep: number; block: readonly number[]; norm: 1 | 2 };

/** A request for a mask of each tensor. */
export type NativeMaskRequest = NativeSelection & { tensors: readonly NativeScoredTensor[] };

/** Work on a thread. After `cancel()` the promise may resolve with undefined. */
export interface NativeWork<Result> {
  readonly result: Promise<Result | undefined>;
  cancel(): void;
}

/** A request to change a mask: drop the `count` kept elements of the lowest weight, and grow as many. */
export interface NativeMaskUpdate {
  mask: NativeMask;
  weights: NativeScoredTensor;
  growth: NativeScoredTensor;
  count: number;
}

/** A changed mask, and the numbers of the elements that changed. */
export interface NativeUpdatedMask {
  mask: NativeMask;
  dropped: Uint32Array;
  grown: Uint32Array;
}

/** A sparse mask. Its methods expect masks of the same dimensions, and as many elements. */
export interface NativeMask {
  readonly kept: number;
  bits(): Uint8Array;
  and(other: NativeMask): NativeMask;
  or(other: NativeMask): NativeMask;
  not(): NativeMask;
  equals(other: NativeMask): boolean;
  /** `first` is the number of the first element of the first group that keeps too many. */
  check(
    pattern: readonly [keep: number, of: number],
    axis: number,
  ): { groups: number; violations: number; first?: number };
  /** Blocks. Returns the masked elements unless it changes them in place. */
  apply(elements: ArrayBufferView, elementBytes: number, inPlace: boolean): ArrayBuffer | undefined;
  /** Works on a thread. */
  applyOnThread(
    elements: HostBuffer,
    elementBytes: number,
    inPlace: boolean,
  ): Promise<ArrayBuffer | undefined>;
  /** Flags the positions along an axis at which any element is kept. */
  keptSlices(axis: number): Uint8Array;
  /** Writes the masked elements at the file's current position, on a thread. Rejects with ERR_IO. */
  writeApplied(elements: NativeBytes, elementBytes: number, descriptor: number): Promise<void>;
}

/** The part of the addon that makes masks. Errors about the elements are ERR_INVALID_ARG_VALUE. */
export interface NativeMasks {
  NativeMask: new (bits: Uint8Array, dims: readonly number[]) => NativeMask;
  makeMasks(request: NativeMaskRequest, isSync: true): NativeMask[];
  makeMasks(request: NativeMaskRequest, isSync: false): NativeWork<NativeMask[]>;
  updateMask(request: NativeMaskUpdate, isSync: true): NativeUpdatedMask;
  updateMask(request: NativeMaskUpdate, isSync: false): NativeWork<NativeUpdatedMask>;
  /** Sums the scores (norm 1) or their squares (norm 2) at each position along an axis, on a thread. */
  sliceSums(request: { tensor: NativeScoredTensor; axis: number; norm: 1 | 2 }): NativeWork<Float64Array>;
  /**
   * The slices at some positions along an axis, in that order, of elements that are masked first if there is a mask. Works
   * on a thread.
   */
  takeSlices(request: {
    bytes: NativeBytes;
    dims: readonly number[];
    elementBytes: number;
    axis: number;
    positions: Uint32Array;
    mask?: NativeMask;
  }): Promise<ArrayBuffer>;
  /** Keeps the slices at the positions along an axis whose flag isn't 0. */
  maskOfSlices(dims: readonly number[], axis: number, kept: Uint8Array): NativeMask;
  maskOfNonZero(elements: ArrayBufferView | HostBuffer, type: number, dims: readonly number[]): NativeMask;
}
