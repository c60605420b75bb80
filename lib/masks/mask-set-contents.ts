import type { DataType } from '../base/data-type.js';
import type { Dims } from '../base/tensor-like.js';
import type { SparseMask } from './sparse-mask.js';

/** The weight that a mask was made for. */
export interface MaskedWeight {
  /** The type of its elements. */
  readonly type: DataType;
  /** Hexadecimal SHA-256 of its elements, little-endian and row-major. */
  readonly sha256: string;
  /** The axis over which products with it are summed: a convolution's input channels, a matrix's rows. */
  readonly axis: number;
  /** The nodes that read it. */
  readonly nodes: readonly string[];
  /** Their operator. */
  readonly operator: string;
}

/** A weight that was found, but gets no mask. */
export interface SkippedWeight {
  /** Its name. */
  readonly weight: string;
  /** Its dimensions. */
  readonly dims: Dims;
  /** The nodes that read it. */
  readonly nodes: readonly string[];
  /** Their operator. */
  readonly operator: string;
  /** Why it gets none. */
  readonly reason: string;
}

/** A mask, and the weight that it was made for if that is known. */
export interface MaskEntry {
  readonly mask: SparseMask;
  readonly weight: MaskedWeight | undefined;
}

/** The masks and skipped weights of a set, for the files beside this one. */
export interface MaskSetContents {
  readonly entries: Map<string, MaskEntry>;
  readonly skipped: readonly SkippedWeight[];
}

/** True if a mask keeps at most 2 of every 4 elements along an axis. */
export function isTwoFour(mask: SparseMask, axis: number): boolean {
  return mask.dims[axis]! % 4 === 0 && mask.check('2:4', axis).ok;
}
