import type { DecoderGraph, DecoderInputRole } from '../../base/decoder-graph.js';
import { type ExternalDataOptions, tensorElements } from '../format/initializer.js';
import type { ModelProto, NodeProto } from '../format/model.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { attribute, floatAttribute, intAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import type { CacheTensor, Decoder } from './decoder.js';
import type { Lift } from './lift.js';

/** Turns `[a, b, c, d]` into `[a, c, b, d]`, to move heads before positions or back. */
const headsFirst = [0, 2, 1, 3];

/** An Attention, and the two TensorScatter nodes that write the keys and the values that it reads. */
interface ScatteredAttention {
  readonly node: NodeProto;
  readonly key: NodeProto;
  readonly value: NodeProto;
  readonly keyCache: CacheTensor;
  readonly valueCache: CacheTensor;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/**
 * Lifts a graph of operator set 24 to GroupQueryAttention. The graph updates its caches with TensorScatter and attends
 * to the keys up to a length per row (`nonpad_kv_seqlen`). Caches `[rows, capacity, kvHeads * headDim]` become `[rows,
 * kvHeads, capacity, headDim]`. Rotary embeddings move into the operator if their positions are those of the new
 * tokens.
 */
export function liftTensorScatter(
  model: ModelProto,
  decoder: Decoder,
  options: ExternalDataOptions = {},
): Lift {
  const editor = new EditableGraph(model);
  const lifter = new TensorScatterLifter(editor, decoder, options);
  for (const node of [...editor.nodes].filter((each) => operatorName(each) === 'Attention')) {
    const reason = lifter.lift(node);
    if (reason) return { reason: `"${node.name || node.output[0]}" (Attention) ${reason}` };
  }
  return lifter.finish();
}

class TensorScatterLifter {
  readonly #editor: EditableGraph;
  readonly #decoder: Decoder;
  readonly #options: ExternalDataOptions;
  readonly #lastIndices: string;
  readonly #longest: string;
  readonly #lifted = new Map<string, { kvHeads: number; headDim: number }>();

  constructor(editor: EditableGraph, decoder: Decoder, options: ExternalDataOptions) {
    this.#editor = editor;
    this.#decoder = decoder;
    this.#options = options;
    this.#lastIndices = editor.uniqueName('last_indices');
    this.#longest = editor.uniqueName('longest');
  }

  /** Lifts an Attention, or returns the reason why it can't be lifted. */
  lift(node: NodeProto): string | undefined {
    const found = this.#match(node);
    if (typeof found === 'string') return found;
    const { key, value, keyCache, valueCache, queryHeads, kvHeads, headDim } = found;
    const editor = this.#editor;
    const rotary = this.#rotary(node.input[0]!, key.input[1]!);
    const three = (name: string, heads: number) => this.#headsLast(name, heads * headDim);
    const output = this.#outputOf(node);
    editor.removeNode(node);
    editor.removeNode(key);
    editor.removeNode(value);
    editor.addNode(
      'GroupQueryAttention',
      [
        three(rotary?.query ?? node.input[0]!, queryHeads),
        three(rotary?.key ?? key.input[1]!, kvHeads),
        three(value.input[1]!, kvHeads),
        keyCache.input,
        valueCache.input,
        this.#lastIndices,
        this.#longest,
        ...(rotary ? [rotary.cos, rotary.sin] : []),
      ],
      {
        num_heads: queryHeads,
        kv_num_heads: kvHeads,
        scale: { float: floatAttribute(node, 'scale', 0) },
        softcap: { float: floatAttribute(node, 'softcap', 0) },
        do_rotary: rotary ? 1 : 0,
        rotary_interleaved: rotary?.interleaved ?? 0,
      },
      {
        name: node.name || node.output[0]!,
        domain: 'com.microsoft',
        outputs: [output.name, keyCache.output, valueCache.output],
      },
    );
    if (!output.isHeadsLast) {
      const split = editor.addValue('Reshape', [output.name, editor.addVector([0, 0, queryHeads, headDim])]);
      editor.addNode('Transpose', [split], { perm: headsFirst }, { outputs: [node.output[0]!] });
    }
    for (const { input } of [keyCache, valueCache]) this.#lifted.set(input, { kvHeads, headDim });
    return undefined;
  }

