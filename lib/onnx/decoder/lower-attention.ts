import type { DataType } from '../../base/data-type.js';
import type { DecoderGraph, DecoderInputRole } from '../../base/decoder-graph.js';
import { TensorRTError } from '../../base/errors.js';
import type { FloatType } from '../format/float-tensor.js';
import type { ModelProto, NodeProto } from '../format/model.js';
import { valueType } from '../graph/declared-values.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { floatAttribute, intAttribute } from '../graph/node-attribute.js';
import { raiseOpset } from '../graph/raise-opset.js';
import { groupQueryInputs, isGroupQueryAttention } from './lift-group-query-attention.js';

/** Options of {@link lowerAttention}. */
export interface LowerAttentionOptions {
  /**
   * The operator to write. 'lengths': `TRT_Attention` up to a length per row, which TensorRT 11 and TensorRT-RTX have;
   * layers with a window get a mask. 'mask': ONNX's `Attention` with a mask in all layers, which TensorRT 10 and ONNX
   * Runtime also have.
   */
  readonly attention: 'lengths' | 'mask';
  /** The number of tokens that a row of the cache holds. */
  readonly capacity: number;
  /** The number of these tokens that are used. Defaults to `capacity`. */
  readonly length?: number;
  /** The type of the caches and of attention. */
  readonly type: FloatType;
}

/** Turns `[a, b, c, d]` into `[a, c, b, d]`, to move heads before positions or back. */
const headsFirst = [0, 2, 1, 3];

/** The dimensions of a lowered graph's inputs. */
const inputDims: ReadonlyMap<DecoderInputRole, readonly string[]> = new Map([
  ['input_ids', ['rows', 'new']],
  ['position_ids', ['rows', 'new']],
  ['past_lengths', ['rows']],
  ['total_lengths', ['rows']],
]);

/** The first operator set with TensorScatter. */
const opset = 24;

/**
 * Lowers GroupQueryAttention over caches in place to operators that TensorRT has: `TensorScatter`, which its parser
 * turns into a KV-cache layer, and attention over the cache. Caches are `[rows, kvHeads, capacity, headDim]`. The
 * cache's memory must hold finite numbers from the start, because masked elements are still multiplied by zero.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED, naming the node and what TensorRT lacks
 */
export function lowerAttention(
  model: ModelProto,
  graph: DecoderGraph,
  options: LowerAttentionOptions,
): { model: ModelProto; graph: DecoderGraph } {
  const lowerer = new AttentionLowerer(model, graph, options);
  return lowerer.lower();
}

class AttentionLowerer {
  readonly #editor: EditableGraph;
  readonly #graph: DecoderGraph;
  readonly #options: LowerAttentionOptions;
  /** Inputs by role: the existing ones, and those that lowered nodes need. */
  readonly #inputs = new Map<DecoderInputRole, string>();
  /** The types, int32 or int64, of the inputs that already existed. */
  readonly #types = new Map<DecoderInputRole, DataType>();
  readonly #lowered = new Set<string>();
  /** The type that the model computes in, which is also the type of its caches. */
  readonly #own: FloatType;
  #positions: string | undefined;
  /** Masks by window; 0 means no window. */
  readonly #masks = new Map<number, string>();

  constructor(model: ModelProto, graph: DecoderGraph, options: LowerAttentionOptions) {
    this.#editor = new EditableGraph(raiseOpset(model, opset));
    this.#graph = graph;
    this.#options = options;
    for (const [name, role] of Object.entries(graph.inputs)) {
      this.#inputs.set(role, name);
      const { type } = valueType(model.graph.input.find((input) => input.name === name)!);
      if (type) this.#types.set(role, type);
    }
    this.#own = cacheType(model, graph);
  }

