import { dataTypes } from '../../base/data-type.js';
import { tensorElements, tensorSize } from '../format/initializer.js';
import type { NodeProto, TensorProto } from '../format/model.js';
import { intAttribute, tensorAttribute } from './node-attribute.js';
import { operatorName } from './operators.js';
import { product, Size } from './size.js';

/** Shapes are short vectors, so a value with more elements isn't a shape. */
const maxElements = 16;

/** A shape, or a scalar that shapes are made of. */
export interface Elements {
  readonly dims: readonly number[];
  readonly values: readonly Size[];
}

/** The known facts about a node's inputs. */
export interface KnownSizes {
  shape(name: string): readonly Size[] | undefined;
  /**
   * Returns the elements of a vector or a scalar of integers; undefined if it is another value, or they aren't known.
   */
  elements(name: string): Elements | undefined;
}

/** Returns the elements of an integer tensor that may be a shape or a part of one; undefined for other tensors. */
export function elementsOf(tensor: TensorProto): Elements | undefined {
  if (!isWhole(tensor.dataType) || tensor.dims.length > 1) return undefined;
  if (tensorSize(tensor) > maxElements || tensor.dataLocation === 1) return undefined;
  const values = [...(tensorElements(tensor) as Iterable<number | bigint>)].map((value) =>
    Size.of(Number(value)),
  );
  return { dims: tensor.dims, values };
}

/**
 * Returns the elements that a node computes from shapes; undefined if no rule covers the node, or if the elements are
 * known only at run time.
 */
export function inferElements(node: NodeProto, known: KnownSizes): Elements | undefined {
  const operator = operatorName(node);
  const input = (i: number) => known.elements(node.input[i] ?? '');
  const [a, b, c] = [input(0), input(1), input(2)];
  switch (operator) {
    case 'Constant': {
      const [attribute] = node.attribute;
      if (attribute?.name === 'value') return elementsOf(attribute.t!);
      if (attribute?.name === 'value_int') return { dims: [], values: [Size.of(Number(attribute.i))] };
      if (attribute?.name === 'value_ints')
        return vector(attribute.ints!.map((value) => Size.of(Number(value))));
      return undefined;
    }
    case 'Shape': {
      const shape = known.shape(node.input[0]!);
      return (
        shape && vector(shape.slice(intAttribute(node, 'start', 0), intAttribute(node, 'end', shape.length)))
      );
    }
    case 'Size': {
      const shape = known.shape(node.input[0]!);
      return shape && { dims: [], values: [product(shape)] };
    }
    case 'Identity':
      return a;
    case 'Cast':
      return isWhole(intAttribute(node, 'to', 0)) ? a : undefined;
    case 'Unsqueeze':
      return a && a.dims.length === 0 ? vector(a.values) : undefined;
    case 'Squeeze':
      return a && a.values.length === 1 ? { dims: [], values: a.values } : undefined;
    case 'Reshape': {
      const target = b?.values.map((value) => value.constant);
      if (!a || target?.length !== 1)
        return a && target?.length === 0 ? { dims: [], values: a.values } : undefined;
      return vector(a.values);
    }
    case 'Gather': {
      const indices = b?.values.map((value) => value.constant);
      if (a?.dims.length !== 1 || !indices || indices.some((index) => index === undefined)) return undefined;
      const values = indices.map((index) => a.values.at(index!));
      if (values.some((value) => value === undefined)) return undefined;
      return { dims: b!.dims, values: values as Size[] };
    }
    case 'Slice': {
      if (a?.dims.length !== 1) return undefined;
      const step = input(4)?.values[0]?.constant ?? (node.input[4] ? undefined : 1);
      const [start, end] = [b?.values[0]?.constant, c?.values[0]?.constant];
      return start === undefined || end === undefined || step !== 1
        ? undefined
        : vector(a.values.slice(start, end));
    }
    case 'Concat': {
      const parts = node.input.map((name) => known.elements(name));
      if (!parts.every((part) => part?.dims.length === 1)) return undefined;
      return vector(parts.flatMap((part) => part!.values));
    }
    case 'ConstantOfShape': {
      const count = a?.values.length === 1 ? a.values[0]!.constant : a?.values.length === 0 ? 1 : undefined;
      const value = tensorAttribute(node, 'value');
      if (!a || count === undefined || count > maxElements || !value || !isWhole(value.dataType))
        return undefined;
      const element = Size.of(Number(tensorElements(value)[0]));
      return { dims: a.values.length === 0 ? [] : [count], values: new Array(count).fill(element) };
    }
    case 'Add':
      return a && b && zip(a, b, (x, y) => x.plus(y));
    case 'Sub':
      return a && b && zip(a, b, (x, y) => x.minus(y));
    case 'Mul':
      return a && b && zip(a, b, (x, y) => x.times(y));
    case 'Div':
      return a && b && zip(a, b, quotient);
    case 'Equal':
      return a && b && zip(a, b, areEqual);
    case 'Where':
      return a && b && c && chosen(a, b, c);
    default:
      return undefined;
  }
}

function isWhole(type: number): boolean {
  return type === dataTypes.int64.onnx || type === dataTypes.int32.onnx || type === dataTypes.bool.onnx;
}

const vector = (values: readonly Size[]): Elements => ({ dims: [values.length], values });

/**
 * Applies an operator to pairs of elements; a single element is paired with every element of the other operand. Returns
 * undefined if one of the results is undefined.
 */
function zip(
  a: Elements,
  b: Elements,
  combine: (x: Size, y: Size) => Size | undefined,
): Elements | undefined {
  const larger = a.dims.length > b.dims.length || a.values.length > b.values.length ? a : b;
  if ([a, b].some(({ values }) => values.length !== larger.values.length && values.length !== 1))
    return undefined;
  const at = ({ values }: Elements, i: number) => values[values.length === 1 ? 0 : i]!;
  const values = larger.values.map((_, i) => combine(at(a, i), at(b, i)));
  return values.every((value) => value !== undefined) ? { dims: larger.dims, values } : undefined;
}

/** Sizes are never negative, so truncating a quotient of constants rounds it down. */
function quotient(x: Size, y: Size): Size | undefined {
  const [a, b] = [x.constant, y.constant];
  return a !== undefined && b ? Size.of(Math.trunc(a / b)) : x.dividedBy(y);
}

function areEqual(x: Size, y: Size): Size | undefined {
  if (x.equals(y)) return Size.of(1);
  const difference = x.minus(y).constant;
  if (difference !== undefined) return Size.of(0);
  // In a list of sizes, -1 means "unchanged", so it never equals an actual size.
  const isMarker = (marker: Size, size: Size) => marker.constant === -1 && size.isCount;
  return isMarker(x, y) || isMarker(y, x) ? Size.of(0) : undefined;
}

function chosen(condition: Elements, yes: Elements, no: Elements): Elements | undefined {
  const none = Size.of('none');
  const ifYes = zip(condition, yes, (c, y) => (c.constant === undefined ? undefined : c.constant ? y : none));
  return ifYes && zip(ifYes, no, (y, n) => (y === none ? n : y));
}