  finish(): Lift {
    const editor = this.#editor;
    const caches: DecoderGraph['caches'][number][] = [];
    for (const { input, output, type } of this.#decoder.caches) {
      const shape = this.#lifted.get(input);
      if (!shape) return { reason: `no Attention that can be lifted reads "${input}"` };
      const dims = ['rows', shape.kvHeads, 'capacity', shape.headDim];
      editor.declareInput(input, type, dims);
      editor.declareOutput(output, type, dims);
      caches.push({ input, output, ...shape });
    }
    editor.declareInput(this.#lastIndices, 'int32', ['rows']);
    editor.declareInput(this.#longest, 'int32', []);
    editor.dropUnreadInputs();
    const model = editor.finish();
    const read = new Set(model.graph.input.map(({ name }) => name));
    const { inputs, logits } = this.#decoder.graph;
    const roles: Record<string, DecoderInputRole> = Object.fromEntries(
      Object.entries(inputs).filter(([name]) => read.has(name)),
    );
    roles[this.#lastIndices] = 'last_indices';
    roles[this.#longest] = 'longest';
    return { model, graph: { mode: 'in-place', inputs: roles, caches, logits } };
  }

  #match(node: NodeProto): ScatteredAttention | string {
    const editor = this.#editor;
    const [query, keys, values, mask, pastKey, pastValue, lengths] = node.input;
    if (mask) return `has the mask "${mask}"`;
    if (pastKey || pastValue) return 'has a past of its own';
    if (!lengths) return 'has no nonpad_kv_seqlen';
    if (!intAttribute(node, 'is_causal', 0)) return 'is not causal';
    if (node.output.slice(1).some((name) => name !== '')) return 'has more than one output';
    const key = editor.producer(keys);
    const value = editor.producer(values);
    const keyCache = this.#decoder.caches.find(({ input }) => input === key?.input[0]);
    const valueCache = this.#decoder.caches.find(({ input }) => input === value?.input[0]);
    if (!key || !value || !keyCache || !valueCache) return 'does not attend to caches of the graph';
    for (const scatter of [key, value]) {
      if (operatorName(scatter) !== 'TensorScatter') return `reads its cache through ${scatter.opType}`;
      const mode = attribute(scatter, 'mode')?.s;
      if (mode && new TextDecoder().decode(mode) !== 'linear') return 'has a circular cache';
      if (editor.readers(scatter.output[0]!).length > 1) return `shares "${scatter.output[0]}"`;
    }
    const axes = [key, value].map((scatter, i) => {
      const { rank } = i ? valueCache : keyCache;
      return { rank, axis: (intAttribute(scatter, 'axis', -2) + rank) % rank };
    });
    const wrong = axes.some(({ rank, axis }) => axis !== rank - 2 || rank !== keyCache.rank);
    if (wrong) {
      return 'has caches of another layout than [rows, heads, length, size] or [rows, length, heads * size]';
    }
    const flat = keyCache.rank === 3;
    const kvHeads = flat ? intAttribute(node, 'kv_num_heads', 0) : keyCache.kvHeads;
    const queryHeads = intAttribute(node, 'q_num_heads', 0) || this.#heads(query!);
    if (!queryHeads || !kvHeads || queryHeads % kvHeads) return 'does not say how many heads it has';
    const headDim = flat ? keyCache.headDim / kvHeads : keyCache.headDim;
    if ((flat ? valueCache.headDim / kvHeads : valueCache.headDim) !== headDim) {
      return 'has values of another size than its keys';
    }
    return { node, key, value, keyCache, valueCache, queryHeads, kvHeads, headDim };
  }

  /** Returns the number of heads of a value `[rows, heads, new, size]`, from the Reshape that split them. */
  #heads(name: string): number | undefined {
    let node = this.#editor.producer(name);
    while (node && operatorName(node) === 'RotaryEmbedding') node = this.#editor.producer(node.input[0]);
    if (!node || !isHeadsFirst(node)) return undefined;
    const split = this.#editor.producer(node.input[0]);
    if (!split || operatorName(split) !== 'Reshape') return undefined;
    const shape = this.#editor.constant(split.input[1]);
    if (shape?.dims[0] !== 4) return undefined;
    const heads = Number(tensorElements(shape, this.#options)[2]);
    return heads > 0 ? heads : undefined;
  }

  /** Returns the tables of a rotation that can move into the operator, and the query and the key before it. */
  #rotary(query: string, key: string) {
    const editor = this.#editor;
    const nodes = [editor.producer(query), editor.producer(key)] as const;
    const [q, k] = nodes;
    if (!q || !k || nodes.some((node) => operatorName(node!) !== 'RotaryEmbedding')) return undefined;
    const [cos, sin, positions] = q.input.slice(1, 4);
    const isSame = k.input.slice(1, 4).every((name, i) => name === [cos, sin, positions][i]);
    const settings = nodes.map((node) => [
      intAttribute(node!, 'interleaved', 0),
      intAttribute(node!, 'rotary_embedding_dim', 0),
    ]);
    const [interleaved, rotaryDim] = settings[0]!;
    const table = editor.constant(cos);
    if (!isSame || settings[1]!.some((setting, i) => setting !== settings[0]![i])) return undefined;
    if (table?.dims.length !== 2 || !editor.constant(sin) || !this.#areNewPositions(positions)) {
      return undefined;
    }
    if (rotaryDim && rotaryDim !== 2 * table.dims[1]!) return undefined;
    return { query: q.input[0]!, key: k.input[0]!, cos: cos!, sin: sin!, interleaved: interleaved! };
  }

  /**
   * True if a value counts from past to total - 1 in each row. If that isn't certain, the rotary embedding stays
   * outside the operator.
   */
  #areNewPositions(name: string | undefined): boolean {
    if (!name) return false;
    if (this.#roleOf(name) === 'position_ids') return true;
    const sum = this.#editor.producer(name);
    if (!sum || operatorName(sum) !== 'Add') return false;
    const terms = sum.input.map((term) => this.#unwrapped(term));
    const isPast = (term: string) => this.#roleOf(term) === 'past_lengths';
    const isCount = (term: string) => {
      const range = this.#editor.producer(term);
      if (!range || operatorName(range) !== 'Range') return false;
      const [start, step] = [range.input[0], range.input[2]].map((each) => this.#number(each));
      const length = this.#editor.producer(this.#unwrapped(range.input[1]!));
      return start === 0 && step === 1 && this.#isNewLength(length);
    };
    return terms.some(isPast) && terms.some(isCount);
  }

  #isNewLength(node: NodeProto | undefined): boolean {
    const isTokens = (name: string | undefined) => this.#roleOf(name) === 'input_ids';
    if (!node) return false;
    if (operatorName(node) === 'Shape') {
      return (
        isTokens(node.input[0]) && intAttribute(node, 'start', 0) === 1 && intAttribute(node, 'end', 2) === 2
      );
    }
    const shape = this.#editor.producer(node.input[0]);
    return (
      operatorName(node) === 'Gather' &&
      shape?.opType === 'Shape' &&
      isTokens(shape.input[0]) &&
      this.#number(node.input[1]) === 1
    );
  }

  #roleOf(name: string | undefined): DecoderInputRole | undefined {
    const { inputs } = this.#decoder.graph;
    return name !== undefined && Object.hasOwn(inputs, name) ? inputs[name] : undefined;
  }

  #number(name: string | undefined): number | undefined {
    const tensor = this.#editor.constant(name);
    if (tensor?.dims.reduce((product, dim) => product * dim, 1) !== 1) return undefined;
    return Number(tensorElements(tensor, this.#options)[0]);
  }

  /** Returns the value as it was before casts and before dimensions of 1 were added or removed. */
  #unwrapped(name: string): string {
    let value = name;
    for (;;) {
      const node = this.#editor.producer(value);
      if (!node || !/^(Unsqueeze|Squeeze|Cast|Identity)$/.test(operatorName(node))) return value;
      value = node.input[0]!;
    }
  }

  /** Returns a value, which may be `[rows, heads, new, size]`, as `[rows, new, heads * size]`. */
  #headsLast(name: string, width: number): string {
    const editor = this.#editor;
    if (this.#decoder.caches[0]!.rank === 3) return name;
    const transpose = editor.producer(name);
    const split = transpose && isHeadsFirst(transpose) ? editor.producer(transpose.input[0]) : undefined;
    if (split && operatorName(split) === 'Reshape' && this.#isSplit(split)) return split.input[0]!;
    const back = editor.addValue('Transpose', [name], { perm: headsFirst });
    return editor.addValue('Reshape', [back, editor.addVector([0, 0, width])]);
  }

  /** True if a Reshape only splits the last of three dimensions: `[0, 0, heads, size]`. */
  #isSplit(split: NodeProto): boolean {
    const shape = this.#editor.constant(split.input[1]);
    if (!shape || intAttribute(split, 'allowzero', 0)) return false;
    const dims = [...tensorElements(shape, this.#options)].map(Number);
    return dims.length === 4 && dims[0] === 0 && dims[1] === 0;
  }

  /**
   * Returns the value that the operator will compute. This is the value with joined heads, if the result is only
   * transposed and reshaped to join them.
   */
  #outputOf(node: NodeProto): { name: string; isHeadsLast: boolean } {
    const editor = this.#editor;
    const given = node.output[0]!;
    if (this.#decoder.caches[0]!.rank === 3) return { name: given, isHeadsLast: true };
    const [transpose, ...others] = editor.readers(given);
    const joins =
      transpose && others.length === 0 && isHeadsFirst(transpose) ? editor.readers(transpose.output[0]!) : [];
    const [join] = joins;
    if (joins.length === 1 && operatorName(join!) === 'Reshape' && this.#isJoin(join!)) {
      editor.removeNode(transpose!);
      editor.removeNode(join!);
      return { name: join!.output[0]!, isHeadsLast: true };
    }
    return { name: editor.uniqueName(`${given}.joined`), isHeadsLast: false };
  }

  #isJoin(join: NodeProto): boolean {
    const shape = this.#editor.constant(join.input[1]);
    if (!shape || intAttribute(join, 'allowzero', 0)) return false;
    const dims = [...tensorElements(shape, this.#options)].map(Number);
    return dims.length === 3 && dims[0] === 0 && dims[1] === 0;
  }
}

function isHeadsFirst(node: NodeProto): boolean {
  const perm = attribute(node, 'perm')?.ints?.map(Number);
  return operatorName(node) === 'Transpose' && perm?.join() === headsFirst.join();
}
