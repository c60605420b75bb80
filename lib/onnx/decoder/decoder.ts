import { type DataType, dataTypes } from '../../base/data-type.js';
import type { DecoderGraph, DecoderInputRole } from '../../base/decoder-graph.js';
import { TensorRTError } from '../../base/errors.js';
import type { GraphProto, ModelProto, NodeProto } from '../format/model.js';
import { graphInputs, type ValueType, valueType } from '../graph/declared-values.js';
import { operatorName } from '../graph/operators.js';
import { headSize } from './heads.js';

/** The keys or the values that a layer keeps from step to step. */
export interface CacheTensor {
  readonly input: string;
  readonly output: string;
  /** 4: `[rows, kvHeads, length, headDim]`. 3: `[rows, length, kvHeads * headDim]`. */
  readonly rank: 3 | 4;
  readonly type: 'float32' | 'float16' | 'bfloat16';
  /** The number of key/value heads; 1 for a cache of rank 3. */
  readonly kvHeads: number;
  /** The size of a head; for a cache of rank 3, the width of all heads together. */
  readonly headDim: number;
  /** The number of tokens that the cache holds, if the graph fixes it. */
  readonly capacity: number | undefined;
}

/** A causal decoder's graph, whichever program exported it. */
export interface Decoder {
  /** The way to drive the graph as it was exported. */
  readonly graph: DecoderGraph;
  /** The caches in the order of layers, each layer's keys before its values, as in `graph`. */
  readonly caches: readonly CacheTensor[];
  readonly layers: number;
  /** The size of the vocabulary; undefined if the graph doesn't give it. */
  readonly vocabulary: number | undefined;
  readonly logitsType: DataType;
}

/**
 * The roles of inputs by name, in all known spellings: optimum's, onnxruntime-genai's, mobius' and transformers.js'.
 */
const roles: readonly { role: DecoderInputRole; name: RegExp; ranks: readonly number[] }[] = [
  { role: 'input_ids', name: /^(input_ids|input_id|tokens|token_ids)$/, ranks: [2] },
  { role: 'position_ids', name: /^(position_ids|positions)$/, ranks: [2] },
  { role: 'attention_mask', name: /^(attention_mask|mask)$/, ranks: [2] },
  { role: 'past_lengths', name: /^(write_indices|past_lengths?|past_seq_lens?)$/, ranks: [1] },
  { role: 'total_lengths', name: /^(nonpad_kv_seqlen|kv_seqlens?|total_lengths?)$/, ranks: [1] },
  { role: 'last_indices', name: /^(seqlens_k|last_indices)$/, ranks: [1] },
  { role: 'longest', name: /^(total_sequence_length|longest)$/, ranks: [0, 1] },
];

/** Inputs of decoders that a step can't feed. */
const unsupportedInputs: readonly { name: RegExp; problem: string }[] = [
  {
    name: /^use_cache_branch$/,
    problem:
      'is of two decoders merged into one: export it with the task text-generation-with-past, not merged',
  },
  { name: /^inputs_embeds$/, problem: 'takes embeddings rather than tokens: it is a part of a larger model' },
  { name: /^encoder_|^cross_/, problem: 'comes from an encoder: encoder-decoder models are not supported' },
  { name: /^(beam_idx|cache_indirection)$/, problem: 'is of beam search, which is not supported' },
];

/**
 * Finds out how to drive a causal decoder: the role of each input, the output that continues each part of the cache,
 * and the logits. It relies on names and shapes, but not on the names of dimensions.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED if the model isn't a decoder with a cache, or has an unknown input
 */
