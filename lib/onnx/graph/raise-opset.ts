import { TensorRTError } from '../../base/errors.js';
import { makeTensor } from '../format/initializer.js';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../format/model.js';
import { attributeProto } from './graph-builder.js';
import { attribute } from './node-attribute.js';
import { operatorName } from './operators.js';
import { collectNames, standardOpset, subgraphs } from './traverse.js';

/** Reductions whose axes are an input from operator set 18 on (https://onnx.ai/onnx/operators/). */
const reductions = new Set(
  'ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare'.split(
    ' ',
  ),
);

/** Operators whose meaning changed, with the operator set that changed it. Nothing here rewrites them. */
const changed: ReadonlyMap<string, number> = new Map([
  ['Resize', 18],
  ['DFT', 20],
  ['GridSample', 20],
  ['AffineGrid', 20],
  ['GroupNormalization', 21],
]);

/** The oldest operator set that can be raised. Later changes to its operators are either handled here or refused. */
const oldest = 13;

/** The first version of the file format with 4-bit integers. */
const irVersion10 = 10;

/**
 * Returns the model in a later operator set. Its operators keep their meaning.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED for operator sets before 13, and for a node that can't be raised; the
 *   message names the node
 */
export function raiseOpset(model: ModelProto, opset: number): ModelProto {
  const from = standardOpset(model);
  if (from >= opset) return model;
  if (from < oldest) {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `The model is of operator set ${from}: export it with ${oldest} or later.`,
    );
  }
  const names = new Set<string>();
  collectNames(model.graph, names);
  return {
    ...model,
    irVersion: Math.max(model.irVersion, irVersion10),
    opsetImport: [
      ...model.opsetImport.filter(({ domain }) => domain && domain !== 'ai.onnx'),
      { domain: '', version: opset },
    ],
    graph: raiseGraph(model.graph, from, opset, names),
  };
}

function raiseGraph(graph: GraphProto, from: number, to: number, names: Set<string>): GraphProto {
  const added: TensorProto[] = [];
  const node = graph.node.map((each) => raiseNode(each, from, to, names, added));
  return { ...graph, node, initializer: [...graph.initializer, ...added] };
}

function raiseNode(
  node: NodeProto,
  from: number,
  to: number,
  names: Set<string>,
  added: TensorProto[],
): NodeProto {
  const operator = operatorName(node);
  const changedIn = changed.get(operator);
  if (changedIn !== undefined && from < changedIn && to >= changedIn) {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `The node "${node.name || node.output[0]}" (${operator}) is of operator set ${from}: export it with ${changedIn} or later.`,
    );
  }
  const raised = subgraphs(node).length > 0 ? withRaisedBodies(node, from, to, names) : node;
  if (from >= 18 || to < 18) return raised;
  if (reductions.has(operator)) {
    const axes = attribute(node, 'axes')?.ints;
    if (!axes) return raised;
    let name = `${node.name || node.output[0]}.axes`;
    while (names.has(name)) name += '_';
    names.add(name);
    added.push(makeTensor(name, 'int64', [axes.length], BigInt64Array.from(axes)));
    return {
      ...raised,
      input: [node.input[0]!, name],
      attribute: raised.attribute.filter((each) => each.name !== 'axes'),
    };
  }
  if (operator === 'Split' && !node.input[1]) {
    return { ...raised, attribute: [...raised.attribute, attributeProto('num_outputs', node.output.length)] };
  }
  return raised;
}

function withRaisedBodies(node: NodeProto, from: number, to: number, names: Set<string>): NodeProto {
  const attribute = node.attribute.map((each) => ({
    ...each,
    ...(each.g ? { g: raiseGraph(each.g, from, to, names) } : {}),
    ...(each.graphs ? { graphs: each.graphs.map((body) => raiseGraph(body, from, to, names)) } : {}),
  }));
  return { ...node, attribute };
}
