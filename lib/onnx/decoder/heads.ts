import type { GraphProto, NodeProto } from '../format/model.js';
import { intAttribute, intsAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';

/**
 * The size of an attention head, where an input is a cache that onnxruntime-genai's exports read: they don't say it of
 * the cache, but of what the attention gives, which has `num_heads` of them.
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

/** Returns true if it exchanges heads and positions. */
export function isHeadsSwap(node: NodeProto): boolean {
  return operatorName(node) === 'Transpose' && `${intsAttribute(node, 'perm')}` === '0,2,1,3';
}