export function recogniseDecoder({ graph }: ModelProto): Decoder {
  const inputs = graphInputs(graph);
  const outputs = graph.output.map(valueType);
  const floats = inputs.filter(isCacheLike);
  const others = inputs.filter((input) => !floats.includes(input));
  const named: Record<string, DecoderInputRole> = Object.create(null);
  for (const input of others) named[input.name] = roleOf(input, others, graph);
  if (!Object.values(named).includes('input_ids')) {
    throw unsupported(`it has no input of tokens (input_ids) among ${list(inputs)}.`);
  }
  if (floats.length === 0) {
    const hint = 'Export it with its cache as inputs and outputs (optimum: text-generation-with-past).';
    throw unsupported(`it has no KV cache among its inputs ${list(inputs)}. ${hint}`);
  }
  const logits = findLogits(outputs);
  const caches = pairCaches(floats, outputs, graph).map(([input, output]) =>
    cacheTensor(input, output, graph),
  );
  const scattered = caches.filter(({ input }) => isScattered(graph, input));
  const fixed = caches.find((cache) => cache.capacity !== undefined && !scattered.includes(cache));
  if (fixed) {
    throw unsupported(
      `its KV cache's "${fixed.input}" always holds ${fixed.capacity} tokens: the length of the past must be dynamic.`,
    );
  }
  if (scattered.length > 0 && scattered.length < caches.length) {
    const odd = caches.find((cache) => !scattered.includes(cache))!;
    throw unsupported(`it updates "${scattered[0]!.input}" in place, but not "${odd.input}".`);
  }
  return {
    graph: {
      mode: scattered.length > 0 ? 'in-place' : 'copying',
      inputs: { ...named },
      caches: caches.map(({ input, output, kvHeads, headDim }) => ({ input, output, kvHeads, headDim })),
      logits: logits.name,
    },
    caches,
    layers: caches.length / 2,
    vocabulary: dimension(logits.shape?.at(-1)),
    logitsType: logits.type!,
  };
}

function roleOf(input: ValueType, others: readonly ValueType[], graph: GraphProto): DecoderInputRole {
  const { name, type, shape } = input;
  const refused = unsupportedInputs.find((each) => each.name.test(name));
  if (refused) throw unsupported(`its input "${name}" ${refused.problem}.`);
  const rank = shape?.length;
  const known = roles.find((each) => each.name.test(name));
  const isWhole = type === 'int64' || type === 'int32';
  if (known && isWhole && (rank === undefined || known.ranks.includes(rank))) return known.role;
  // The exporter may have its own name for the tokens. If no other input can be the tokens, the input that looks up the
  // embedding is taken for them.
  const isOnly = others.every((other) => other === input || roles.some((each) => each.name.test(other.name)));
  const hasTokens = others.some((other) => roles[0]!.name.test(other.name));
  if (isWhole && rank === 2 && isOnly && !hasTokens && looksUp(graph, name)) return 'input_ids';
  const what = `${type ?? 'of an unknown type'} ${shape ? `[${shape.join(', ')}]` : 'of unknown rank'}`;
  throw unsupported(
    `its input "${name}" (${what}) is not known: a step can feed input_ids, attention_mask, position_ids and the ` +
      'lengths of what is in the cache.',
  );
}

function looksUp(graph: GraphProto, name: string): boolean {
  return graph.node.some((node) => operatorName(node) === 'Gather' && node.input[1] === name);
}

function isCacheLike({ type, shape }: ValueType): boolean {
  const isFloat = type === 'float32' || type === 'float16' || type === 'bfloat16';
  return (
    isFloat && (shape?.length === 4 || shape?.length === 3) && shape.some((dim) => typeof dim === 'string')
  );
}

function findLogits(outputs: readonly ValueType[]): ValueType {
  const isFloat = ({ type }: ValueType) => type === 'float32' || type === 'float16' || type === 'bfloat16';
  const candidates = outputs.filter((output) => /logits/i.test(output.name) && isFloat(output));
  if (candidates.length === 1) return candidates[0]!;
  const why =
    candidates.length === 0 ? 'none of its outputs is named logits' : 'several outputs are named logits';
  throw unsupported(`${why}: ${list(outputs)}.`);
}

