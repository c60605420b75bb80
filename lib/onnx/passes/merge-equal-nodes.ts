import { isExternal, tensorBytes } from '../format/initializer.js';
import type { AttributeProto, NodeProto, TensorProto } from '../format/model.js';
import type { EditableGraph } from '../graph/editable-graph.js';
import { operatorName } from '../graph/operators.js';
import { subgraphs } from '../graph/traverse.js';

/** A constant with more bytes than this is a weight and isn't compared with others. */
const maxConstantBytes = 4096;

const random = /^(Random|Multinomial|Bernoulli|Dropout)/;

/**
 * Merges nodes that compute the same thing from the same inputs, because exporters repeat positions, masks and shapes
 * in each layer. The nodes must be in topological order.
 */
export function mergeEqualNodes(graph: EditableGraph): void {
  const known = new Map<string, NodeProto>();
  for (const node of [...graph.nodes]) {
    const key = keyOf(node);
    if (key === undefined) continue;
    const same = known.get(key);
    if (!same) {
      known.set(key, node);
      continue;
    }
    if (node.output.some((value) => value !== '' && graph.isOutput(value))) continue;
    node.output.forEach((value, i) => {
      if (value !== '') graph.replaceReads(value, same.output[i]!);
    });
    if (node.output.every((value) => graph.readers(value).length === 0)) graph.removeNode(node);
  }
}

/** Returns a key that is equal for nodes that compute the same thing; undefined for a node that can't be compared. */
function keyOf(node: NodeProto): string | undefined {
  const operator = operatorName(node);
  if (random.test(operator) || subgraphs(node).length > 0) return undefined;
  const attributes = node.attribute.map(attributeKey);
  if (attributes.includes(undefined)) return undefined;
  return JSON.stringify([operator, node.input, node.output.map((value) => value !== ''), attributes.sort()]);
}

/** Returns a key that is equal for equal attributes; undefined for an attribute that can't be compared. */
export function attributeKey({
  name,
  type,
  f,
  i,
  s,
  t,
  floats,
  ints,
  strings,
}: AttributeProto): string | undefined {
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  const tensor = t && tensorKey(t);
  if (t && tensor === undefined) return undefined;
  const value = [f, i?.toString(), s && text(s), tensor, floats, ints?.map(String), strings?.map(text)];
  return JSON.stringify([name, type, ...value]);
}

function tensorKey(tensor: TensorProto): string | undefined {
  if (isExternal(tensor) || tensor.stringData) return undefined;
  const bytes = tensorBytes(tensor);
  if (bytes.length > maxConstantBytes) return undefined;
  return `${tensor.dataType}[${tensor.dims}]${Buffer.from(bytes).toString('base64')}`;
}
