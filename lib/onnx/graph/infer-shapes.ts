import type { NodeProto } from '../format/model.js';
import type { KnownSizes } from './infer-elements.js';
import { intAttribute, intsAttribute } from './node-attribute.js';
import { elementWise, operatorName, sensitive } from './operators.js';
import { product, Size } from './size.js';

/**
 * Returns the shapes of a node's outputs; undefined if no rule covers the node, or if they are known only at run time.
 */
export function inferShapes(node: NodeProto, known: KnownSizes): (readonly Size[] | undefined)[] | undefined {
  const operator = operatorName(node);
  const shapes = node.input.map((name) => known.shape(name));
  const elements = (i: number) => known.elements(node.input[i] ?? '')?.values;
  const constants = (i: number) => {
    const values = elements(i)?.map((value) => value.constant);
    return values?.every((value) => value !== undefined) ? (values as number[]) : undefined;
  };
  const first = shapes[0];
  const axis = (fallback: number, rank = first?.length ?? 0) =>
    wrap(intAttribute(node, 'axis', fallback), rank);
  switch (operator) {
    case 'Constant': {
      const [attribute] = node.attribute;
      return attribute?.name === 'value' ? [attribute.t!.dims.map(Size.of)] : undefined;
    }
    case 'Shape':
      return first && [[Size.of(first.length)]];
    case 'Gather': {
      const [data, indices] = shapes;
      if (!data || !indices) return undefined;
      const at = axis(0);
      return [[...data.slice(0, at), ...indices, ...data.slice(at + 1)]];
    }
    case 'MatMul': {
      const [a, b] = shapes;
      if (!a || !b || a.length < 2 || b.length < 2) return undefined;
      const batch = broadcast(a.slice(0, -2), b.slice(0, -2));
      return batch && [[...batch, a.at(-2)!, b.at(-1)!]];
    }
    case 'Gemm': {
      const [a, b] = shapes;
      if (a?.length !== 2 || b?.length !== 2) return undefined;
      return [[a[intAttribute(node, 'transA', 0) ? 1 : 0]!, b[intAttribute(node, 'transB', 0) ? 0 : 1]!]];
    }
    case 'com.microsoft.MatMulNBits':
      return first && [[...first.slice(0, -1), Size.of(intAttribute(node, 'N', 0))]];
    case 'Transpose': {
      if (!first) return undefined;
      const order = intsAttribute(node, 'perm');
      return [order ? order.map((i) => first[i]!) : [...first].reverse()];
    }
    case 'Reshape': {
      const target = elements(1);
      return first && target && [reshaped(first, target, intAttribute(node, 'allowzero', 0) !== 0)];
    }
    case 'Flatten': {
      if (!first) return undefined;
      const at = intAttribute(node, 'axis', 1);
      return [[product(first.slice(0, at)), product(first.slice(at))]];
    }
    case 'Concat': {
      if (!first || shapes.some((shape) => shape === undefined)) return undefined;
      const at = axis(0);
      const size = shapes.reduce((sum, shape) => sum.plus(shape![at]!), Size.of(0));
      return [first.map((dim, i) => (i === at ? size : dim))];
    }
    case 'Split': {
      const at = axis(0);
      const sizes = elements(1) ?? intsAttribute(node, 'split')?.map(Size.of);
      const equal = first?.[at]?.dividedBy(Size.of(node.output.length));
      if (!first) return undefined;
      return node.output.map((_, i) => {
        const size = sizes ? sizes[i] : node.input[1] ? undefined : equal;
        return size && first.map((dim, j) => (j === at ? size : dim));
      });
    }
    case 'Slice': {
      const [starts, ends] = [constants(1), elements(2)];
      const axes = constants(3) ?? (node.input[3] ? undefined : starts?.map((_, i) => i));
      const steps = constants(4) ?? (node.input[4] ? undefined : starts?.map(() => 1));
      if (!first || !starts || !ends || !axes || !steps) return undefined;
      const dims: (Size | undefined)[] = [...first];
      axes.forEach((each, i) => {
        const at = wrap(each, first.length);
        const whole = steps[i]! > 0 ? sliced(first[at]!, starts[i]!, ends[i]!) : undefined;
        const count = whole?.constant;
        dims[at] =
          steps[i] === 1 ? whole : count === undefined ? undefined : Size.of(Math.ceil(count / steps[i]!));
      });
      return dims.every((dim) => dim !== undefined) ? [dims as Size[]] : undefined;
    }
    case 'Unsqueeze': {
      const axes = constants(1) ?? intsAttribute(node, 'axes');
      if (!first || !axes) return undefined;
      const rank = first.length + axes.length;
      const added = new Set(axes.map((each) => wrap(each, rank)));
      const rest = [...first];
      return [Array.from({ length: rank }, (_, i) => (added.has(i) ? Size.of(1) : rest.shift()!))];
    }
    case 'Squeeze': {
      const axes = constants(1) ?? intsAttribute(node, 'axes');
      if (!first || !axes) return undefined;
      const dropped = new Set(axes.map((each) => wrap(each, first.length)));
      return [first.filter((_, i) => !dropped.has(i))];
    }
    case 'Expand': {
      const target = elements(1);
      const shape = first && target && broadcast(first, target);
      return shape && [shape];
    }
    case 'ConstantOfShape': {
      const size = elements(0);
      return size && [size];
    }
    case 'Tile': {
      const repeats = elements(1);
      return first && repeats && [first.map((dim, i) => dim.times(repeats[i]!))];
    }
    case 'TopK': {
      const count = elements(1)?.[0];
      if (!first || !count) return undefined;
      const at = axis(-1);
      const shape = first.map((dim, i) => (i === at ? count : dim));
      return [shape, shape];
    }
    case 'GatherElements':
      return [shapes[1]];
    case 'GatherND': {
      const indices = shapes[1];
      const depth = indices?.at(-1)?.constant;
      if (!first || !indices || depth === undefined) return undefined;
      return [[...indices.slice(0, -1), ...first.slice(depth + intAttribute(node, 'batch_dims', 0))]];
    }
    case 'ScatterElements':
    case 'ScatterND':
    case 'Trilu':
      return [first];
    case 'Range': {
      const [start, limit, step] = [elements(0), elements(1), elements(2)].map((values) => values?.[0]);
      return start && limit && step?.constant === 1 ? [[limit.minus(start)]] : undefined;
    }
    case 'Attention': {
      const value = shapes[2];
      if (first?.length !== 4 || value?.length !== 4) return undefined;
      return [[...first.slice(0, 3), value[3]!]];
    }
    case 'com.microsoft.GroupQueryAttention': {
      const [, key, , pastKey, pastValue] = shapes;
      const [heads, kvHeads] = [intAttribute(node, 'num_heads', 0), intAttribute(node, 'kv_num_heads', 0)];
      const width = first?.[2]?.constant;
      if (!first || width === undefined) return undefined;
      // Queries, keys and values may be packed into one input.
      const headDim = width / (key ? heads : heads + 2 * kvHeads);
      return [[first[0]!, first[1]!, Size.of(heads * headDim)], pastKey, pastValue];
    }
    case 'com.microsoft.SkipSimplifiedLayerNormalization':
    case 'com.microsoft.SkipLayerNormalization':
      return node.output.map((_, i) => (i % 3 === 0 ? first : undefined));
    case 'CumSum':
    case 'RotaryEmbedding':
    case 'IsNaN':
    case 'Not':
    case 'com.microsoft.RotaryEmbedding':
    case 'com.microsoft.FastGelu':
    case 'com.microsoft.QuickGelu':
      return [first];
    case 'Equal':
    case 'Less':
    case 'LessOrEqual':
    case 'Greater':
    case 'GreaterOrEqual':
    case 'And':
    case 'Or':
    case 'Xor':
    case 'Pow':
    case 'Mod':
      return [broadcastAll(shapes)];
    case 'Cast':
      return [first];
  }
  if (/^Reduce/.test(operator)) return [reducedShape(node, first, constants(1))];
  if (
    sensitive.has(operator) &&
    /Softmax|Normalization|^(Sqrt|Reciprocal|Exp|Log|Sin|Cos|Softplus)$/.test(operator)
  ) {
    return [first];
  }
  if (notMapping.has(operator) || !elementWise.has(operator)) return undefined;
  return [broadcastAll(operator === 'BatchNormalization' ? shapes.slice(0, 1) : shapes)];
}

