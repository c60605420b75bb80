import type { DecoderGraph } from '../../base/decoder-graph.js';
import { type ExternalDataOptions, tensorElements } from '../format/initializer.js';
import type { ModelProto, NodeProto } from '../format/model.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { intAttribute, intsAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import { captured } from '../graph/traverse.js';
import { inPlaceShapes, isSequence } from './in-place-shapes.js';

/** Operators that work element by element, if their numbers or weights are the same for all positions. */
const mappings = new Set([
  ...[
    'Add',
    'Sub',
    'Mul',
    'Div',
    'Pow',
    'Min',
    'Max',
    'Neg',
    'Abs',
    'Sqrt',
    'Reciprocal',
    'Exp',
    'Log',
    'Erf',
    'Tanh',
  ],
  ...[
    'Sigmoid',
    'Relu',
    'Gelu',
    'Softplus',
    'Clip',
    'Cast',
    'Identity',
    'LeakyRelu',
    'HardSigmoid',
    'Silu',
    'Swish',
  ],
  ...['com.microsoft.FastGelu', 'com.microsoft.QuickGelu', 'com.microsoft.BiasGelu', 'com.microsoft.Gelu'],
]);

const normalizations = new Set([
  ...['LayerNormalization', 'SimplifiedLayerNormalization', 'RMSNormalization', 'Softmax'],
  ...['com.microsoft.SkipLayerNormalization', 'com.microsoft.SkipSimplifiedLayerNormalization'],
]);

/**
 * Makes a decoder compute the logits of the last position only, `[rows, vocabulary]`. The other positions are dropped
 * as soon as nothing else needs them, so only one token is computed after the attention of the last layer. Returns the
 * model unchanged if that isn't possible.
 */
export function keepLastPosition(model: ModelProto, decoder: DecoderGraph): ModelProto {
  const { logits } = decoder;
  const graph = new EditableGraph(model);
  const shapes = inPlaceShapes(model, decoder);
  if (!isSequence(shapes.shape(logits))) return model;
  const { needed } = graph;
  const kept = new Set<NodeProto>();
  const values = [logits];
  const gathered = new Map<string, string>();
  // Nodes are visited from the end. A node can be limited to the last position if every node that reads it is limited
  // to it.
  while (values.length > 0) {
    const value = values.shift()!;
    const node = graph.producer(value);
    if (!node || kept.has(node)) continue;
    const isInner = node.output.every(
      (output) =>
        output === '' ||
        output === logits ||
        (!graph.isOutput(output) &&
          graph.readers(output).every((reader) => isUseless(reader) || kept.has(reader))),
    );
    if (!isInner || !isPositionwise(node)) continue;
    kept.add(node);
    values.push(...node.input);
  }
  if (kept.size === 0) return model;
  const index = graph.addConstant('last_position', 'int64', [], BigInt64Array.of(-1n));
  for (const node of kept) {
    node.input.forEach((value, i) => {
      const producer = graph.producer(value);
      if ((producer && kept.has(producer)) || !isSequence(shapes.shape(value))) return;
      if (!gathered.has(value)) gathered.set(value, graph.addNode('Gather', [value, index], { axis: 1 })[0]!);
      graph.setInput(node, i, gathered.get(value)!);
    });
  }
  dropPositions(graph, logits);
  const changed = graph.finish();
  // The types that the exporter recorded are for all positions.
  return { ...changed, graph: { ...changed.graph, valueInfo: [] } };

  function isUseless(node: NodeProto): boolean {
    return !node.output.some((value) => needed.has(value));
  }

  /** True if a node computes each position independently, with two dimensions as well as with three. */
  function isPositionwise(node: NodeProto): boolean {
    const operator = operatorName(node);
    const [first = '', ...others] = node.input;
    const isPlain = (value: string) => value === '' || (shapes.shape(value)?.length ?? 9) <= 1;
    if (!node.output.every((value) => value === '' || isSequence(shapes.shape(value)))) return false;
    if (mappings.has(operator)) {
      return node.input.every((value) => isPlain(value) || isSequence(shapes.shape(value)));
    }
    if (!isSequence(shapes.shape(first))) return false;
    if (normalizations.has(operator)) {
      return (
        intAttribute(node, 'axis', -1) === -1 &&
        others.every((value) => isPlain(value) || isSequence(shapes.shape(value)))
      );
    }
    if (operator === 'MatMul') return shapes.shape(others[0]!)?.length === 2;
    if (operator === 'com.microsoft.MatMulNBits') return true;
    if (operator === 'com.microsoft.FusedMatMul')
      return shapes.shape(others[0]!)?.length === 2 && intAttribute(node, 'transA', 0) === 0;
    if (operator === 'ReduceMean' || operator === 'ReduceSum') {
      const axes =
        intsAttribute(node, 'axes') ?? shapes.elements(others[0] ?? '')?.map((size) => size.constant);
      return axes?.length === 1 && axes[0] === -1 && intAttribute(node, 'keepdims', 1) !== 0;
    }
    if (operator === 'Split') return intAttribute(node, 'axis', 0) === -1;
    if (operator === 'Slice') {
      const axes = shapes.elements(others[2] ?? '')?.map((size) => size.constant);
      return axes?.length === 1 && axes[0] === -1;
    }
    return false;
  }
}