/** Pairs each input of the cache with the output that continues it. */
function pairCaches(
  inputs: readonly ValueType[],
  outputs: readonly ValueType[],
  graph: GraphProto,
): [ValueType, ValueType][] {
  const byName = new Map(outputs.map((output) => [output.name, output]));
  const keyed = new Map<string, ValueType>();
  for (const output of outputs) {
    const key = cacheKey(output.name);
    if (key && isCacheLike(output)) keyed.set(key.text, output);
  }
  const pairs = inputs.map((input): { order: number; pair: [ValueType, ValueType] } => {
    const key = cacheKey(input.name);
    if (!key) {
      throw unsupported(
        `its input "${input.name}" is taken for a part of the KV cache, but its name says neither layer nor key or value.`,
      );
    }
    const continued = graph.node
      .flatMap((node) => continuations(node, input.name))
      .map((name) => byName.get(name))
      .find((output) => output !== undefined);
    const output = continued ?? keyed.get(key.text);
    if (!output) throw unsupported(`no output continues its KV cache's "${input.name}": ${list(outputs)}.`);
    return { order: key.order, pair: [input, output] };
  });
  pairs.sort((a, b) => a.order - b.order);
  pairs.forEach(({ order, pair }, i) => {
    const isNext = i === 0 || order !== pairs[i - 1]!.order;
    const hasPartner = pairs.some((other) => other.order === (order ^ 1));
    if (isNext && hasPartner) return;
    const problem = isNext ? 'has a key without a value, or a value without a key' : 'has a layer twice';
    throw unsupported(`its KV cache ${problem}: "${pair[0].name}".`);
  });
  return pairs.map(({ pair }) => pair);
}

/** Returns the outputs of a node that hold a cache with new tokens added. */
function continuations(node: NodeProto, cache: string): string[] {
  const at = (input: number, output: number) =>
    node.input[input] === cache && node.output[output] ? [node.output[output]] : [];
  switch (operatorName(node)) {
    case 'Concat':
    case 'TensorScatter':
      return at(0, 0);
    case 'Attention':
      return [...at(4, 1), ...at(5, 2)];
    case 'com.microsoft.GroupQueryAttention':
      return [...at(3, 1), ...at(4, 2)];
    case 'com.microsoft.MultiHeadAttention':
      return [...at(6, 1), ...at(7, 2)];
    default:
      return [];
  }
}

/**
 * Reads the layer and the kind from a name such as `past_key_values.3.key`, `present.3.value`, `key_cache.3`,
 * `past_key_3` or `k_cache_3`.
 */
function cacheKey(name: string): { text: string; order: number } | undefined {
  const rest = name.replace(/key_values?|kv/gi, '');
  const isKey = /key|(^|[._/])k([._/\d]|$)/i.test(rest);
  const isValue = /val|(^|[._/])v([._/\d]|$)/i.test(rest);
  const layer = /\d+/.exec(rest)?.[0];
  if (isKey === isValue || layer === undefined) return undefined;
  return { text: `${layer}.${isKey ? 'key' : 'value'}`, order: 2 * Number(layer) + (isKey ? 0 : 1) };
}

function cacheTensor(input: ValueType, output: ValueType, graph: GraphProto): CacheTensor {
  const shape = input.shape!;
  if (output.type !== input.type || output.shape?.length !== shape.length) {
    throw unsupported(
      `its KV cache's "${input.name}" comes back as "${output.name}" of another type or rank.`,
    );
  }
  const rank = shape.length as 3 | 4;
  const kvHeads = rank === 4 ? dimension(shape[1]) : 1;
  if (kvHeads === undefined) throw unsupported(`it does not say how many heads "${input.name}" has.`);
  const headDim = dimension(shape.at(-1)) ?? headSize(graph, input.name);
  if (headDim === undefined) throw unsupported(`it does not say the size of a head of "${input.name}".`);
  return {
    input: input.name,
    output: output.name,
    rank,
    type: input.type as CacheTensor['type'],
    kvHeads,
    headDim,
    capacity: dimension(shape[rank - 2]),
  };
}

function isScattered(graph: GraphProto, cache: string): boolean {
  return graph.node.some((node) => operatorName(node) === 'TensorScatter' && node.input[0] === cache);
}

function dimension(dim: number | string | undefined): number | undefined {
  return typeof dim === 'number' ? dim : undefined;
}

/** Returns the size in bytes of a token's keys and values in all layers. */
export function cacheBytesPerToken({ caches }: Decoder): number {
  return caches.reduce(
    (bytes, { kvHeads, headDim, type }) => bytes + kvHeads * headDim * dataTypes[type].byteSize,
    0,
  );
}

function list(values: readonly ValueType[]): string {
  const names = values.map(({ name }) => name);
  return names.length <= 8
    ? names.join(', ')
    : `${names.slice(0, 8).join(', ')} and ${names.length - 8} more`;
}

function unsupported(problem: string): TensorRTError {
  return new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `This graph can't be driven as a causal decoder: ${problem}`,
  );
}
