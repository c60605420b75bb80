import type { DecoderGraph } from '../../base/decoder-graph.js';
import { isExternal, tensorElements, tensorSize } from '../format/initializer.js';
import type { ModelProto, NodeProto } from '../format/model.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { floatAttribute, intAttribute, intsAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import type { SymbolicShapes } from '../graph/symbolic-shapes.js';
import { isHeadsSwap } from './heads.js';
import { inPlaceShapes, isSequence } from './in-place-shapes.js';

/** A normalization over the last dimension. */
interface Normalization {
  readonly input: string;
  readonly scale: string;
  /**
   * The bias of a layer normalization; undefined for a normalization that only divides by the root of the mean square.
   */
  readonly bias: string | undefined;
  readonly epsilon: number;
  /** The nodes that compute it. The last one returns the result. */
  readonly nodes: readonly NodeProto[];
}

/**
 * Fuses each normalization of a decoder with the residual sum before it into one node. ONNX Runtime has operators for
 * that, but finds only some of the forms that exporters write. A normalization that is written out is fused only in
 * FP32; nodes that compute in two types stay as they are.
 */
export function fuseNormalization(model: ModelProto, decoder: DecoderGraph): ModelProto {
  const graph = new EditableGraph(model);
  const shapes = inPlaceShapes(model, decoder);
  for (const node of [...graph.nodes]) {
    const found = matchOperator(node) ?? matchWritten(graph, shapes, node);
    if (found) fuse(graph, shapes, found);
  }
  for (const node of [...graph.nodes]) cancelTransposes(graph, node);
  return graph.finish();
}

/**
 * Drops two transpositions of heads that have only a normalization between them. They cancel out, because each element
 * keeps its neighbours in the last dimension.
 */
function cancelTransposes(graph: EditableGraph, last: NodeProto): void {
  const middle = isHeadsSwap(last) ? graph.producer(last.input[0]!) : undefined;
  if (!middle || operatorName(middle) !== 'SimplifiedLayerNormalization' || !only(graph, middle, 'Transpose'))
    return;
  const first = graph.producer(middle.input[0]!);
  if (!first || !isHeadsSwap(first) || graph.isOutput(last.output[0]!)) return;
  graph.setInput(middle, 0, first.input[0]!);
  graph.replaceReads(last.output[0]!, middle.output[0]!);
}

function fuse(
  graph: EditableGraph,
  shapes: SymbolicShapes,
  { input, scale, bias, epsilon, nodes }: Normalization,
) {
  const output = nodes.at(-1)!.output[0]!;
  const sum = graph.producer(input);
  const isResidual =
    sum !== undefined &&
    operatorName(sum) === 'Add' &&
    !graph.isOutput(input) &&
    sum.input.every((name) => isSequence(shapes.shape(name)));
  const isWritten = nodes.length > 1;
  if (!isResidual && !isWritten) return;
  for (const node of nodes) graph.removeNode(node);
  const weights = bias === undefined ? [scale] : [scale, bias];
  if (!isResidual) {
    const attributes = { axis: -1, epsilon: { float: epsilon }, stash_type: 1 };
    graph.addNode('SimplifiedLayerNormalization', [input, ...weights], attributes, { outputs: [output] });
    return;
  }
  graph.removeNode(sum);
  const operator = bias === undefined ? 'SkipSimplifiedLayerNormalization' : 'SkipLayerNormalization';
  const isRead = graph.readers(input).length > 0;
  graph.addNode(
    operator,
    [...sum.input, ...weights],
    { epsilon: { float: epsilon } },
    { domain: 'com.microsoft', outputs: isRead ? [output, '', '', input] : [output] },
  );
}