  lower(): { model: ModelProto; graph: DecoderGraph } {
    const editor = this.#editor;
    const { capacity, type } = this.#options;
    for (const node of [...editor.nodes].filter(isGroupQueryAttention)) this.#lower(node);
    const roles: Record<string, DecoderInputRole> = { ...this.#graph.inputs };
    for (const [role, dims] of inputDims) {
      const name = this.#inputs.get(role);
      if (name === undefined) continue;
      editor.declareInput(name, this.#typeOf(role), dims);
      roles[name] = role;
    }
    for (const cache of this.#graph.caches) {
      const dims = ['rows', cache.kvHeads, capacity, cache.headDim];
      const [reader, ...others] = editor.readers(cache.input);
      if (!this.#lowered.has(cache.input) || others.length > 0) {
        const name = reader ? `"${reader.name || reader.output[0]}" (${reader.opType})` : 'nothing';
        throw new TensorRTError(
          'ERR_MODEL_UNSUPPORTED',
          `TensorRT can't run this decoder: its cache "${cache.input}" is read by ${name}, and not by GroupQueryAttention alone.`,
        );
      }
      editor.declareInput(cache.input, type, dims);
      editor.declareOutput(cache.output, type, dims);
    }
    editor.dropUnreadInputs();
    const model = editor.finish();
    const read = new Set(model.graph.input.map(({ name }) => name));
    const inputs = Object.fromEntries(Object.entries(roles).filter(([name]) => read.has(name)));
    return { model, graph: { ...this.#graph, inputs } };
  }

  #lower(node: NodeProto): void {
    const editor = this.#editor;
    const at = (index: number) => node.input[index] || undefined;
    this.#refuse(node);
    const cache = this.#graph.caches.find(({ input }) => input === at(groupQueryInputs.pastKey));
    if (!cache) throw unsupported(node, 'does not read its cache from an input of the graph');
    const { headDim } = cache;
    const { type } = this.#options;
    const heads = intAttribute(node, 'num_heads', 0);
    const kvHeads = intAttribute(node, 'kv_num_heads', 0);
    const scale = floatAttribute(node, 'scale', 0) || 1 / Math.sqrt(headDim);
    const window = Math.max(intAttribute(node, 'local_window_size', -1), 0);
    const label = (part: string) => ({ name: `${node.name || node.output[0]}/${part}` });

    let [query, key, value] = node.input as [string, string | undefined, string | undefined];
    if (!key || !value) {
      const sizes = editor.addVector([heads, kvHeads, kvHeads].map((count) => count * headDim));
      const outputs = ['query', 'key', 'value'].map((part) => editor.uniqueName(label(part).name));
      [query, key, value] = editor.addNode(
        'Split',
        [query, sizes],
        { axis: -1 },
        { ...label('split'), outputs },
      ) as [string, string, string];
    }
    const split = (name: string, count: number, part: string) => {
      const shape = editor.addVector([0, 0, count, headDim]);
      const reshaped = editor.addValue('Reshape', [name, shape], {}, label(`${part}/split`));
      return editor.addValue('Transpose', [reshaped], { perm: headsFirst }, label(`${part}/heads`));
    };
    let queries = split(query, heads, 'query');
    let keys = split(key, kvHeads, 'key');
    const values = split(value, kvHeads, 'value');
    if (intAttribute(node, 'do_rotary', 0)) {
      queries = this.#rotate(queries, node, label('query/rotary').name);
      keys = this.#rotate(keys, node, label('key/rotary').name);
    }
    // TRT_Attention doesn't scale. Scaling before the cast also keeps products in FP16 small.
    queries = editor.addValue('Mul', [queries, editor.addScalar(scale, this.#own)], {}, label('query/scale'));
    const [pastKey, pastValue] = [at(groupQueryInputs.pastKey)!, at(groupQueryInputs.pastValue)!];
    const [presentKey, presentValue] = [node.output[1]!, node.output[2]!];
    editor.removeNode(node);
    for (const [past, update, present, part] of [
      [pastKey, keys, presentKey, 'key/cache'],
      [pastValue, values, presentValue, 'value/cache'],
    ] as const) {
      const rounded = editor.addCast(update, this.#own, type, label(`${part}/cast`));
      const inputs = [past, rounded, this.#input('past_lengths')];
      this.#lowered.add(past);
      editor.addNode('TensorScatter', inputs, { axis: 2 }, { ...label(part), outputs: [present] });
    }
    queries = editor.addCast(queries, this.#own, type, label('query/cast'));
    const attended = this.#attend([queries, presentKey, presentValue], window, label('attention'));
    const wide = editor.addCast(attended, type, this.#own, label('cast'));
    const last = editor.addValue('Transpose', [wide], { perm: headsFirst }, label('positions'));
    const merged = editor.addVector([0, 0, heads * headDim]);
    editor.addNode('Reshape', [last, merged], {}, { ...label('join'), outputs: [node.output[0]!] });
  }

  /** Adds attention of scaled queries over the whole cache, limited by lengths or a mask. */
  #attend(inputs: readonly string[], window: number, label: { name: string }): string {
    const editor = this.#editor;
    if (this.#options.attention === 'mask') {
      return editor.addValue('Attention', [...inputs, this.#mask(window)], { scale: { float: 1 } }, label);
    }
    // The inputs after queries, keys and values are the mask, the lengths of queries and the lengths of keys. With a
    // mask, the attention isn't also declared causal.
    const [limits, attributes] =
      window > 0
        ? [[this.#mask(window)], {}]
        : [['', '', this.#input('total_lengths')], { causal_kind: 'lower_right' }];
    return editor.addValue('TRT_Attention', [...inputs, ...limits], attributes, { ...label, domain: 'trt' });
  }

  #refuse(node: NodeProto): void {
    const at = (index: number) => node.input[index] || undefined;
    if (floatAttribute(node, 'softcap', 0)) {
      throw unsupported(node, "has a softcap, which TensorRT's attention lacks");
    }
    if (at(groupQueryInputs.sink) || intAttribute(node, 'smooth_softmax', 0) > 0) {
      throw unsupported(node, "has an attention sink, which TensorRT's attention lacks");
    }
    if (at(groupQueryInputs.bias)) throw unsupported(node, 'adds a bias to what attention looks at');
    if (node.output.slice(3).some((name) => name !== '')) throw unsupported(node, 'gives its scores');
    if (node.input.slice(groupQueryInputs.keyScale).some((name) => name !== '')) {
      throw unsupported(node, 'has inputs that only ONNX Runtime knows');
    }
  }

  #rotate(name: string, node: NodeProto, label: string): string {
    const [cos, sin] = [node.input[groupQueryInputs.cos]!, node.input[groupQueryInputs.sin]!];
    const table = this.#editor.constant(cos);
    const positions = this.#editor.initializer(cos)?.dims[0];
    if (!table || positions === undefined) throw unsupported(node, 'computes its rotary table');
    const { capacity, length = capacity } = this.#options;
    if (positions < length) {
      throw unsupported(
        node,
        `knows ${positions} positions, fewer than the ${length} tokens of a row: set kvCache.maxLength`,
      );
    }
    const cache = this.#graph.caches.find(({ input }) => input === node.input[groupQueryInputs.pastKey])!;
    const rotaryDim = 2 * table.dims[1]!;
    const attributes = {
      interleaved: intAttribute(node, 'rotary_interleaved', 0),
      ...(rotaryDim === cache.headDim ? {} : { rotary_embedding_dim: rotaryDim }),
    };
    const inputs = [name, cos, sin, this.#newPositions()];
    return this.#editor.addValue('RotaryEmbedding', inputs, attributes, { name: label });
  }

  /** Returns the positions of the new tokens, int64 `[rows, new]`. */
  #newPositions(): string {
    const name = this.#input('position_ids');
    this.#positions ??= this.#editor.addCast(name, this.#typeOf('position_ids'), 'int64', {
      name: 'positions',
    });
    return this.#positions;
  }

  #input(role: DecoderInputRole): string {
    const name = this.#inputs.get(role) ?? this.#editor.uniqueName(role);
    this.#inputs.set(role, name);
    return name;
  }

  /**
   * Returns the type of an existing input, or the type to declare for a new one. TensorRT casts lengths to int32; in
   * ONNX they are int64.
   */
  #typeOf(role: DecoderInputRole): DataType {
    const isLength = role === 'past_lengths' || role === 'total_lengths';
    return this.#types.get(role) ?? (isLength && this.#options.attention === 'lengths' ? 'int32' : 'int64');
  }

  /** Returns a mask `[rows, 1, new, capacity]`, which is true where a new token may look. */
  #mask(window: number): string {
    const known = this.#masks.get(window);
    if (known !== undefined) return known;
    const editor = this.#editor;
    const { capacity } = this.#options;
    const keys =
      editor.initializer('cache.positions')?.name ??
      editor.addConstant(
        'cache.positions',
        'int64',
        [capacity],
        BigInt64Array.from({ length: capacity }, (_, i) => BigInt(i)),
      );
    // [rows, 1, new, 1]
    const own = editor.addValue(
      'Unsqueeze',
      [this.#newPositions(), editor.addVector([1, 3])],
      {},
      { name: 'mask/positions' },
    );
    const past = editor.addValue('LessOrEqual', [keys, own], {}, { name: 'mask/causal' });
    let mask = past;
    if (window > 0) {
      const first = editor.addValue('Sub', [own, editor.addVector([window])], {}, { name: 'mask/before' });
      const near = editor.addValue('Greater', [keys, first], {}, { name: 'mask/near' });
      mask = editor.addValue('And', [past, near], {}, { name: 'mask/window' });
    }
    this.#masks.set(window, mask);
    return mask;
  }
}

/** Returns the type of a decoder's caches. */
export function cacheType({ graph: { input } }: ModelProto, { caches }: DecoderGraph): FloatType {
  return valueType(input.find(({ name }) => name === caches[0]!.input)!).type as FloatType;
}

function unsupported(node: NodeProto, problem: string): TensorRTError {
  return new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `TensorRT can't run the node "${node.name || node.output[0]}" (${node.opType}): it ${problem}.`,
  );
}
