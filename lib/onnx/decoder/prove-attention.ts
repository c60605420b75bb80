import type { DataType } from '../../base/data-type.js';
import { normalNumbers } from '../../base/random.js';
import { isVisible } from './attention-mask.js';
import type { CacheTensor } from './decoder.js';
import type { GraphKnowledge } from './graph-knowledge.js';
import { Unrecognised } from './lift.js';
import type { AttentionMatch } from './match-attention.js';
import { floats, largestDifference, numbers } from './tensor-numbers.js';
import { formOf } from './value-form.js';

/** The formula that a layer's attention seems to follow: its inputs and output, and the numbers in the formula. */
export interface AttentionFormula {
  readonly match: AttentionMatch;
  readonly key: CacheTensor;
  /** The factor by which scores are multiplied. */
  readonly scale: number;
  /** The limit that bounds scores on both sides; 0 for none. */
  readonly softcap: number;
  /** The largest number of keys that a query sees; undefined for all keys up to its own. */
  readonly window: number | undefined;
}

/**
 * Runs the part of the graph between queries, cache and output on random numbers, and compares the results with
 * attention's formula.
 *
 * @returns the type of each layer's output
 * @throws (rejects) Unrecognised if the graph doesn't compute that formula
 */
export async function proveAttention(
  known: GraphKnowledge,
  layers: readonly AttentionFormula[],
  maxLength: number,
): Promise<DataType[]> {
  const proven = new Map<string, DataType>();
  const types: DataType[] = [];
  for (const layer of layers) {
    const { match, key } = layer;
    const sources = [match.query, match.key, match.value];
    const { scale, softcap, window } = layer;
    const { heads, kvHeads, headDim, outputLayout } = match;
    const form = JSON.stringify([
      formOf(known, sources, match.output),
      ...[scale, softcap, window, heads, kvHeads, headDim, outputLayout],
    ]);
    const before = proven.get(form);
    if (before) {
      types.push(before);
      continue;
    }
    const type = key.type as 'float32' | 'float16';
    const given = sources.map((name) => ({ name, type, rank: 4 }));
    const part = await known.steps.part([match.output], given);
    if (!part)
      throw new Unrecognised(
        `the attention of "${key.input}" reads more than queries, keys, values and mask`,
      );
    await using _ = part;
    for (const [past, count] of [
      [0, 5],
      [4, 3],
      [9, 1],
    ] as const) {
      const step = { rows: 1, past, new: count };
      const total = past + count;
      if (total > maxLength) continue;
      const normal = normalNumbers(past + 1);
      const random = (heads: number, length: number) =>
        Float32Array.from({ length: heads * length * match.headDim }, normal);
      const [q, k, v] = [
        random(match.heads, count),
        random(match.kvHeads, total),
        random(match.kvHeads, total),
      ];
      const tensors = {
        [match.query]: floats(type, q, [1, match.heads, count, match.headDim]),
        [match.key]: floats(type, k, [1, match.kvHeads, total, match.headDim]),
        [match.value]: floats(type, v, [1, match.kvHeads, total, match.headDim]),
      };
      const output = (await part.run(step, tensors))[match.output]!;
      proven.set(form, output.type as DataType);
      const difference = largestDifference(numbers(output), attention(layer, { q, k, v, past, count }));
      if (!(difference <= (type === 'float16' ? 3e-2 : 1e-4))) {
        throw new Unrecognised(
          `what gives "${match.output}" is not the attention that it looks like: on random numbers it differs by ${difference}`,
        );
      }
    }
    types.push(proven.get(form)!);
  }
  return types;
}

/**
 * Computes attention by its formula: `[heads, new, headDim]` if the output has heads first, and `[new, heads *
 * headDim]` otherwise.
 */
function attention(
  { match, scale, softcap, window }: AttentionFormula,
  {
    q,
    k,
    v,
    past,
    count,
  }: { q: Float32Array; k: Float32Array; v: Float32Array; past: number; count: number },
): Float32Array {
  const { heads, kvHeads, headDim } = match;
  const total = past + count;
  const result = new Float32Array(heads * count * headDim);
  for (let head = 0; head < heads; head++) {
    const source = Math.floor((head * kvHeads) / heads) * total * headDim;
    for (let token = 0; token < count; token++) {
      const query = (head * count + token) * headDim;
      const scores: number[] = [];
      for (let key = 0; key < total; key++) {
        let dot = 0;
        for (let dim = 0; dim < headDim; dim++) dot += q[query + dim]! * k[source + key * headDim + dim]!;
        const score = softcap ? softcap * Math.tanh((dot * scale) / softcap) : dot * scale;
        scores.push(isVisible(key, past + token, window) ? score : Number.NEGATIVE_INFINITY);
      }
      const most = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - most));
      const sum = weights.reduce((a, b) => a + b, 0);
      const at =
        match.outputLayout === 'heads-first'
          ? (head * count + token) * headDim
          : (token * heads + head) * headDim;
      for (let dim = 0; dim < headDim; dim++) {
        let value = 0;
        for (let key = 0; key < total; key++) value += weights[key]! * v[source + key * headDim + dim]!;
        result[at + dim] = value / sum;
      }
    }
  }
  return result;
}