/** Declares that the logits are for a single position only. */
function dropPositions(graph: EditableGraph, logits: string): void {
  const output = graph.outputs.find(({ name }) => name === logits)!;
  const { elemType, shape } = output.type!.tensorType!;
  const type = { tensorType: { elemType: elemType!, shape: { dim: [shape!.dim[0]!, shape!.dim.at(-1)!] } } };
  graph.outputs.splice(graph.outputs.indexOf(output), 1, { ...output, type });
}

/**
 * Adds an input to a decoder that says which new token's logits to return, instead of the last one's. Other tokens may
 * then follow that token to pad a step. Returns the decoder unchanged if it selects the last position in some other
 * way.
 */
export function withLogitsIndex(
  model: ModelProto,
  decoder: DecoderGraph,
  where: ExternalDataOptions = {},
): { model: ModelProto; graph: DecoderGraph } {
  const { logits } = decoder;
  const graph = new EditableGraph(model);
  const shapes = inPlaceShapes(model, decoder);
  const index = graph.uniqueName('logits_index');
  if (isSequence(shapes.shape(logits))) {
    const all = graph.rename(logits);
    graph.addNode('Gather', [all, index], { axis: 1 }, { name: 'logits/position', outputs: [logits] });
    dropPositions(graph, logits);
  } else {
    const gathers = lastGathers();
    if (gathers.length === 0) return { model, graph: decoder };
    for (const node of gathers) graph.setInput(node, 1, index);
  }
  graph.declareInput(index, 'int32', []);
  return {
    model: graph.finish(),
    graph: { ...decoder, inputs: { ...decoder.inputs, [index]: 'logits_index' } },
  };

  /**
   * Returns the nodes that take the last position, if the logits are computed from their results alone; otherwise none.
   */
  function lastGathers(): readonly NodeProto[] {
    const gathers = new Set<NodeProto>();
    const seen = new Set<string>();
    const values = [logits];
    while (values.length > 0) {
      const value = values.pop()!;
      if (value === '' || seen.has(value)) continue;
      seen.add(value);
      const node = graph.producer(value);
      if (!node && !graph.initializer(value)) return [];
      if (!node) continue;
      if (takesLast(node)) gathers.add(node);
      else values.push(...node.input, ...captured(node));
    }
    return [...gathers];
  }

  function takesLast(node: NodeProto): boolean {
    if (operatorName(node) !== 'Gather' || intAttribute(node, 'axis', 0) !== 1) return false;
    const position = graph.constant(node.input[1]);
    if (position?.dims.length !== 0 || !isSequence(shapes.shape(node.input[0]!))) return false;
    return Number(tensorElements(position, where)[0]) === -1;
  }
}
