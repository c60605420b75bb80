import { isExternal, tensorElements } from '../format/initializer.js';
import type { ModelProto, NodeProto } from '../format/model.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { intAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';

/**
 * Gives GroupQueryAttention its queries, keys and values in one input if they are slices of one product (GPT-2, Phi-3),
 * which the operator accepts as a single input. Separate products stay separate: packing them would copy their weights,
 * and a decode step of the 32M-parameter Llama took just as long with them packed.
 */
export function packQueries(model: ModelProto): ModelProto {
  const graph = new EditableGraph(model);
  for (const node of [...graph.nodes]) {
    if (operatorName(node) !== 'com.microsoft.GroupQueryAttention') continue;
    const whole = wholeOf(graph, node.input.slice(0, 3));
    if (whole === undefined) continue;
    graph.setInput(node, 0, whole);
    graph.setInput(node, 1, '');
    graph.setInput(node, 2, '');
  }
  return graph.finish();
}

/**
 * Finds the value that parts are cut from along its last axis, in this order, with nothing before, between or after
 * them.
 */
function wholeOf(graph: EditableGraph, parts: readonly string[]): string | undefined {
  const nodes = parts.map((part) => graph.producer(part));
  const [first] = nodes;
  const whole = first?.input[0];
  if (!first || nodes.some((node) => node?.input[0] !== whole)) return undefined;
  if (operatorName(first) === 'Split') {
    const axis = intAttribute(first, 'axis', 0);
    return `${first.output}` === `${parts}` && (axis === 2 || axis === -1) ? whole : undefined;
  }
  const ranges = nodes.map((node) => rangeOf(graph, node!));
  const isNext = ranges.every((range, i) => range?.start === (i === 0 ? 0 : ranges[i - 1]?.end));
  return isNext && ranges.at(-1)!.end > Number.MAX_SAFE_INTEGER ? whole : undefined;
}

/** Reads a Slice along the last of three axes. */
function rangeOf(graph: EditableGraph, node: NodeProto): { start: number; end: number } | undefined {
  if (operatorName(node) !== 'Slice') return undefined;
  const [start, end, axis, step = 1] = node.input.slice(1).map((name) => {
    const tensor = graph.constant(name);
    return tensor && `${tensor.dims}` === '1' && !isExternal(tensor)
      ? Number(tensorElements(tensor)[0])
      : undefined;
  });
  if (start === undefined || end === undefined || (axis !== 2 && axis !== -1) || step !== 1) return undefined;
  return { start, end };
}
