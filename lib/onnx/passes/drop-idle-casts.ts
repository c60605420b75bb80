import type { GraphProto } from '../format/model.js';
import type { EditableGraph } from '../graph/editable-graph.js';
import { intAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import { valueTypes } from '../graph/value-types.js';

/**
 * Drops Identity nodes, and Casts to the type that a value already has. Exporters of mixed precision leave them in FP32
 * graphs.
 */
export function dropIdleCasts(graph: EditableGraph, { graph: proto }: { graph: GraphProto }): void {
  const types = valueTypes(proto);
  for (const node of [...graph.nodes]) {
    const operator = operatorName(node);
    const [input = ''] = node.input;
    const [output = ''] = node.output;
    const to = intAttribute(node, 'to', 0);
    if (operator !== 'Identity' && (operator !== 'Cast' || types.get(input) !== to)) continue;
    if (!graph.isOutput(output)) {
      graph.replaceReads(output, input);
      continue;
    }
    // The node that computes the input takes over the name of the graph's output.
    const maker = graph.producer(input);
    if (!maker || graph.isOutput(input)) continue;
    graph.removeNode(node);
    graph.setOutput(maker, maker.output.indexOf(input), output);
    graph.replaceReads(input, output);
  }
}
