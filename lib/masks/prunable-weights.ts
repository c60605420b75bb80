import { type DataType, dataTypeFromOnnx } from '../base/data-type.js';
import { tensorSize } from '../onnx/format/initializer.js';
import type { GraphProto, NodeProto, TensorProto } from '../onnx/format/model.js';
import { intAttribute, intsAttribute } from '../onnx/graph/node-attribute.js';
import { operatorName } from '../onnx/graph/operators.js';
import { producersOf, readersOf } from '../onnx/graph/traverse.js';

/** A weight of a convolution, a matrix product or an embedding, and why it shouldn't be pruned. */
export interface ProductWeight {
  readonly tensor: TensorProto;
  /** Its name. */
  readonly name: string;
  /** The type of its elements; undefined for one that this package doesn't name. */
  readonly type: DataType | undefined;
  /** The nodes that multiply by it; for an embedding, none. */
  readonly products: readonly Product[];
  /** The nodes that multiply by it; for an embedding, those that look rows up in it. */
  readonly readers: readonly NodeProto[];
  /** Why it shouldn't be pruned; undefined if it may be. */
  readonly problem: Problem | undefined;
}

/** A reason not to prune a weight. */
export interface Problem {
  readonly reason: string;
  /** True if it only isn't worth it: a caller who names the weight may prune it. */
  readonly isAdvice: boolean;
}

/** A node that multiplies by a weight. */
export interface Product {
  readonly node: NodeProto;
  /** The number of the node's input that is the weight, directly or transposed. */
  readonly input: number;
  /** The weight's axis over which products are summed, along which TensorRT wants 2:4: a convolution's input channels. */
  readonly axis: number;
}

/** The weights and nodes that values come from, by name. */
interface Sources {
  readonly initializers: ReadonlyMap<string, TensorProto>;
  readonly producers: ReadonlyMap<string, NodeProto>;
}

/** Weights with fewer elements save nothing. */
const fewElements = 1024;

/** Operators between the last product of a model and its output that make no hidden state of it. */
const finishing = new Set(
  `Add Sub Mul Div Cast Identity Reshape Flatten Squeeze Unsqueeze Transpose Slice Gather Softmax LogSoftmax Sigmoid Tanh
  Clip TopK ArgMax`.split(/\s+/),
);

/**
 * Lists the weights of a model's convolutions, matrix products and embeddings, in the order of the nodes. Weights inside
 * of loops and branches aren't among them. A tensor's elements aren't looked at, so they may be in other files.
 */
export function productWeights(graph: GraphProto): ProductWeight[] {
  const initializers = new Map(graph.initializer.map((tensor) => [tensor.name!, tensor]));
  const readers = readersOf(graph);
  const sources: Sources = { initializers, producers: producersOf(graph) };
  const found = new Map<string, Product[]>();
  for (const node of graph.node) {
    for (const [input, source] of node.input.entries()) {
      const axis = summedAxis(node, input, rankOf(source, sources));
      if (axis === undefined) continue;
      const origin = originOf(source, axis, sources);
      if (!origin) continue;
      const products = found.get(origin.name) ?? [];
      found.set(origin.name, [...products, { node, input, axis: origin.axis }]);
    }
    const [table = ''] = node.input;
    const isTable = operatorName(node) === 'Gather' && (initializers.get(table)?.dims.length ?? 0) >= 2;
    if (isTable && !found.has(table)) found.set(table, []);
  }
  return [...found].map(([name, products]) => {
    const tensor = initializers.get(name)!;
    const type = dataTypeFromOnnx(tensor.dataType);
    const problem = problemOf(tensor, type, products, graph, readers);
    const users = products.length > 0 ? products.map(({ node }) => node) : (readers.get(name) ?? []);
    return { tensor, name, type, products, readers: users, problem };
  });
}

