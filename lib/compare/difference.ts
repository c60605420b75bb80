import type { Tensor } from '../execution/tensor.js';
import { valuesOf } from '../execution/tensor-elements.js';

/** The difference between two tensors of the same shape. The first is the reference. */
export interface Difference {
  /** The largest difference of two elements. Infinity if `nonFinite` isn't 0. */
  readonly largest: number;
  /** The mean difference of the elements that are finite in both. */
  readonly mean: number;
  /** `largest`, divided by the largest finite magnitude of the reference; by 1 if that is 0. */
  readonly relative: number;
  /** The Euclidean norm of the difference, divided by that of the reference; by 1 if that is 0. Infinity if `nonFinite` isn't 0. */
  readonly relativeNorm: number;
  /** The cosine of the angle between them, from the elements that are finite in both; 1 if both are zero, 0 if one is. */
  readonly cosine: number;
  /** Elements that are NaN or infinite in one and something else in the other. */
  readonly nonFinite: number;
}

/** Numbers of a tensor: integers of 64 bits become float64, 16-bit patterns float32. */
export type Numbers = ArrayLike<number>;

/** @returns undefined for strings */
export function numbersOf(tensor: Pick<Tensor, 'type' | 'data'>): Numbers | undefined {
  const { type } = tensor;
  const data: ArrayBufferView | readonly string[] = tensor.data;
  if (type === 'string') return undefined;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) return Float64Array.from(data, Number);
  return valuesOf(type, data) as Numbers;
}

/** Compares two lists of as many numbers. */
export function differenceOf(reference: Numbers, other: Numbers): Difference {
  let [largest, sum, scale, finite, nonFinite] = [0, 0, 0, 0, 0];
  let [squares, ofReference, ofOther, product] = [0, 0, 0, 0];
  for (let i = 0; i < reference.length; i++) {
    const x = reference[i]!;
    const y = other[i]!;
    const apart = Math.abs(x - y);
    // The difference is finite if both are, and if not too large to be represented.
    if (apart < Number.POSITIVE_INFINITY) {
      if (apart > largest) largest = apart;
      const magnitude = Math.abs(x);
      if (magnitude > scale) scale = magnitude;
      finite++;
      sum += apart;
      squares += apart * apart;
      ofReference += x * x;
      ofOther += y * y;
      product += x * y;
    } else {
      if (!Object.is(x, y)) nonFinite++;
      if (Math.abs(x) < Number.POSITIVE_INFINITY && Math.abs(x) > scale) scale = Math.abs(x);
    }
  }
  if (nonFinite > 0) largest = Number.POSITIVE_INFINITY;
  return {
    largest,
    mean: finite > 0 ? sum / finite : 0,
    relative: largest / (scale || 1),
    relativeNorm: nonFinite > 0 ? Number.POSITIVE_INFINITY : Math.sqrt(squares / (ofReference || 1)),
    cosine: squares === 0 ? 1 : cosine(product, ofReference, ofOther),
    nonFinite,
  };
}

function cosine(product: number, first: number, second: number): number {
  if (first === 0 || second === 0) return 0;
  // Rounding may lead beyond 1.
  return Math.max(-1, Math.min(1, product / (Math.sqrt(first) * Math.sqrt(second))));
}

/** Strings are equal, or as far apart as a NaN is from a number. */
export function differenceOfStrings(reference: readonly string[], other: readonly string[]): Difference {
  const nonFinite = reference.filter((text, i) => text !== other[i]).length;
  const largest = nonFinite > 0 ? Number.POSITIVE_INFINITY : 0;
  const cosine = nonFinite > 0 ? 0 : 1;
  return { largest, mean: 0, relative: largest, relativeNorm: largest, cosine, nonFinite };
}

/** The worst of what several samples gave; `mean` is the mean of theirs, `nonFinite` the sum. */
export function worst(samples: readonly Difference[]): Difference {
  const most = (of: (sample: Difference) => number) =>
    samples.reduce((all, each) => Math.max(all, of(each)), 0);
  return {
    largest: most(({ largest }) => largest),
    mean: samples.reduce((sum, { mean }) => sum + mean, 0) / (samples.length || 1),
    relative: most(({ relative }) => relative),
    relativeNorm: most(({ relativeNorm }) => relativeNorm),
    cosine: samples.reduce((all, each) => Math.min(all, each.cosine), 1),
    nonFinite: samples.reduce((sum, { nonFinite }) => sum + nonFinite, 0),
  };
}

/** Magnitudes from here on are those of masks, which stand for minus infinity. */
const maskMagnitude = 1e30;

/** Elements that a median is taken of. */
const medianSamples = 4096;

/**
 * How far a value is off where it was computed from the same inputs: the largest difference of two elements, each
 * divided by its own magnitude or by the value's usual one, whichever is larger. The usual one is four times the median
 * of the magnitudes that aren't zero, and at least 2⁻¹⁰ of the largest. The largest alone won't do: an attention mask
 * of −10000 would hide what happens to the scores beside it.
 */
export function localError(reference: Numbers, other: Numbers): number {
  const usual = usualMagnitude(reference);
  let most = 0;
  for (let i = 0; i < reference.length; i++) {
    const x = reference[i]!;
    const apart = Math.abs(x - other[i]!);
    if (apart === 0 || Object.is(x, other[i])) continue;
    const error = apart / Math.max(Math.abs(x), usual);
    if (!(error < Number.POSITIVE_INFINITY) || !(Math.abs(other[i]!) < Number.POSITIVE_INFINITY)) {
      return Number.POSITIVE_INFINITY;
    }
    if (error > most) most = error;
  }
  return most;
}

function usualMagnitude(values: Numbers): number {
  const step = Math.max(1, Math.floor(values.length / medianSamples));
  const sample: number[] = [];
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]!);
    if (!(magnitude > 0 && magnitude < maskMagnitude)) continue;
    if (magnitude > largest) largest = magnitude;
    if (i % step === 0) sample.push(magnitude);
  }
  sample.sort((x, y) => x - y);
  return Math.max(4 * (sample[sample.length >> 1] ?? 0), largest / 1024) || 1;
}
