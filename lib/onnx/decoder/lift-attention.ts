import { type DataType, dataTypes } from '../../base/data-type.js';
import type { DecoderInputRole } from '../../base/decoder-graph.js';
import type { TensorRTError } from '../../base/errors.js';
import { type ExternalDataOptions, makeTensor } from '../format/initializer.js';
import type { ModelProto } from '../format/model.js';
import { madeFrom } from '../format/weight-origin.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { valueInfo } from '../graph/graph-builder.js';
import { operatorName } from '../graph/operators.js';
import { isShape } from '../graph/size.js';
import { dropIdleCasts } from '../passes/drop-idle-casts.js';
import { mergeEqualNodes } from '../passes/merge-equal-nodes.js';
import { proveMask } from './attention-mask.js';
import type { CacheTensor, Decoder } from './decoder.js';
import type { GraphKnowledge } from './graph-knowledge.js';
import { isHeadsSwap } from './heads.js';
import { type Lift, Unrecognised } from './lift.js';
import { type AttentionMatch, type Factor, matchAttention } from './match-attention.js';
import { measureShapes } from './measure-shapes.js';
import { type AttentionFormula, proveAttention } from './prove-attention.js';
import { replacePositions } from './replace-positions.js';
import {
  computeRotary,
  isSameTable,
  matchRotary,
  provesRotary,
  type RotaryMatch,
  type RotaryTable,
} from './rotary.js';
import { simplifyShapes } from './simplify-shapes.js';
import type { LoadPart } from './step-values.js';
import { floats, numbers } from './tensor-numbers.js';
import { unwrapGemm } from './unwrap-gemm.js';
import { formOf } from './value-form.js';

/** How to lift attention out of an exported decoder. */
export interface LiftOptions extends ExternalDataOptions {
  /** The most tokens that a row will hold. */
  readonly maxLength: number;
  /** Loads a part of the graph, which is then run to prove what it computes. */
  readonly loadPart: LoadPart;
}

/** The inputs of one layer's GroupQueryAttention. */
interface Layer extends AttentionFormula {
  readonly value: CacheTensor;
  /** undefined if queries and keys are rotated outside attention, or not at all. */
  readonly rotary: { readonly query: string; readonly key: string; readonly table: RotaryTable } | undefined;
}

/**
 * Replaces the attention that the exporter wrote with com.microsoft.GroupQueryAttention, which reads and updates the
 * cache in place. Caches are `[rows, kvHeads, capacity, headDim]`; a cache's input and output share their memory.
 * `last_indices`, int32 `[rows]`, and `longest`, an int32 scalar, say how long rows are.
 *
 * The exporter's attention is found by its structure and then proven on numbers, by running that part of the graph. The
 * attention is compared with its formula, and the mask with a causal mask or a window; if they differ, the graph stays
 * as it is. The rotation of queries and keys is compared with a rotary embedding, whose table the graph's own nodes
 * compute; if it differs, it stays outside the operator.
 *
 * @throws (rejects) TensorRTError ERR_LIBRARY_NOT_FOUND, ERR_IO; ERR_MODEL_INVALID for weights that can't be read
 */
export async function liftAttention(
  model: ModelProto,
  decoder: Decoder,
  options: LiftOptions,
): Promise<Lift> {
  try {
    return await (await Lifter.of(model, decoder, options)).lift();
  } catch (error) {
    if (error instanceof Unrecognised) return { reason: error.message };
    // ONNX Runtime can't run this part on its own.
    const { code, message } = error as TensorRTError;
    if (partErrors.has(code)) return { reason: `a part of it can't be run by itself (${code}): ${message}` };
    throw error;
  }
}

const partErrors = new Set([
  'ERR_MODEL_INVALID',
  'ERR_MODEL_UNSUPPORTED',
  'ERR_EXECUTION_FAILED',
  'ERR_SHAPE_MISMATCH',
]);

class Lifter {
  readonly #decoder: Decoder;
  readonly #maxLength: number;
  readonly #graph: EditableGraph;
  readonly #known: GraphKnowledge;

  private constructor(decoder: Decoder, known: GraphKnowledge, maxLength: number) {
    this.#decoder = decoder;
    this.#maxLength = maxLength;
    this.#graph = known.graph;
    this.#known = known;
  }

  static async of(model: ModelProto, decoder: Decoder, options: LiftOptions): Promise<Lifter> {
    const graph = new EditableGraph(model);
    dropIdleCasts(graph, model);
    mergeEqualNodes(graph);
    return new Lifter(decoder, await measureShapes(model, graph, decoder, options), options.maxLength);
  }