function reducedShape(node: NodeProto, shape: readonly Size[] | undefined, given: number[] | undefined) {
  const isWhole = !node.input[1] && intAttribute(node, 'noop_with_empty_axes', 0) === 0;
  const all = isWhole ? shape?.map((_, i) => i) : undefined;
  const axes = given ?? intsAttribute(node, 'axes') ?? all;
  if (!shape || !axes || axes.length === 0) return undefined;
  const reduced = new Set(axes.map((each) => wrap(each, shape.length)));
  if (intAttribute(node, 'keepdims', 1)) return shape.map((dim, i) => (reduced.has(i) ? Size.of(1) : dim));
  return shape.filter((_, i) => !reduced.has(i));
}

/** Operators in `elementWise` whose output doesn't have the shape of their inputs, and that no rule above covers. */
const notMapping = new Set([
  ...['Tile', 'Pad', 'DepthToSpace', 'SpaceToDepth', 'GatherElements', 'GatherND', 'Compress', 'MaxPool'],
  ...['GlobalMaxPool', 'ReverseSequence'],
]);

const wrap = (axis: number, rank: number) => (axis < 0 ? axis + rank : axis);

/** Returns undefined if the result depends on sizes that are known only at run time. */
function broadcast(a: readonly Size[], b: readonly Size[]): Size[] | undefined {
  const rank = Math.max(a.length, b.length);
  const one = Size.of(1);
  const at = (shape: readonly Size[], i: number) => shape[i - rank + shape.length] ?? one;
  const dims = Array.from({ length: rank }, (_, i) => {
    const [x, y] = [at(a, i), at(b, i)];
    if (x.equals(y) || y.constant === 1) return x;
    if (x.constant === 1) return y;
    // One of the two is 1, or they are equal.
    if (x.constant !== undefined && x.constant > 1) return y.constant === undefined ? x : undefined;
    return y.constant !== undefined && y.constant > 1 ? y : undefined;
  });
  return dims.every((dim) => dim !== undefined) ? dims : undefined;
}

