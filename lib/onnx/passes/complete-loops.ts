import { TensorRTError } from '../../base/errors.js';
import { makeTensor, tensorElements } from '../format/initializer.js';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../format/model.js';
import { attributeProto } from '../graph/graph-builder.js';
import { tensorAttribute } from '../graph/node-attribute.js';
import { collectNames, subgraphs } from '../graph/traverse.js';

/** TensorRT's parser treats a trip count of at least the largest int32 as no limit. */
const noLimit = 2 ** 31 - 1;

/**
 * Completes control flow for TensorRT's parser, in place: every Loop gets a condition and a trip count, and outputs of
 * Loop, If and Scan that nothing reads get names. The standard lets a model leave these out, but then the parser
 * doesn't know which values to pass to a body, or finds too few names. A constant true stands for a missing condition,
 * as in ONNX Runtime.
 * @returns whether anything was added, and whether a loop has no trip count of its own, so that only the condition that
 *   it computes can end it
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED for a Loop without a trip count whose scan outputs need one
 */
export function completeLoops(model: ModelProto): { isChanged: boolean; isUnbounded: boolean } {
  const names = new Set<string>();
  const found = { isChanged: false, isUnbounded: false };
  const constants = new Map<string, TensorProto>();

  const give = (base: string): string => {
    let name = base;
    for (let i = 1; names.has(name); i++) name = `${base}_${i}`;
    names.add(name);
    found.isChanged = true;
    return name;
  };
  const constant = (base: string, tensor: TensorProto): NodeProto => ({
    opType: 'Constant',
    input: [],
    output: [give(base)],
    attribute: [attributeProto('value', tensor)],
  });
  const isLimit = (name: string | undefined): boolean => {
    if (!name) return false;
    const tensor = constants.get(name);
    return !tensor || !(Number(tensorElements(tensor)[0]) >= noLimit);
  };
  const complete = (loop: NodeProto): NodeProto[] => {
    const [limit, condition, ...carried] = loop.input;
    const added: NodeProto[] = [];
    let trip = limit ?? '';
    if (!isLimit(limit)) {
      const scan = loop.output.slice(carried.length).find((name) => name !== '');
      if (scan !== undefined) {
        throw new TensorRTError(
          'ERR_MODEL_UNSUPPORTED',
          `TensorRT can't run the Loop "${loop.name ?? ''}": it has no trip count, and collects "${scan}" of every turn.`,
        );
      }
      found.isUnbounded = true;
      added.push(constant('trip_count', makeTensor('', 'int64', [], BigInt64Array.of(BigInt(noLimit - 1)))));
      trip = added[0]!.output[0]!;
    }
    if (!condition) added.push(constant('condition', makeTensor('', 'bool', [], Uint8Array.of(1))));
    loop.input = [trip, condition || added.at(-1)!.output[0]!, ...carried];
    return [...added, loop];
  };
  const completeNodes = (nodes: readonly NodeProto[]): NodeProto[] =>
    nodes.flatMap((node) => {
      const value = tensorAttribute(node, 'value');
      if (node.opType === 'Constant' && value) constants.set(node.output[0]!, value);
      const bodies = subgraphs(node);
      for (const inner of bodies) completeGraph(inner);
      const completed = node.opType === 'Loop' && !node.domain ? complete(node) : [node];
      if (bodies.length > 0) node.output = node.output.map((name) => name || give('unused'));
      return completed;
    });
  const completeGraph = (graph: GraphProto) => {
    for (const tensor of graph.initializer) if (tensor.name) constants.set(tensor.name, tensor);
    graph.node = completeNodes(graph.node);
  };

  collectNames(model.graph, names);
  completeGraph(model.graph);
  for (const body of model.functions ?? []) {
    for (const name of body.node.flatMap(({ input, output }) => [...input, ...output])) names.add(name);
    body.node = completeNodes(body.node);
  }
  return found;
}

/** Returns the names of the trip counts of a graph's loops, not counting loops inside bodies. */
export function tripCounts({ node }: GraphProto): Set<string> {
  return new Set(
    node.flatMap(({ opType, domain, input }) => (opType === 'Loop' && !domain ? [input[0]!] : [])),
  );
}
