import type { DecoderInputRole } from '../../base/decoder-graph.js';
import type { TensorLike } from '../../base/tensor-like.js';
import { valueInfo } from '../graph/graph-builder.js';
import { label, operatorName } from '../graph/operators.js';
import type { Decoder } from './decoder.js';
import type { GraphKnowledge } from './graph-knowledge.js';
import { Unrecognised } from './lift.js';
import type { Step } from './step-values.js';

/**
 * Gives the graph an input of positions, `[rows, new]`, for values that it still computes from the length of the past
 * or from an attention mask: learned positions, and rotary embeddings outside attention. A cache that is updated in
 * place always has the length of its capacity, which says nothing about how long the past is.
 *
 * @returns the input of positions and its role, if the graph has one now
 * @throws Unrecognised if something other than positions is computed from the length of the past or from a mask
 */
export async function replacePositions(
  { graph, shapes, steps }: GraphKnowledge,
  decoder: Decoder,
): Promise<Record<string, DecoderInputRole>> {
  const roles = Object.entries(decoder.graph.inputs);
  const masks = roles.filter(([, role]) => role === 'attention_mask').map(([name]) => name);
  let positions = roles.find(([, role]) => role === 'position_ids')?.[0];
  const caches = decoder.caches.flatMap(({ input, output }) => [input, output]);
  const offending = () => {
    const { needed } = graph;
    for (const source of [...masks, ...caches]) {
      for (const node of graph.readers(source)) {
        if (!node.output.some((value) => needed.has(value))) continue;
        if (operatorName(node) === 'com.microsoft.GroupQueryAttention') continue;
        // The number of rows and the sizes of heads don't change.
        const elements = operatorName(node) === 'Shape' ? shapes.elements(node.output[0]!) : undefined;
        if (!elements || elements.some((size) => size.dependsOn('past'))) return { node, source };
      }
    }
    return undefined;
  };
  if (!offending()) return positions === undefined ? {} : { [positions]: 'position_ids' };
  const { needed } = graph;
  const candidates = [...graph.nodes].flatMap((node) => {
    const [value = ''] = node.output;
    const shape = shapes.shape(value);
    const isTable = shape?.length === 2 && `${shape[1]}` === 'new';
    const isVector = shape?.length === 1 && `${shape[0]}` === 'new';
    const isWanted = isTable || isVector || shape === undefined;
    return needed.has(value) && isWanted && steps.has(value) && steps.isPositional(value) ? [value] : [];
  });
  const part = candidates.length > 0 ? await steps.part(candidates) : undefined;
  if (part) {
    await using _ = part;
    const small: Step = { rows: 2, new: 3, past: 5 };
    const large: Step = { rows: 2, new: 1, past: 8 };
    const [a, b] = [await part.run(small), await part.run(large)];
    for (const value of candidates) {
      if (!offending()) break;
      const offset = offsetOf(a[value]!, small);
      if (offset === undefined || offset !== offsetOf(b[value]!, large)) continue;
      const type = a[value]!.type as 'int64' | 'int32';
      if (positions === undefined) {
        positions = graph.uniqueName('position_ids');
        graph.inputs.push(valueInfo(positions, 'int64', ['rows', 'new']));
      }
      const declared = graph.inputs.find(({ name }) => name === positions)!;
      const isSame = declared.type?.tensorType?.elemType === (type === 'int64' ? 7 : 6);
      let replacement = isSame
        ? positions
        : graph.addNode('Cast', [positions], { to: type === 'int64' ? 7 : 6 })[0]!;
      if (offset !== 0) {
        const array = type === 'int64' ? BigInt64Array.of(BigInt(offset)) : Int32Array.of(offset);
        const constant = graph.addConstant('positions.offset', type, [1], array);
        [replacement = ''] = graph.addNode('Add', [replacement, constant]);
      }
      // A vector of positions is the same for all rows. If a Gather reads it, it can read each row's positions instead.
      if (a[value]!.dims.length === 2) graph.replaceReads(value, replacement, graph.producer(replacement));
      else {
        for (const reader of graph.readers(value)) {
          if (operatorName(reader) === 'Gather' && reader.input[1] === value)
            graph.setInput(reader, 1, replacement);
        }
      }
    }
  }
  const left = offending();
  if (left)
    throw new Unrecognised(`${label(left.node)} reads "${left.source}" for something that is not known`);
  return positions === undefined ? {} : { [positions]: 'position_ids' };
}

/**
 * Returns the number that is added to positions in a value `[rows or 1, new]` or `[new]`; undefined if the value isn't
 * such a sum.
 */
function offsetOf({ type, dims, data }: TensorLike, step: Step): number | undefined {
  if (type !== 'int64' && type !== 'int32') return undefined;
  const isShape =
    dims.length <= 2 && dims.at(-1) === step.new && (dims.length === 1 || [1, step.rows].includes(dims[0]!));
  if (!isShape) return undefined;
  const values = Array.from(data as BigInt64Array | Int32Array, Number);
  const offset = values[0]! - step.past;
  return values.every((value, i) => value === step.past + (i % step.new) + offset) ? offset : undefined;
}
