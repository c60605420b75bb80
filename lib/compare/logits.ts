import type { Dims } from '../base/tensor-like.js';
import type { Numbers } from './difference.js';

/** The agreement of two tensors of scores, row by row. The last dimension is a row. */
export interface ScoreAgreement {
  /** Rows whose largest element is at the same place. */
  readonly agreeing: number;
  readonly rows: number;
  /** The sum over the rows of the Kullback–Leibler divergence of b from a, in nats. */
  readonly divergence: number;
}

/** The kind of an output's rows, which decides how divergence is computed: scores before a softmax, or its result. */
export type ScoreKind = 'logits' | 'probabilities';

/**
 * Tells whether an output's rows look like scores of classes or tokens: it has two or three dimensions ([batch, classes],
 * [batch, seq, vocabulary]) and a name that doesn't speak of hidden states; or its name says that it holds logits. They
 * are probabilities if none is negative and each row's sum is 1.
 */
export function scoreKind(name: string, dims: Dims, values: Numbers): ScoreKind | undefined {
  const columns = dims.at(-1) ?? 1;
  if (columns < 2 || values.length === 0) return undefined;
  const isNamed = /logit|prob|score/i.test(name);
  const isVector = /hidden|embed|pool|feature|state|present|cache/i.test(name);
  if (!isNamed && (isVector || dims.length < 2 || dims.length > 3)) return undefined;
  return isDistribution(values, columns) ? 'probabilities' : 'logits';
}

function isDistribution(values: Numbers, columns: number): boolean {
  for (let start = 0; start < values.length; start += columns) {
    let sum = 0;
    for (let i = start; i < start + columns; i++) {
      if (!(values[i]! >= 0)) return false;
      sum += values[i]!;
    }
    if (Math.abs(sum - 1) > 1e-2) return false;
  }
  return true;
}

/** Compares rows of `columns` numbers. */
export function scoreAgreement(
  reference: Numbers,
  other: Numbers,
  columns: number,
  kind: ScoreKind | undefined,
): ScoreAgreement {
  let [agreeing, rows, divergence] = [0, 0, 0];
  for (let start = 0; start + columns <= reference.length; start += columns) {
    rows++;
    if (largestAt(reference, start, columns) === largestAt(other, start, columns)) agreeing++;
    if (kind === 'logits') divergence += divergenceOfLogits(reference, other, start, columns);
    if (kind === 'probabilities') divergence += divergenceOfProbabilities(reference, other, start, columns);
  }
  return { agreeing, rows, divergence };
}

/** The place of a row's first largest element; −1 if there is a NaN. */
function largestAt(values: Numbers, start: number, columns: number): number {
  let at = 0;
  for (let i = 0; i < columns; i++) {
    if (Number.isNaN(values[start + i]!)) return -1;
    if (values[start + i]! > values[start + at]!) at = i;
  }
  return at;
}

/** Σ p·(log p − log q), where p and q are the softmax of both rows. */
function divergenceOfLogits(reference: Numbers, other: Numbers, start: number, columns: number): number {
  const a = logSumExp(reference, start, columns);
  const b = logSumExp(other, start, columns);
  let sum = 0;
  for (let i = start; i < start + columns; i++) {
    const logP = reference[i]! - a;
    const p = Math.exp(logP);
    // A score of minus infinity has no probability, and adds nothing.
    if (p !== 0) sum += p * (logP - (other[i]! - b));
  }
  return settled(sum);
}

function divergenceOfProbabilities(a: Numbers, b: Numbers, start: number, columns: number): number {
  let sum = 0;
  for (let i = start; i < start + columns; i++) if (a[i]! > 0) sum += a[i]! * Math.log(a[i]! / b[i]!);
  return settled(sum);
}

/** No divergence is negative, but for rounding; one with a NaN is the largest. */
function settled(divergence: number): number {
  return Number.isNaN(divergence) ? Number.POSITIVE_INFINITY : Math.max(0, divergence);
}

function logSumExp(values: Numbers, start: number, columns: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = start; i < start + columns; i++) largest = Math.max(largest, values[i]!);
  let sum = 0;
  for (let i = start; i < start + columns; i++) sum += Math.exp(values[i]! - largest);
  return largest + Math.log(sum);
}