/** Matches the standard's operators. */
function matchOperator(node: NodeProto): Normalization | undefined {
  const operator = operatorName(node);
  if (intAttribute(node, 'axis', -1) !== -1 || node.output.slice(1).some((name) => name !== ''))
    return undefined;
  const isSimple = operator === 'RMSNormalization' || operator === 'SimplifiedLayerNormalization';
  if (!isSimple && operator !== 'LayerNormalization') return undefined;
  const [input = '', scale = '', bias = ''] = node.input;
  if (!isSimple && bias === '') return undefined;
  const epsilon = floatAttribute(node, 'epsilon', 1e-5);
  return { input, scale, bias: isSimple ? undefined : bias, epsilon, nodes: [node] };
}

/** Matches x / √(mean(x²) + ε) · scale, written out. `mean` is the node that computes the mean. */
function matchWritten(
  graph: EditableGraph,
  shapes: SymbolicShapes,
  mean: NodeProto,
): Normalization | undefined {
  if (operatorName(mean) !== 'ReduceMean') return undefined;
  const axes =
    intsAttribute(mean, 'axes') ?? shapes.elements(mean.input[1] ?? '')?.map((size) => size.constant);
  if (axes?.length !== 1 || intAttribute(mean, 'keepdims', 1) === 0) return undefined;
  const square = graph.producer(mean.input[0]!);
  const input = square && squared(graph, square);
  const rank = input === undefined ? undefined : shapes.shape(input)?.length;
  if (!square || input === undefined || rank === undefined || (axes[0] !== -1 && axes[0] !== rank - 1))
    return undefined;
  const sum = only(graph, mean, 'Add');
  const epsilon = sum && otherNumber(graph, sum, mean.output[0]!);
  const root = sum && only(graph, sum, 'Sqrt');
  const next = root && (only(graph, root, 'Reciprocal') ?? only(graph, root, 'Div'));
  if (!sum || epsilon === undefined || !root || !next) return undefined;
  const nodes = [square, mean, sum, root, next];
  let scaled = next;
  if (operatorName(next) === 'Div' && next.input[0] === input) {
    // The input is divided by the root directly.
  } else {
    const isInverse = operatorName(next) === 'Reciprocal' || number(graph, next.input[0]!) === 1;
    const product = isInverse ? only(graph, next, 'Mul') : undefined;
    if (!product || other(product, next.output[0]!) !== input) return undefined;
    nodes.push(product);
    scaled = product;
  }
  const weighted = only(graph, scaled, 'Mul');
  const scale = weighted && other(weighted, scaled.output[0]!);
  const width = shapes.shape(input)?.at(-1);
  const weight = scale === undefined ? undefined : graph.constant(scale);
  if (!weighted || !weight || weight.dims.length !== 1 || weight.dims[0] !== width?.constant)
    return undefined;
  return { input, scale: scale!, bias: undefined, epsilon, nodes: [...nodes, weighted] };
}

function squared(graph: EditableGraph, node: NodeProto): string | undefined {
  const [a = '', b = ''] = node.input;
  if (operatorName(node) === 'Mul' && a === b) return a;
  return operatorName(node) === 'Pow' && number(graph, b) === 2 ? a : undefined;
}

/** Returns the only reader of a node's output, if it has the given operator. */
function only(graph: EditableGraph, { output }: NodeProto, operator: string): NodeProto | undefined {
  const [value = ''] = output;
  const readers = graph.readers(value);
  const [reader] = readers;
  const isOnly = readers.length === 1 && !graph.isOutput(value);
  return isOnly && operatorName(reader!) === operator ? reader : undefined;
}

function other({ input }: NodeProto, value: string): string | undefined {
  return input[0] === value ? input[1] : input[0];
}

function otherNumber(graph: EditableGraph, node: NodeProto, value: string): number | undefined {
  const name = other(node, value);
  return name === undefined ? undefined : number(graph, name);
}

/** Returns the element of an FP32 constant that has only one. */
function number(graph: EditableGraph, value: string): number | undefined {
  const tensor = graph.constant(value);
  if (!tensor || isExternal(tensor) || tensorSize(tensor) !== 1 || tensor.dataType !== 1) return undefined;
  return Number(tensorElements(tensor)[0]);
}
