import type { GraphProto, NodeProto } from '../format/model.js';
import { intAttribute, intsAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';

/**
 * Returns the size of an attention head: the width of the result of the attention that reads a cache, divided by
 * `num_heads`. onnxruntime-genai's exports need this, because they don't give the size in the cache's shape.
 */
export function headSize(graph: GraphProto, cache: string): number | undefined {
  const attention = graph.node.find(
    (node) =>
      operatorName(node) === 'com.microsoft.GroupQueryAttention' && node.input.slice(3, 5).includes(cache),
  );
  const heads = attention ? intAttribute(attention, 'num_heads', 0) : 0;
  const output = graph.valueInfo.find(({ name }) => name === attention?.output[0]);
  const width = output?.type?.tensorType?.shape?.dim.at(-1)?.dimValue;
  return attention && width !== undefined && width % heads === 0 ? width / heads : undefined;
}

/** True if a node swaps the dimensions of heads and positions. */
export function isHeadsSwap(node: NodeProto): boolean {
  return operatorName(node) === 'Transpose' && `${intsAttribute(node, 'perm')}` === '0,2,1,3';
}