/** The axis of a node's input over which its products are summed; undefined if the input is no factor of a product. */
function summedAxis(node: NodeProto, input: number, rank: number | undefined): number | undefined {
  if (rank === undefined || rank < 2) return undefined;
  switch (operatorName(node)) {
    case 'MatMul':
      return input === 0 ? rank - 1 : input === 1 ? rank - 2 : undefined;
    case 'Gemm':
      if (input === 0) return intAttribute(node, 'transA', 0) ? 0 : 1;
      if (input === 1) return intAttribute(node, 'transB', 0) ? 1 : 0;
      return undefined;
    case 'Conv':
      return input === 1 ? 1 : undefined;
    case 'ConvTranspose':
      return input === 1 ? 0 : undefined;
    default:
      return undefined;
  }
}

/** The number of dimensions of a weight, or of what a node makes of one. */
function rankOf(value: string, sources: Sources): number | undefined {
  const name = originOf(value, 0, sources)?.name;
  return name === undefined ? undefined : sources.initializers.get(name)!.dims.length;
}

/** The weight that a value is, directly, cast or transposed, and the weight's axis for one of the value's. */
function originOf(value: string, axis: number, sources: Sources): { name: string; axis: number } | undefined {
  const { initializers, producers } = sources;
  if (initializers.has(value)) return { name: value, axis };
  const node = producers.get(value);
  if (!node) return undefined;
  const [source = ''] = node.input;
  const operator = operatorName(node);
  if (operator === 'Identity' || operator === 'Cast') return originOf(source, axis, sources);
  if (operator !== 'Transpose') return undefined;
  const origin = originOf(source, 0, sources);
  if (!origin) return undefined;
  const rank = initializers.get(origin.name)!.dims.length;
  const order = intsAttribute(node, 'perm') ?? Array.from({ length: rank }, (_, d) => rank - 1 - d);
  return originOf(source, order[axis] ?? axis, sources);
}

function problemOf(
  tensor: TensorProto,
  type: DataType | undefined,
  products: readonly Product[],
  graph: GraphProto,
  readers: ReadonlyMap<string, readonly NodeProto[]>,
): Problem | undefined {
  const impossible = (reason: string) => ({ reason, isAdvice: false });
  const unwise = (reason: string) => ({ reason, isAdvice: true });
  const { dims } = tensor;
  if (type !== 'float32' && type !== 'float16' && type !== 'bfloat16') {
    return impossible(
      `its type is ${type ?? `ONNX's number ${tensor.dataType}`}, not float32, float16 or bfloat16`,
    );
  }
  const others = (readers.get(tensor.name!) ?? []).filter(
    (node) => !products.some((product) => product.node === node) && !isPassedOn(node),
  );
  const table = others.find((node) => operatorName(node) === 'Gather');
  if (table) return impossible('it is an embedding, a table in which rows are looked up');
  if (others.length > 0) return impossible(`a ${others[0]!.opType} reads it too`);
  if (graph.output.some(({ name }) => name === tensor.name))
    return impossible('it is an output of the model');
  if (tensorSize(tensor) < fewElements) return unwise(`it is small: ${tensorSize(tensor)} elements`);
  const isDepthwise = products.some(({ node }) => /^Conv/.test(node.opType)) && dims[1] === 1;
  if (isDepthwise) return unwise('its convolution is depthwise: each channel has few weights');
  const outputs = new Set(graph.output.map(({ name }) => name));
  const isHead = products.every(({ node }) => reachesOutput(node, readers, outputs, new Set()));
  if (isHead) return unwise("it is the model's head, whose products are its output");
  return undefined;
}

const isPassedOn = (node: NodeProto) => /^(Identity|Cast|Transpose)$/.test(operatorName(node));

/** True if every way from a node to the end of the graph leads to an output, through nothing but finishing operators. */
function reachesOutput(
  node: NodeProto,
  readers: ReadonlyMap<string, readonly NodeProto[]>,
  outputs: ReadonlySet<string>,
  seen: Set<NodeProto>,
): boolean {
  if (seen.has(node)) return true;
  seen.add(node);
  let isRead = false;
  for (const value of node.output) {
    if (outputs.has(value)) isRead = true;
    for (const next of readers.get(value) ?? []) {
      if (!finishing.has(operatorName(next)) || !reachesOutput(next, readers, outputs, seen)) return false;
      isRead = true;
    }
  }
  return isRead;
}