  async lift(): Promise<Lift> {
    const { caches } = this.#decoder;
    const pairs = Array.from(
      { length: caches.length / 2 },
      (_, i) => [caches[2 * i]!, caches[2 * i + 1]!] as const,
    );
    const layers: Layer[] = [];
    for (const [key, value] of pairs) layers.push(await this.#understand(key, value));
    const types = await proveAttention(this.#known, layers, this.#maxLength);
    const last = this.#input('last_indices', ['rows']);
    const longest = this.#input('longest', []);
    layers.forEach((layer, i) => {
      this.#write(layer, types[i]!, i, last, longest);
    });
    unwrapGemm(this.#known);
    simplifyShapes(this.#known);
    const positions = await replacePositions(this.#known, this.#decoder);
    return this.#finish({ ...positions, [last]: 'last_indices', [longest]: 'longest' });
  }

  readonly #windows = new Map<string, number | undefined>();
  readonly #tables = new Map<string, RotaryTable | undefined>();
  readonly #numbers = new Map<string, number>();

  async #understand(key: CacheTensor, value: CacheTensor): Promise<Layer> {
    if (key.type === 'bfloat16' || value.type !== key.type) {
      throw new Unrecognised(`"${key.input}" is ${key.type}, which GroupQueryAttention does not take`);
    }
    const match = matchAttention(this.#known, key, value);
    if (match.headDim % 8 !== 0) {
      throw new Unrecognised(
        `its heads have ${match.headDim} elements, and GroupQueryAttention takes multiples of 8`,
      );
    }
    const maskKey = JSON.stringify(
      match.masks.map(({ value, kind }) => [kind, formOf(this.#known, [], value)]),
    );
    if (!this.#windows.has(maskKey)) {
      const { window } = await proveMask(match.masks, this.#known.steps, this.#maxLength);
      this.#windows.set(maskKey, window);
    }
    const softcap =
      typeof match.softcap === 'object' ? await this.#product(match.softcap) : (match.softcap ?? 0);
    return {
      match,
      key,
      value,
      scale: match.factor * (await this.#product(match.factors)),
      softcap,
      window: this.#windows.get(maskKey),
      rotary: await this.#rotary(match, key.type),
    };
  }

  async #product(factors: readonly Factor[]): Promise<number> {
    let result = 1;
    for (const { value, inverse } of factors) {
      if (!this.#numbers.has(value)) {
        const part = await this.#known.steps.part([value]);
        if (!part) throw new Unrecognised(`the scale "${value}" depends on tokens`);
        await using _ = part;
        const tensor = (await part.run({ rows: 1, new: 1, past: 1 }))[value]!;
        this.#numbers.set(value, Number(numbers(tensor)[0]));
      }
      const number = this.#numbers.get(value)!;
      result = inverse ? result / number : result * number;
    }
    return result;
  }

  /**
   * Returns the queries and the keys before their rotation, if one table that the operator accepts rotates both.
   * Otherwise the rotation stays outside the operator.
   */
  async #rotary(match: AttentionMatch, type: 'float32' | 'float16'): Promise<Layer['rotary']> {
    if (match.headDim % 16 !== 0) return undefined;
    const query = matchRotary(this.#known, match.query);
    const key = matchRotary(this.#known, match.newKey);
    if (!query || !key) return undefined;
    const sizes = { headDim: match.headDim, type, maxLength: this.#maxLength };
    const form = (found: RotaryMatch) => formOf(this.#known, [found.source], found.turned);
    const name = JSON.stringify([
      form(key),
      key.layout,
      match.kvHeads,
      form(query),
      query.layout,
      match.heads,
    ]);
    if (!this.#tables.has(name)) {
      const table = await computeRotary(this.#known, key, { ...sizes, heads: match.kvHeads });
      const isSame =
        table && (await provesRotary(this.#known, query, { ...sizes, heads: match.heads }, table));
      this.#tables.set(name, isSame && table.pairs % 8 === 0 ? table : undefined);
    }
    const table = this.#tables.get(name);
    if (!table) return undefined;
    return {
      query: await this.#merged(query.source, query.layout),
      key: await this.#merged(key.source, key.layout),
      table,
    };
  }

  /** Returns a value of heads as `[rows, new, heads * headDim]`. */
  #merged(value: string, layout: 'heads-first' | 'sequence-first'): string {
    const { graph, shapes } = this.#known;
    let current = value;
    if (layout === 'heads-first') {
      const node = graph.producer(value);
      if (node && isHeadsSwap(node)) current = node.input[0]!;
      else [current = ''] = graph.addNode('Transpose', [value], { perm: [0, 2, 1, 3] });
    }
    const shape = shapes.shape(value);
    const heads = shape?.[layout === 'heads-first' ? 1 : 2]?.constant;
    const headDim = shape?.[3]?.constant;
    if (heads === undefined || headDim === undefined)
      throw new Unrecognised(`"${value}" has heads of unknown size`);
    const reshape = graph.producer(current);
    if (reshape && operatorName(reshape) === 'Reshape') {
      const [source = ''] = reshape.input;
      if (isShape(shapes.shape(source), ['rows', 'new', heads * headDim])) return source;
    }
    return graph.addNode('Reshape', [current, graph.addVector([0, 0, heads * headDim])])[0]!;
  }

  #write(layer: Layer, type: DataType, i: number, last: string, longest: string): void {
    const graph = this.#graph;
    const { match, key, value, rotary } = layer;
    const inputs = [
      rotary?.query ?? this.#merged(match.query, 'heads-first'),
      rotary?.key ?? this.#merged(match.newKey, 'heads-first'),
      this.#merged(match.newValue, 'heads-first'),
      ...[key.input, value.input, last, longest],
      ...(rotary ? this.#tableInputs(rotary.table, key.type as 'float32' | 'float16') : []),
    ];
    for (const node of match.updates) graph.removeNode(node);
    graph.removeNode(graph.producer(match.output)!);
    const isMerged = match.outputLayout === 'merged';
    const merged = isMerged ? match.output : graph.uniqueName(`attention.${i}.merged`);
    // The attention may have been computed in a type other than the cache's.
    const output = type === key.type ? merged : graph.uniqueName(`attention.${i}.${key.type}`);
    graph.addNode(
      'GroupQueryAttention',
      inputs,
      {
        num_heads: match.heads,
        kv_num_heads: match.kvHeads,
        scale: { float: layer.scale },
        local_window_size: layer.window ?? -1,
        ...(layer.softcap ? { softcap: { float: layer.softcap } } : {}),
        do_rotary: rotary ? 1 : 0,
        rotary_interleaved: rotary?.table.interleaved ? 1 : 0,
      },
      { name: `attention.${i}`, domain: 'com.microsoft', outputs: [output, key.output, value.output] },
    );
    if (output !== merged) {
      graph.addNode('Cast', [output], { to: dataTypes[type].onnx }, { outputs: [merged] });
    }
    if (isMerged) return;
    const split = graph.addVector([0, 0, match.heads, match.headDim]);
    if (match.outputLayout === 'sequence-first') {
      graph.addNode('Reshape', [merged, split], {}, { outputs: [match.output] });
      return;
    }
    const [heads = ''] = graph.addNode('Reshape', [merged, split]);
    graph.addNode('Transpose', [heads], { perm: [0, 2, 1, 3] }, { outputs: [match.output] });
  }

  readonly #tableNames = new Map<RotaryTable, [string, string]>();

  #tableInputs(table: RotaryTable, type: 'float32' | 'float16'): [string, string] {
    const same = [...this.#tableNames].find(([other]) => isSameTable(other, table));
    if (same) return same[1];
    const dims = [this.#maxLength, table.pairs];
    const add = (base: string, values: Float32Array) => {
      const data = floats(type, values, dims).data as Float32Array;
      const tensor = makeTensor(this.#graph.uniqueName(base), type, dims, data);
      return this.#graph.addTensor(madeFrom(tensor, table.weights, 'computed'));
    };
    const names: [string, string] = [add('rotary.cosines', table.cosines), add('rotary.sines', table.sines)];
    this.#tableNames.set(table, names);
    return names;
  }

  #input(base: string, dims: readonly (string | number)[]): string {
    const name = this.#graph.uniqueName(base);
    this.#graph.inputs.push(valueInfo(name, 'int32', dims));
    return name;
  }

  #finish(added: Readonly<Record<string, DecoderInputRole>>): Lift {
    const graph = this.#graph;
    const { needed } = graph;
    const roles: Record<string, DecoderInputRole> = {};
    const inputs: typeof graph.inputs = [];
    for (const input of graph.inputs) {
      const cache = this.#decoder.caches.find((each) => each.input === input.name);
      if (cache) inputs.push(cacheInfo(input.name, cache));
      else if (needed.has(input.name)) {
        inputs.push(input);
        const role = added[input.name] ?? this.#decoder.graph.inputs[input.name];
        if (role) roles[input.name] = role;
      }
    }
    graph.inputs.splice(0, graph.inputs.length, ...inputs);
    graph.outputs.forEach((output, i) => {
      const cache = this.#decoder.caches.find((each) => each.output === output.name);
      if (cache) graph.outputs[i] = cacheInfo(output.name, cache);
    });
    const model = graph.finish();
    // The types that the exporter recorded contain sizes that no longer apply.
    return {
      model: { ...model, graph: { ...model.graph, valueInfo: [] } },
      graph: { ...this.#decoder.graph, mode: 'in-place', inputs: roles },
    };
  }
}

function cacheInfo(name: string, { type, kvHeads, headDim }: CacheTensor) {
  return valueInfo(name, type, ['rows', kvHeads, 'capacity', headDim]);
}