function broadcastAll(shapes: readonly (readonly Size[] | undefined)[]): readonly Size[] | undefined {
  const [first, ...others] = shapes;
  return others.reduce((all, shape) => all && shape && broadcast(all, shape), first);
}

/**
 * In a target shape, 0 means the input's size in that position and -1 means the remaining size
 * (https://onnx.ai/onnx/operators/onnx__Reshape.html).
 */
function reshaped(input: readonly Size[], target: readonly Size[], allowZero: boolean): Size[] | undefined {
  const dims = target.map((size, i) => (size.constant === 0 && !allowZero ? input[i] : size));
  if (dims.some((dim) => dim === undefined)) return undefined;
  const free = dims.findIndex((dim) => dim!.constant === -1);
  if (free < 0) return dims as Size[];
  const remaining = [...input];
  const known: Size[] = [];
  for (const dim of dims.filter((_, i) => i !== free)) {
    const same = remaining.findIndex((other) => other.equals(dim!));
    if (same >= 0) remaining.splice(same, 1);
    else known.push(dim!);
  }
  const size = product(remaining).dividedBy(product(known));
  return size && (dims.map((dim, i) => (i === free ? size : dim)) as Size[]);
}

/** Returns the size of a slice with step 1; undefined if it depends on sizes that are known only at run time. */
function sliced(dim: Size, start: number, end: Size): Size | undefined {
  const size = dim.constant;
  const limit = end.constant;
  if (limit !== undefined && limit >= 2 ** 31 - 1) {
    if (start < 0) return size === undefined ? undefined : Size.of(Math.min(size, -start));
    return size === undefined
      ? start === 0
        ? dim
        : dim.minus(Size.of(start))
      : Size.of(Math.max(0, size - start));
  }
  if (size !== undefined && limit !== undefined) {
    const at = (index: number) => Math.min(Math.max(index < 0 ? index + size : index, 0), size);
    return Size.of(Math.max(0, at(limit) - at(start)));
  }
  if (start !== 0) return undefined;
  if (limit !== undefined) return limit < 0 ? dim.plus(end) : undefined;
  // If the end lies within the dimension, it is the size, because the slice starts at 0.
  return dim.minus(end).isCount ? end : undefined;
}
