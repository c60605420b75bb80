import { products } from '../graph/operators.js';
import type { NodeChoice } from './choose-precision.js';
import type { LowPrecision } from './low-type.js';
import type { Ranges, RangesReport } from './ranges.js';
import type { WrittenCasts } from './write-casts.js';

/** The precision that was chosen for a node, and the reason. */
export interface CastNode {
  /** The node's name, or that of its first output if it has none. */
  readonly node: string;
  readonly operator: string;
  readonly precision: 'fp16' | 'bf16' | 'fp32';
  readonly reason: string;
}

/** The result of a cast. */
export interface CastReport {
  /** The source of the ranges, or the reason why there are none. */
  readonly ranges: RangesReport;
  /** All nodes of the given model that compute with float32, in the model's order. */
  readonly nodes: readonly CastNode[];
  /** Matrix products and convolutions that stayed in FP32, with the reasons. */
  readonly kept: readonly { readonly node: string; readonly reason: string }[];
  /** The number of casts inserted. */
  readonly casts: number;
  /** The number of weights converted, and their size in bytes after that. */
  readonly weights: number;
  readonly weightBytes: number;
}

/** The report of a cast to float16. */
export interface CastFloat16Report extends CastReport {
  /** The number of nodes that compute in FP16, by operator type. */
  readonly float16: Readonly<Record<string, number>>;
}

/** The report of a cast to bfloat16. */
export interface CastBfloat16Report extends CastReport {
  /** The number of nodes that compute in BF16, by operator type. */
  readonly bfloat16: Readonly<Record<string, number>>;
}

export function castReport(
  choices: readonly NodeChoice[],
  precision: LowPrecision,
  ranges: Ranges | undefined,
  { casts, weights }: WrittenCasts,
): CastReport {
  const none = precision === 'bf16' ? 'BF16 has the range of float32' : 'options.ranges gives none';
  return {
    ranges: ranges?.report ?? { source: 'none', reason: none },
    nodes: choices
      .filter(({ kind }) => kind === 'low' || kind === 'high')
      .map((choice) => ({
        node: labelOf(choice),
        operator: choice.operator,
        precision: choice.kind === 'low' ? precision : 'fp32',
        reason: choice.reason,
      })),
    kept: choices
      .filter(({ kind, operator, inputs }) => kind === 'high' && products.has(operator) && inputs.length > 0)
      .map((choice) => ({ node: labelOf(choice), reason: choice.reason })),
    casts,
    weights: weights.length,
    weightBytes: weights.reduce((sum, tensor) => sum + tensor.rawData!.length, 0),
  };
}

/** Counts the nodes that compute in 16 bits, by operator type. */
export function countLow(choices: readonly NodeChoice[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { kind, node } of choices) {
    if (kind === 'low') counts.set(node.opType, (counts.get(node.opType) ?? 0) + 1);
  }
  return Object.fromEntries(counts);
}

function labelOf({ node, operator }: NodeChoice): string {
  return node.name || node.output[0] || operator;
}
