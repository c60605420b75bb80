import { fromFloat16Bits, toFloat16Bits } from '../../base/float16.js';
import type { TensorLike } from '../../base/tensor-like.js';

/** Makes a tensor from float32 numbers, rounded to a type. */
export function floats(type: 'float32' | 'float16', values: Float32Array, dims: number[]): TensorLike {
  return { type, dims, data: type === 'float16' ? toFloat16Bits(values) : values };
}

/** Returns the numbers of a tensor as float32. Hosts may hold float16 in different types of arrays. */
export function numbers({ type, data }: TensorLike): Float32Array {
  if (type === 'float16' && data instanceof Uint16Array) return fromFloat16Bits(data);
  return data instanceof Float32Array ? data : Float32Array.from(data as unknown as Iterable<number>);
}

/**
 * Returns the largest difference between two lists of numbers. It is infinite if their lengths differ, and NaN if one
 * of the numbers is NaN.
 */
export function largestDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}
