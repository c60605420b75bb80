import { type DataType, dataTypeFromOnnx } from '../../base/data-type.js';
import type { DeclaredInput } from '../../base/shapes.js';
import type { GraphProto, ModelProto, ValueInfoProto } from '../format/model.js';

/** A value's name, type and shape, as a graph declares them. */
export interface ValueType {
  readonly name: string;
  /** The type of its elements; undefined if it isn't a tensor, or if its type isn't a {@link DataType}. */
  readonly type: DataType | undefined;
  /**
   * The dimensions. A string names a dynamic dimension and is '' if the dimension has no name; undefined if the graph
   * doesn't even give the rank.
   */
  readonly shape: readonly (number | string)[] | undefined;
}

export function valueType({ name, type }: ValueInfoProto): ValueType {
  const { elemType, shape } = type?.tensorType ?? {};
  return {
    name,
    type: elemType === undefined ? undefined : dataTypeFromOnnx(elemType),
    shape: shape?.dim.map((dim) => dim.dimValue ?? dim.dimParam ?? ''),
  };
}

/** Returns the inputs that a run must provide. Weights, which old models also list as inputs, are left out. */
export function graphInputs(graph: GraphProto): ValueType[] {
  const weights = new Set(graph.initializer.map((tensor) => tensor.name));
  return graph.input.filter(({ name }) => !weights.has(name)).map(valueType);
}

/** Returns a model's inputs without its weights. Builds refuse inputs without a rank; here they count as scalars. */
export function declaredInputs({ graph }: ModelProto): DeclaredInput[] {
  return graphInputs(graph).map(({ name, type, shape = [] }) => ({ name, type, shape }));
}
