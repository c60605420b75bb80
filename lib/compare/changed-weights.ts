import { dataTypes } from '../base/data-type.js';
import { maxFloat16 } from '../base/float16.js';
import { floatElements } from '../onnx/format/float-tensor.js';
import type { NodeProto, TensorProto } from '../onnx/format/model.js';
import { operatorName } from '../onnx/graph/operators.js';
import type { LowPrecision } from '../onnx/precision/low-type.js';
import type { ComparedGraph } from './compared-graph.js';
import type { ValuePair } from './match-values.js';
import type { ModelPair } from './model-pair.js';

/** The most that rounding changes a number, relative to the number: half a unit in the last place, doubled to be safe. */
const roundings: Readonly<Record<LowPrecision | 'fp32', number>> = {
  fp32: 2 ** -22,
  fp16: 2 ** -10,
  bf16: 2 ** -7,
};

/** FP16's smallest numbers, and what converters put in their place (onnxconverter-common: 1e-7). */
const smallest = 2e-7;

/** Converters limit larger numbers (onnxconverter-common: 1e4), which stand for infinity in masks. */
const limited = 1e4;

/**
 * The nodes of a that read a floating-point weight which isn't the same in b, apart from rounding. Weights are compared
 * if they have the same dimensions.
 *
 * @throws TensorRTError ERR_MODEL_INVALID, ERR_MODEL_NOT_FOUND or ERR_IO for weights that can't be read
 */
export function nodesWithChangedWeights(
  models: ModelPair,
  a: ComparedGraph,
  b: ComparedGraph,
  pairs: readonly ValuePair[],
): ReadonlySet<NodeProto> {
  const known = new Map<string, boolean>();
  const isChanged = (name: string, other: string): boolean => {
    const [x, y] = [a.weight(name), b.weight(other)];
    if (!x || !y || x === y) return false;
    const key = JSON.stringify([name, other]);
    const result =
      known.get(key) ??
      (isFloatWeight(x) && isFloatWeight(y) && haveSameDims(x, y) && !areSameWeights(models, x, y));
    known.set(key, result);
    return result;
  };
  const counterparts = new Map(pairs.map(({ node, b: value }) => [node, b.producers.get(value)]));
  return new Set(
    a.computing.filter((node) => {
      const other = counterparts.get(node);
      const isSame =
        other && operatorName(other) === operatorName(node) && other.input.length === node.input.length;
      // A node of b that computes in another way still reads the weights by their names, if it reads them.
      return node.input.some((name, i) => isChanged(name, isSame ? other.input[i]! : name));
    }),
  );
}

/**
 * True if two floating-point weights have the same dimensions and, apart from rounding, the same elements.
 * @throws as {@link nodesWithChangedWeights}
 */
export function areSameWeights({ a, b }: ModelPair, x: TensorProto, y: TensorProto): boolean {
  if (!isFloatWeight(x) || !isFloatWeight(y) || !haveSameDims(x, y)) return false;
  const [reference, other] = [floatElements(x, a.where), floatElements(y, b.where)];
  const both = [a.precision, b.precision];
  const precision = both.includes('bf16') ? 'bf16' : both.includes('fp16') ? 'fp16' : 'fp32';
  const part = roundings[precision];
  const least = precision === 'fp32' ? 0 : smallest;
  const limit = precision === 'fp32' ? Number.POSITIVE_INFINITY : limited;
  for (let i = 0; i < reference.length; i++) {
    const [u, v] = [reference[i]!, other[i]!];
    if (u === v || Math.abs(u - v) <= Math.max(Math.abs(u) * part, least)) continue;
    const isLimited = Math.abs(u) > limit && Math.abs(v) >= limit && u > 0 === v > 0;
    // An infinite weight is one that overflowed, unless it is a mask.
    if (isLimited && (Number.isFinite(v) || Math.abs(u) > maxFloat16)) continue;
    if (Number.isNaN(u) && Number.isNaN(v)) continue;
    return false;
  }
  return true;
}

function haveSameDims(x: TensorProto, y: TensorProto): boolean {
  return String(x.dims) === String(y.dims);
}

function isFloatWeight({ dataType }: TensorProto): boolean {
  const { float32, float16, bfloat16 } = dataTypes;
  return [float32.onnx, float16.onnx, bfloat16.onnx].includes(dataType);
}
