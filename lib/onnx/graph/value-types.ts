import type { GraphProto, NodeProto } from '../format/model.js';
import { operatorName, outputType } from './operators.js';

/** ONNX element types of a graph's values, as far as the graph says them or they follow from its operators. */
export function valueTypes(graph: GraphProto): ReadonlyMap<string, number> {
  const types = new Map<string, number>();
  for (const { name = '', dataType } of graph.initializer) types.set(name, dataType);
  for (const { name, type } of [...graph.input, ...graph.output, ...graph.valueInfo]) {
    if (type?.tensorType?.elemType) types.set(name, type.tensorType.elemType);
  }
  for (const node of graph.node) {
    for (const [i, name] of node.output.entries()) {
      if (name === '' || types.has(name)) continue;
      const type = constantType(node) ?? outputType(node, i, (input) => types.get(node.input[input] ?? ''));
      if (type !== undefined) types.set(name, type);
    }
  }
  return types;
}

function constantType(node: NodeProto): number | undefined {
  return operatorName(node) === 'Constant' ? node.attribute[0]?.t?.dataType : undefined;
}
