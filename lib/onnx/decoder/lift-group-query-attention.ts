import type { DecoderInputRole } from '../../base/decoder-graph.js';
import type { ModelProto, NodeProto } from '../format/model.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { attribute, intAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import type { Decoder } from './decoder.js';
import type { Lift } from './lift.js';

/** The indices of GroupQueryAttention's inputs (onnxruntime/docs/ContribOperators.md). */
export const groupQueryInputs = {
  query: 0,
  key: 1,
  value: 2,
  pastKey: 3,
  pastValue: 4,
  lastIndices: 5,
  longest: 6,
  cos: 7,
  sin: 8,
  positions: 9,
  bias: 10,
  sink: 11,
  keyScale: 12,
  valueScale: 13,
} as const;

export function isGroupQueryAttention(node: NodeProto): boolean {
  return operatorName(node) === 'com.microsoft.GroupQueryAttention';
}

/**
 * Converts a graph that already has GroupQueryAttention, as onnxruntime-genai's model builder writes it, to the form
 * that runs in place: the lengths of rows become inputs instead of being computed from an attention mask, and the
 * caches get their full shape.
 */
export function liftGroupQueryAttention(model: ModelProto, decoder: Decoder): Lift {
  const editor = new EditableGraph(model);
  const attentions = [...editor.nodes].filter(isGroupQueryAttention);
  const lastIndices = editor.uniqueName('last_indices');
  const longest = editor.uniqueName('longest');
  const cacheInputs = new Map(decoder.caches.map((cache) => [cache.input, cache]));
  for (const node of attentions) {
    const refusal = refusalOf(node, cacheInputs);
    if (refusal) return { reason: `"${node.name ?? node.output[0]}" (GroupQueryAttention) ${refusal}` };
    const input = [...node.input];
    input[groupQueryInputs.lastIndices] = lastIndices;
    input[groupQueryInputs.longest] = longest;
    // This input gives the positions of the new tokens, which the operator also uses without it.
    if (input[groupQueryInputs.positions]) input[groupQueryInputs.positions] = '';
    while (input.at(-1) === '') input.pop();
    editor.replaceNode(node, { ...node, input });
  }
  for (const cache of decoder.caches) {
    const { input, output, type, kvHeads, headDim } = cache;
    if (!attentions.some(({ input: read }) => read.includes(input))) {
      return { reason: `no GroupQueryAttention reads "${input}"` };
    }
    const dims = ['rows', kvHeads, 'capacity', headDim];
    editor.declareInput(input, type, dims);
    editor.declareOutput(output, type, dims);
  }
  editor.declareInput(lastIndices, 'int32', ['rows']);
  editor.declareInput(longest, 'int32', []);
  editor.dropUnreadInputs();
  const lifted = editor.finish();
  const read = new Set(lifted.graph.input.map(({ name }) => name));
  const roles: Record<string, DecoderInputRole> = {};
  for (const [name, role] of Object.entries(decoder.graph.inputs)) {
    if (!read.has(name)) continue;
    if (role === 'attention_mask') {
      const reader = lifted.graph.node.find(({ input }) => input.includes(name));
      return { reason: `"${reader?.name}" (${reader?.opType}) reads "${name}" for more than rows' lengths` };
    }
    roles[name] = role;
  }
  roles[lastIndices] = 'last_indices';
  roles[longest] = 'longest';
  return {
    model: lifted,
    graph: {
      mode: 'in-place',
      inputs: roles,
      caches: decoder.graph.caches,
      logits: decoder.graph.logits,
    },
  };
}

/**
 * Returns the number of positions in the shortest rotary table of GroupQueryAttention; undefined if there are no
 * tables.
 */
export function rotaryPositions({ graph }: ModelProto): number | undefined {
  const tables = new Set(
    graph.node.filter(isGroupQueryAttention).map(({ input }) => input[groupQueryInputs.cos]),
  );
  const lengths = graph.initializer.filter(({ name }) => tables.has(name)).map(({ dims }) => dims[0]!);
  return lengths.length > 0 ? Math.min(...lengths) : undefined;
}

const windowedCache = 'sliding_window_cache';

/**
 * Gives full-length caches to layers with a window. onnxruntime-genai's builder makes these caches no longer than the
 * window, and new tokens replace the oldest, so a row could be neither shared nor truncated. With a full-length cache,
 * such a layer gives the same results, because it sees no further than its window. Returns the model itself if it has
 * no such layer.
 */
export function withWholeCaches(model: ModelProto): ModelProto {
  const isWindowed = (node: NodeProto) =>
    isGroupQueryAttention(node) && attribute(node, windowedCache) !== undefined;
  if (!model.graph.node.some(isWindowed)) return model;
  const node = model.graph.node.map((each) =>
    isWindowed(each)
      ? { ...each, attribute: each.attribute.filter(({ name }) => name !== windowedCache) }
      : each,
  );
  return { ...model, graph: { ...model.graph, node } };
}

function refusalOf(node: NodeProto, caches: ReadonlyMap<string, unknown>): string | undefined {
  const at = (index: number) => node.input[index] ?? '';
  if (!caches.has(at(groupQueryInputs.pastKey)) || !caches.has(at(groupQueryInputs.pastValue))) {
    return 'does not read its cache from inputs of the graph';
  }
  if (at(groupQueryInputs.bias)) return `adds "${at(groupQueryInputs.bias)}" to what attention looks at`;
  const quantized = ['k_quant_type', 'v_quant_type'].some((name) => {
    const type = attribute(node, name)?.s;
    return type !== undefined && new TextDecoder().decode(type) !== 'NONE';
  });
  if (quantized || at(groupQueryInputs.keyScale)) return 'keeps its cache quantized';
  if (node.input.slice(groupQueryInputs.valueScale + 1).some((name) => name !== '')) {
    return 'has inputs that are not known';
  }
  if (at(groupQueryInputs.positions) && !intAttribute(node, 'do_rotary', 0)) {
    return 'has positions and no rotary embedding';
  }
  return undefined;
}
