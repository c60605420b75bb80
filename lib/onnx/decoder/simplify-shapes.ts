import type { NodeProto } from '../format/model.js';
import { operatorName } from '../graph/operators.js';
import type { Size } from '../graph/size.js';
import type { GraphKnowledge } from './graph-knowledge.js';

/**
 * Makes Reshape and Slice read constants instead of shapes that the graph computes in each run, if these are known, and
 * drops nodes that do nothing. A decode step is so short that dozens of nodes that compute sizes would slow it down. In
 * a Reshape's target, an unchanged dimension becomes 0, and one that is known only at run time becomes -1.
 */
export function simplifyShapes({ graph, shapes }: GraphKnowledge): void {
  const { needed } = graph;
  for (const node of [...graph.nodes]) {
    if (!node.output.some((value) => needed.has(value))) continue;
    const operator = operatorName(node);
    const input = shapes.shape(node.input[0] ?? '');
    const output = shapes.shape(node.output[0]!);
    if (isIdle(node, input, output)) {
      if (!graph.isOutput(node.output[0]!)) graph.replaceReads(node.output[0]!, node.input[0]!);
    } else if (operator === 'Reshape' && graph.producer(node.input[1]!)) {
      const target = input && output && reshapeTarget(input, output);
      if (!target) continue;
      node.attribute = node.attribute.filter(({ name }) => name !== 'allowzero');
      graph.setInput(node, 1, graph.addVector(target));
    } else if (operator === 'Slice') {
      // Known bounds, such as half of a head, become constants.
      node.input.forEach((name, i) => {
        const values = i > 0 ? shapes.elements(name)?.map((size) => size.constant) : undefined;
        const producer = graph.producer(name);
        if (
          !producer ||
          operatorName(producer) === 'Constant' ||
          !values?.every((value) => value !== undefined)
        )
          return;
        graph.setInput(node, i, graph.addVector(values));
      });
    }
  }
}

/** True if a node returns its input unchanged. */
function isIdle(
  node: NodeProto,
  input: readonly Size[] | undefined,
  output: readonly Size[] | undefined,
): boolean {
  const operator = operatorName(node);
  if (operator === 'Identity') return true;
  if ((operator !== 'Expand' && operator !== 'Reshape') || !input || !output) return false;
  return input.length === output.length && input.every((size, i) => size.equals(output[i]!));
}

function reshapeTarget(input: readonly Size[], output: readonly Size[]): number[] | undefined {
  const target = output.map((size, i) => {
    const same = input[i]?.equals(size) && size.constant === undefined;
    return same ? 0 : (size.constant ?? -1);
  });
  // A constant 0 would be read as "unchanged".
  if (output.some((size) => size.constant === 0)) return undefined;
  return target.filter((size) => size === -1).length <= 1 ? target : undefined;
}
