import { TensorRTError } from '../../../base/errors.js';
import type { Field, FieldKind } from './message-type.js';

/** The JavaScript type of a packed field. */
export type Packed = Float32Array | Float64Array | Int32Array | BigInt64Array | BigUint64Array;

export function packedArray(kind: FieldKind, length: number): Packed {
  switch (kind) {
    case 'float':
      return new Float32Array(length);
    case 'double':
      return new Float64Array(length);
    case 'int32':
      return new Int32Array(length);
    case 'int64':
      return new BigInt64Array(length);
    case 'uint64':
      return new BigUint64Array(length);
    default:
      throw new TypeError(`A packed field can't hold ${kind}.`);
  }
}

/**
 * A typed array that grows by doubling, so that a hostile field in a million pieces is read as fast as one in a single
 * piece.
 */
export class GrowingArray {
  #array: Packed;
  #length = 0;

  constructor(readonly field: Field) {
    this.#array = packedArray(field.kind, 0);
  }

  /**
   * Makes room for `n` more elements, which are known to be on the wire. Returns the array and the index of the first
   * of them.
   */
  extend(n: number): { array: Packed; at: number } {
    const at = this.#length;
    this.#length += n;
    if (this.#length > this.#array.length) {
      const capacity = at === 0 ? n : Math.max(this.#length, 2 * this.#array.length);
      let grown: Packed;
      try {
        grown = packedArray(this.field.kind, capacity);
      } catch (cause) {
        throw new TensorRTError('ERR_OUT_OF_MEMORY', `No memory for ${capacity} elements of ONNX data.`, {
          cause,
        });
      }
      (grown as Float32Array).set(this.#array as Float32Array);
      this.#array = grown;
    }
    return { array: this.#array, at };
  }

  finish(): Packed {
    return this.#array.length === this.#length ? this.#array : this.#array.slice(0, this.#length);
  }
}
