import { dataTypes } from '../../base/data-type.js';
import {
  beyondBfloat16,
  exceedsFloat16,
  maxFloat16,
  smallestNormalFloat16,
  toBfloat16Bits,
  toFloat16Bits,
} from '../../base/float16.js';
import { type ExternalDataOptions, makeTensor, tensorElements } from '../format/initializer.js';
import {
  AttributeType,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from '../format/model.js';
import { attributeProto } from '../graph/graph-builder.js';
import {
  bfloat16Opset,
  delicate,
  elementWise,
  exact,
  isTypedOutput,
  operatorName,
  outputType,
  products,
  sensitive,
  typedInputs,
  typeless,
} from '../graph/operators.js';
import { captured, collectNames, standardOpset, subgraphs } from '../graph/traverse.js';
import { MinimumCut } from './minimum-cut.js';
import type { Ranges, RangesReport } from './ranges.js';

const float32 = dataTypes.float32.onnx;
const int64 = dataTypes.int64.onnx;

/**
 * A value that reached more than this, of FP16's 65504, is kept in FP32: the default of ModelOpt's AutoCast
 * (modelopt/onnx/autocast, `data_max`). What was measured on some inputs may be 128 times as large on others.
 */
export const defaultMaxValue = 512;

/**
 * A value that never reached this is kept in FP32 too: FP16's precision ends at 2⁻¹⁴, and a sixteenth of it would be
 * below that.
 */
const minValue = 16 * smallestNormalFloat16;

/**
 * A value whose elements all lie within this part of the largest is kept in FP32: of its 11 bits, FP16 would spend four
 * on what they have in common. A large bias does that, and what follows may subtract it again.
 */
const minSpread = 16;

/** What casting to 16 bits takes into account. */
export interface CastOptions extends ExternalDataOptions {
  /**
   * Nodes to leave in FP32, by name or operator type; `*` stands for any characters. After a `!`, nodes to cast though
   * a range or a sensitive operator would keep them. The last that fits decides.
   */
  keepFp32?: readonly string[];
  /** What `measureRanges` measured. Default: none, and no node but products and what follows them is cast. */
  ranges?: Ranges;
  /** What nodes may reach and still be cast to FP16. Default {@link defaultMaxValue}. */
  maxValue?: number;
}

/** What a node of the model became, and why. */
export interface CastNode {
  /** Its name, or that of its first output where it has none. */
  readonly node: string;
  readonly operator: string;
  readonly precision: 'fp16' | 'bf16' | 'fp32';
  readonly reason: string;
}

/** What a cast did. */
export interface CastReport {
  /** Where ranges come from; without any, why. */
  readonly ranges: RangesReport;
  /** Every node that computes with float32 in the model given, in its order. */
  readonly nodes: readonly CastNode[];
  /** Matrix products and convolutions left as they were: why, by node. */
  readonly kept: readonly { readonly node: string; readonly reason: string }[];
  /** Casts inserted. */
  readonly casts: number;
  /** Weights converted, and the bytes they have now. */
  readonly weights: number;
  readonly weightBytes: number;
}

export interface CastFloat16Report extends CastReport {
  /** Nodes computing in FP16, by operator type. */
  readonly float16: Readonly<Record<string, number>>;
}

export interface CastBfloat16Report extends CastReport {
  /** Nodes computing in BF16, by operator type. */
  readonly bfloat16: Readonly<Record<string, number>>;
}

/**
 * Casts a model to mixed precision by the rules of ModelOpt's AutoCast: everything in FP16 but
 *
 * - sums over many elements, powers and exponentials (softmax, normalisations, reductions …), unknown operators and
 *   bodies of control flow;
 * - nodes with weights beyond ±65504, or with an input or output that reached more than `maxValue` in
 *   `options.ranges`, or nothing but numbers that FP16
 *   holds, or tells apart, with few bits;
 * - the last product before an output named logits: greedy decoding compares numbers there that FP16 makes equal; and
 *   the table with a row for each of them, which every layer's sums start from;
 * - what was cast from 32- or 64-bit integers (positions, which FP16 counts exactly only to 2048), squares, products
 *   of dequantized values;
 * - what `options.keepFp32` names;
 * - nodes whose neighbours are in FP32, so that casting them would take more casts than it spares. There is no
 *   assignment with fewer casts in which all products that may be in FP16 are.
 *
 * The graph's inputs and outputs stay as they are. The model given is not changed; weights that need no conversion are
 * shared with it. Without ranges only products, what follows them element by element and embedding tables are cast.
 *
 * @throws TensorRTError ERR_MODEL_INVALID, ERR_MODEL_NOT_FOUND or ERR_IO for weights that can't be read
 */
export function castToFloat16(
  model: ModelProto,
  options: CastOptions = {},
): { model: ModelProto; report: CastFloat16Report } {
  const { graph, counts, report } = new Caster(model, 'fp16', options).run();
  // Before version 4 of the format weights had to be inputs too; the new ones are not.
  const irVersion = Math.max(model.irVersion, 4);
  return { model: { ...model, irVersion, graph }, report: { ...report, float16: counts } };
}

/**
 * As {@link castToFloat16}, to BF16: it has float32's range and 8 bits of precision, so that no range counts. The model
 * becomes one of operator set 22, which has BF16 in convolutions and pooling, where its operators mean the same there;
 * otherwise what its own operator set lacks stays in FP32.
 *
 * @throws as castToFloat16
 */
export function castToBfloat16(
  model: ModelProto,
  options: Omit<CastOptions, 'ranges' | 'maxValue'> = {},
): { model: ModelProto; report: CastBfloat16Report } {
  const newer = withOpset22(model);
  const { graph, counts, report } = new Caster(newer, 'bf16', options).run();
  return { model: { ...newer, graph }, report: { ...report, bfloat16: counts } };
}

/** Operators whose meaning changed between operator sets 18 and 22 (https://onnx.ai/onnx/operators/). */
const changedBefore22 = new Set(['DFT', 'GridSample', 'GroupNormalization']);

/** The format's version that came with operator set 22 (onnx/helper.py, VERSION_TABLE). */
const irVersion22 = 10;

function withOpset22(model: ModelProto): ModelProto {
  const opset = standardOpset(model);
  const irVersion = Math.max(model.irVersion, irVersion22);
  const changes = (graph: GraphProto): boolean =>
    graph.node.some((node) => changedBefore22.has(operatorName(node)) || subgraphs(node).some(changes));
  if (opset < 18 || opset >= 22 || changes(model.graph)) {
    return { ...model, irVersion: Math.max(model.irVersion, 4) };
  }
  const opsetImport = model.opsetImport.map((entry) =>
    !entry.domain || entry.domain === 'ai.onnx' ? { ...entry, version: 22 } : entry,
  );
  return { ...model, irVersion, opsetImport };
}

interface LowType {
  readonly onnx: number;
  readonly name: 'float16' | 'bfloat16';
  /** 'FP16' or 'BF16', in sentences. */
  readonly label: string;
  /** What names of values in it end with. */
  readonly suffix: string;
  readonly bits: (values: Float32Array) => Uint16Array;
}

const lowTypes = {
  fp16: {
    onnx: dataTypes.float16.onnx,
    name: 'float16',
    label: 'FP16',
    suffix: '__fp16',
    bits: toFloat16Bits,
  },
  bf16: {
    onnx: dataTypes.bfloat16.onnx,
    name: 'bfloat16',
    label: 'BF16',
    suffix: '__bf16',
    bits: toBfloat16Bits,
  },
} as const satisfies Record<string, LowType>;

/** A node, and what is decided about it. */
interface Plan {
  readonly node: NodeProto;
  readonly operator: string;
  /** Inputs of the element type T that are float32. */
  readonly inputs: readonly number[];
  /** 'either': the casts decide. 'typeless': it reads whichever there is. 'none': it has nothing to do with float32. */
  kind: 'low' | 'high' | 'either' | 'typeless' | 'none';
  reason: string;
  prefersHigh: boolean;
}

// Every value keeps its name in FP32; its 16-bit version, if one is needed, has another. So a node that isn't touched
// reads what it always read, whatever it is.
class Caster {
  readonly #graph: GraphProto;
  readonly #opset: number;
  readonly #precision: 'fp16' | 'bf16';
  readonly #type: LowType;
  readonly #options: CastOptions;
  /** undefined where nothing was measured. */
  readonly #ranges: Ranges | undefined;
  readonly #keep: readonly { pattern: RegExp; cast: boolean }[];
  readonly #nodes: NodeProto[] = [];
  readonly #names = new Set<string>();
  /** ONNX element types, as far as they are known. */
  readonly #types = new Map<string, number>();
  /** Weights, and the values of Constant nodes. */
  readonly #constants = new Map<string, TensorProto>();
  readonly #converted = new Map<string, { tensor?: TensorProto; refusal?: string }>();
  readonly #added: TensorProto[] = [];
  /** FP32 name → 16-bit name, where the 16-bit value exists. */
  readonly #low = new Map<string, string>();
  /** Values computed in 16 bits whose FP32 version does not exist (yet). */
  readonly #lowOnly = new Set<string>();
  /** Values that something other than a product reads; the graph's outputs too. */
  readonly #otherReaders = new Set<string>();
  /** Values that were 32- or 64-bit integers, moved and calculated with. */
  readonly #integral = new Set<string>();
  readonly #dequantized = new Set<string>();
  readonly #softmax = new Set<string>();
  /** What products give, and what follows nothing but that. */
  readonly #following = new Set<string>();
  readonly #masks = new Map<string, string>();
  /** The products that a model's logits come from. */
  readonly #makesLogits: ReadonlySet<NodeProto>;
  /** How many logits there are, by what the outputs' shapes say. */
  readonly #vocabularies: ReadonlySet<number>;
  readonly #graphInputs: ReadonlySet<string>;
  readonly #graphOutputs: ReadonlySet<string>;
  #casts = 0;

  constructor(model: ModelProto, precision: 'fp16' | 'bf16', options: CastOptions) {
    const { graph, irVersion } = model;
    this.#graph = graph;
    this.#opset = standardOpset(model);
    this.#precision = precision;
    this.#type = lowTypes[precision];
    this.#options = options;
    this.#ranges = options.ranges?.report.source === 'none' ? undefined : options.ranges;
    this.#keep = (options.keepFp32 ?? []).map((text) => {
      const cast = text.startsWith('!');
      return { pattern: pattern(cast ? text.slice(1) : text), cast };
    });
    const inputs = new Set(graph.input.map((input) => input.name));
    for (const tensor of graph.initializer) {
      const name = tensor.name ?? '';
      this.#types.set(name, tensor.dataType);
      // Listed as an input, a weight is a default that a caller may replace.
      if (irVersion < 4 || !inputs.has(name)) this.#constants.set(name, tensor);
    }
    for (const { name, type } of [...graph.input, ...graph.output, ...graph.valueInfo]) {
      const elemType = type?.tensorType?.elemType;
      if (elemType) this.#types.set(name, elemType);
    }
    this.#graphInputs = inputs;
    this.#graphOutputs = new Set(graph.output.map(({ name }) => name));
    for (const name of this.#graphOutputs) this.#otherReaders.add(name);
    for (const node of graph.node) {
      if (products.has(operatorName(node))) continue;
      for (const name of [...node.input, ...captured(node)]) this.#otherReaders.add(name);
    }
    const logits = graph.output.filter(({ name }) => /logits/i.test(name));
    this.#makesLogits = productsOf(
      graph,
      logits.map(({ name }) => name),
    );
    this.#vocabularies = new Set(
      logits.flatMap(({ type }) => type?.tensorType?.shape?.dim.at(-1)?.dimValue ?? []),
    );
    collectNames(graph, this.#names);
  }

  run() {
    const plans = this.#graph.node.map((node) => this.#classify(this.#withoutNullCast(node)));
    this.#settle(plans);
    for (const plan of plans) this.#emit(plan);
    for (const name of this.#graphOutputs) this.#needHigh(name);
    const counts = new Map<string, number>();
    for (const { kind, node } of plans) {
      if (kind === 'low') counts.set(node.opType, (counts.get(node.opType) ?? 0) + 1);
    }
    return { graph: this.#assemble(), counts: Object.fromEntries(counts), report: this.#report(plans) };
  }

  #report(plans: readonly Plan[]): CastReport {
    const { ranges } = this.#options;
    const none = this.#precision === 'bf16' ? 'BF16 has the range of float32' : 'options.ranges gives none';
    const label = ({ node, operator }: Plan) => node.name || node.output[0] || operator;
    return {
      ranges: ranges?.report ?? { source: 'none', reason: none },
      nodes: plans
        .filter(({ kind }) => kind === 'low' || kind === 'high')
        .map((plan) => ({
          node: label(plan),
          operator: plan.operator,
          precision: plan.kind === 'low' ? this.#precision : 'fp32',
          reason: plan.reason,
        })),
      kept: plans
        .filter(
          ({ kind, operator, inputs }) => kind === 'high' && products.has(operator) && inputs.length > 0,
        )
        .map((plan) => ({ node: label(plan), reason: plan.reason })),
      casts: this.#casts,
      weights: this.#added.length,
      weightBytes: this.#added.reduce((sum, tensor) => sum + tensor.rawData!.length, 0),
    };
  }

  #assemble(): GraphProto {
    const graph = this.#graph;
    const used = new Set(this.#graphOutputs);
    // Backwards, so that what only dropped nodes read is dropped too: casts that something made redundant.
    const nodes: NodeProto[] = [];
    const given = new Set(graph.node);
    for (const node of this.#nodes.toReversed()) {
      const isCast = node.opType === 'Cast' || node.opType === 'Constant';
      const isRedundant = isCast && !node.output.some((name) => used.has(name));
      if (isRedundant && (!given.has(node) || this.#low.has(node.output[0]!))) continue;
      nodes.push(node);
      for (const name of [...node.input, ...captured(node)]) used.add(name);
    }
    nodes.reverse();
    // What only 16-bit nodes read is there in 16 bits alone.
    const replaced = (name: string) => this.#low.has(name) && !used.has(name);
    const constant = (name: string) => this.#constants.has(name);
    const defined = new Set(nodes.flatMap((node) => node.output));
    return {
      ...graph,
      node: nodes,
      initializer: [
        ...graph.initializer.filter(({ name }) => !name || !replaced(name)),
        ...this.#added.filter(({ name }) => used.has(name!)),
      ],
      input: graph.input.filter(({ name }) => !constant(name)),
      valueInfo: graph.valueInfo.filter(({ name }) => defined.has(name) && !replaced(name)),
    };
  }

  // ---- which node computes in what ---------------------------------------------------------------------------------

  /** A cast from float32 to float32, which exporters write, does nothing. */
  #withoutNullCast(node: NodeProto): NodeProto {
    const isNull =
      operatorName(node) === 'Cast' && this.#typeOf(node) === float32 && castType(node) === float32;
    return isNull ? { ...node, opType: 'Identity', attribute: [] } : node;
  }

  #classify(node: NodeProto): Plan {
    const operator = operatorName(node);
    if (operator === 'Constant') this.#defineConstant(node);
    const canBeLow = products.has(operator) || elementWise.has(operator);
    const typed = canBeLow ? typedInputs(operator, node) : [];
    const isFloat32 = (i: number) => this.#types.get(node.input[i]!) === float32;
    // T is one type: what one input has, another whose type isn't known has too. Only Attention's mask has its own.
    const isOfT = typed.some(isFloat32);
    const inputs = typed.filter((i) => {
      const isUnknown = !this.#types.has(node.input[i]!) && !(operator === 'Attention' && i === 3);
      return isFloat32(i) || (isOfT && isUnknown);
    });
    const plan: Plan = { node, operator, inputs, kind: 'none', reason: '', prefersHigh: false };

    for (const [i, name] of node.output.entries()) {
      if (name === '' || this.#types.has(name)) continue;
      const type = outputType(node, i, (input) => this.#types.get(node.input[input] ?? ''));
      if (type !== undefined) this.#types.set(name, type);
      else if (isOfT && isTypedOutput(operator, i)) this.#types.set(name, float32);
    }

    const isFlag =
      operator === 'Cast' && isFloat32Output(node, this.#types) && !isOfFloat(this.#typeOf(node));
    if (canBeLow && inputs.length > 0) this.#decide(plan);
    else if (isFlag) this.#decide(plan);
    else if (typeless.has(operator)) plan.kind = 'typeless';
    else if (operator !== 'Constant' && this.#touchesFloat32(node)) {
      plan.kind = 'high';
      plan.reason = sensitive.has(operator)
        ? `${operator} is computed in FP32: it sums many elements, or grows fast`
        : `${operator} is left in FP32`;
    }
    this.#trace(plan);
    return plan;
  }

  #typeOf(node: NodeProto): number | undefined {
    return this.#types.get(node.input[0] ?? '');
  }

  #touchesFloat32(node: NodeProto): boolean {
    return [...node.input, ...node.output, ...captured(node)].some(
      (name) => this.#types.get(name) === float32,
    );
  }

  /** For a node that can compute in 16 bits: whether it must, may or must not. */
  #decide(plan: Plan): void {
    const { node, operator } = plan;
    const isTable = operator === 'Gather' && this.#isTable(node.input[0]!);
    const named = this.#keep.findLast(({ pattern: p }) => p.test(node.name ?? '') || p.test(node.opType));
    const refusal =
      named && !named.cast
        ? 'options.keepFp32 names it'
        : (this.#opsetRefusal(operator) ??
          (this.#makesLogits.has(node) && !named
            ? 'logits are compared with each other: they are not rounded'
            : undefined) ??
          (isTable && !named ? this.#vocabularyRefusal(node.input[0]!) : undefined) ??
          this.#exactnessRefusal(plan) ??
          (named?.cast ? undefined : (this.#rangeRefusal(plan) ?? this.#unmeasuredRefusal(plan))));
    if (refusal !== undefined) {
      plan.kind = 'high';
      plan.reason = refusal;
      return;
    }
    const isProduct = products.has(operator);
    plan.kind = isProduct || isTable || named?.cast ? 'low' : 'either';
    plan.reason = isProduct
      ? 'a product'
      : isTable
        ? 'a table, of half the size'
        : named?.cast
          ? 'options.keepFp32 exempts it'
          : 'element by element';
    // What comes or goes in FP32 anyway is not rounded for nothing.
    plan.prefersHigh =
      delicate.has(operator) ||
      !this.#followsProducts(plan) ||
      node.output.some((name) => this.#graphOutputs.has(name));
  }

  /** A decoder's residual stream is FP32: rounding where it starts would spare no computation, and take a cast. */
  #vocabularyRefusal(table: string): string | undefined {
    return this.#vocabularies.has(this.#constants.get(table)!.dims[0]!)
      ? `"${table}" has a row for each logit: every layer adds to what is read there`
      : undefined;
  }

  #opsetRefusal(operator: string): string | undefined {
    if (this.#precision !== 'bf16') return undefined;
    const needed = bfloat16Opset(operator);
    if (needed <= this.#opset) return undefined;
    return Number.isFinite(needed)
      ? `${operator} has BF16 from operator set ${needed} on; the model's is ${this.#opset}`
      : `${operator} does not have BF16`;
  }

  /** Why a node's numbers would be wrong in 16 bits, whatever is calculated. */
  #exactnessRefusal({ node, operator, inputs }: Plan): string | undefined {
    const { label } = this.#type;
    if (operator === 'Cast') {
      return isWideInteger(this.#typeOf(node))
        ? `it holds integers, which ${label} may not hold exactly`
        : undefined;
    }
    // A square is a power.
    if (operator === 'Mul' && node.input[0] === node.input[1]) return 'a square is a power';
    for (const i of inputs) {
      const name = node.input[i]!;
      // Of an attention mask, low values are limited.
      if (operator === 'Attention' && i === 3) continue;
      if (this.#constants.has(name)) {
        const { refusal } = this.#convert(name);
        if (refusal) return refusal;
        const vanishing = this.#vanishing(name);
        if (vanishing === 'all') return `"${name}" is too small for ${label}`;
        if (vanishing === 'some' && operator === 'Div' && i === 1) {
          return `"${name}", a divisor, has values that ${label} would make zero`;
        }
      }
      if (this.#integral.has(name)) return `"${name}" holds integers, which ${label} may not hold exactly`;
      if (this.#dequantized.has(name)) return `"${name}" is dequantized: quantized products stay as they are`;
    }
    return undefined;
  }

  #rangeRefusal({ node, inputs, operator }: Plan): string | undefined {
    const { maxValue = defaultMaxValue } = this.#options;
    const ranges = this.#ranges;
    if (!ranges || this.#precision === 'bf16') return undefined;
    const values = [
      ...inputs.filter((i) => !(operator === 'Attention' && i === 3)).map((i) => node.input[i]!),
      ...node.output.filter((name, i) => name !== '' && isTypedOutput(operator, i)),
    ];
    for (const name of values) {
      if (this.#constants.has(name)) continue;
      const range = ranges.values.get(name);
      if (range === undefined) return `the range of "${name}" could not be measured`;
      const spread = range.most - range.least;
      const largest = Math.max(range.most, -range.least);
      if (!(largest <= maxValue)) return `"${name}" reached ${printed(largest)}, beyond ${maxValue}`;
      if (largest > 0 && largest < minValue) {
        return `"${name}" reached no more than ${printed(largest)}, where FP16 has few bits`;
      }
      if (spread > 0 && spread < largest / minSpread) {
        const { least, most } = range;
        return `"${name}" lies between ${printed(least)} and ${printed(most)}, of which FP16 tells little apart`;
      }
    }
    return undefined;
  }

  /** Without ranges, sums and products of what isn't known to be small are not risked. */
  #unmeasuredRefusal(plan: Plan): string | undefined {
    const { node, operator } = plan;
    if (this.#ranges || this.#precision === 'bf16') return undefined;
    if (products.has(operator) || operator === 'Cast') return undefined;
    if (operator === 'Gather' && this.#isTable(node.input[0]!)) return undefined;
    return this.#followsProducts(plan) ? undefined : 'it reads FP32, and the ranges of values are not known';
  }

  /** Does a node read nothing but what products give, and what follows them? */
  #followsProducts({ node, operator, inputs }: Plan): boolean {
    // PyTorch guards a softmax with Where(IsNaN(p), 0, p). TensorRT's attention fusion wants the cast before that, and
    // fails to compile where it comes after; nothing is lost, for p lies in [0, 1] and only products read it next.
    const isGuard = operator === 'Where' && !this.#otherReaders.has(node.output[0]!);
    const follows = (name: string) => this.#following.has(name) || (isGuard && this.#softmax.has(name));
    const names = inputs.map((i) => node.input[i]!).filter((name) => !this.#constants.has(name));
    return names.length > 0 && names.every(follows);
  }

  /** Remembers of a node's outputs what decides about those that read them. */
  #trace(plan: Plan): void {
    const { node, operator, inputs, kind } = plan;
    const name = node.output[0];
    if (!name) return;
    const variable = inputs.filter((i) => !this.#constants.has(node.input[i]!));
    const all = (set: ReadonlySet<string>) =>
      variable.length > 0 && variable.every((i) => set.has(node.input[i]!));
    const carries = exact.has(operator);
    if (
      (operator === 'Cast' && isWideInteger(this.#typeOf(node))) ||
      (operator === 'Range' && this.#types.get(name) === float32) ||
      (carries && all(this.#integral)) ||
      (products.has(operator) && inputs.some((i) => this.#integral.has(node.input[i]!)))
    ) {
      for (const output of node.output) this.#integral.add(output);
    }
    if (
      operator === 'DequantizeLinear' ||
      (carries && inputs.some((i) => this.#dequantized.has(node.input[i]!)))
    ) {
      for (const output of node.output) this.#dequantized.add(output);
    }
    if (operator === 'Softmax' && this.#types.get(name) === float32) this.#softmax.add(name);
    const isTable = operator === 'Gather' && this.#constants.has(node.input[0]!);
    const follows = products.has(operator) || this.#followsProducts(plan);
    if ((kind === 'low' || kind === 'either') && follows && !isTable && operator !== 'Cast') {
      node.output.forEach((output, i) => {
        if (isTypedOutput(operator, i)) this.#following.add(output);
      });
    }
  }

  /**
   * Decides about the nodes that may be either, so that there are as few casts as possible; of as many, the most nodes
   * in 16 bits. A cast is a value that is made in one type and read in the other: the least number of them is the
   * minimum cut between the nodes that must be in FP32 and those that must not.
   */
  #settle(plans: readonly Plan[]): void {
    const cut = new MinimumCut();
    const [high, low] = [cut.vertex(), cut.vertex()];
    const vertices = plans.map(({ kind }) =>
      kind === 'low' ? low : kind === 'either' ? cut.vertex() : high,
    );
    // One more than all preferences together.
    const cast = plans.length + 1;
    const never = Number.MAX_SAFE_INTEGER;
    const makers = new Map<string, number>([...this.#graphInputs].map((name) => [name, high]));
    const readers = new Map<string, Set<number>>();
    const read = (name: string, vertex: number) => {
      const set = readers.get(name);
      if (set) set.add(vertex);
      else readers.set(name, new Set([vertex]));
    };
    plans.forEach(({ node, operator, inputs, kind, prefersHigh }, index) => {
      const vertex = vertices[index]!;
      if (kind === 'either') {
        if (prefersHigh) cut.edge(high, vertex, 1);
        else cut.edge(vertex, low, 1);
      }
      node.output.forEach((name, i) => {
        const isBoth = operator === 'Cast' && this.#typeOf(node) === this.#type.onnx;
        if (name && !isBoth) makers.set(name, isTypedOutput(operator, i) ? vertex : high);
      });
      // A cast that the model has is one that it need not have where its input is in 16 bits already.
      if (operator === 'Cast' && castType(node) === this.#type.onnx) read(node.input[0]!, low);
      if (kind === 'typeless') return;
      node.input.forEach((name, i) => {
        if (name) read(name, inputs.includes(i) ? vertex : high);
      });
      for (const name of captured(node)) read(name, high);
    });
    for (const name of this.#graphOutputs) read(name, high);

    for (const [name, set] of readers) {
      const maker = makers.get(name);
      if (maker === undefined || this.#constants.has(name) || this.#types.get(name) !== float32) continue;
      const others = [...set].filter((vertex) => vertex !== maker);
      if (others.length === 0) continue;
      // One cast serves all that read a value in the type that it isn't made in.
      const up = cut.vertex();
      const down = cut.vertex();
      cut.edge(up, maker, cast);
      cut.edge(maker, down, cast);
      for (const vertex of others) {
        cut.edge(vertex, up, never);
        cut.edge(down, vertex, never);
      }
    }
    const isHigh = cut.sourceSide(high, low);
    plans.forEach((plan, index) => {
      if (plan.kind !== 'either') return;
      plan.kind = isHigh[vertices[index]!] ? 'high' : 'low';
      if (plan.kind === 'high')
        plan.reason = `its neighbours are in FP32: ${this.#type.label} would take more casts`;
    });
  }

  /** How much of a constant 16 bits lose: is some of it, or all of it, zero or nearly so? */
  #vanishing(name: string): 'none' | 'some' | 'all' {
    if (this.#precision === 'bf16') return 'none';
    const values = this.#float32Elements(name);
    let [some, largest] = [false, 0];
    for (let i = 0; i < values.length; i++) {
      const magnitude = Math.abs(values[i]!);
      // Half of FP16's smallest number, 2^-24, becomes zero.
      if (magnitude > 0 && magnitude <= 2 ** -25) some = true;
      if (magnitude > largest) largest = magnitude;
    }
    if (largest > 0 && largest < smallestNormalFloat16) return 'all';
    return some ? 'some' : 'none';
  }

  #float32Elements(name: string): Float32Array {
    return tensorElements(this.#constants.get(name)!, this.#options) as Float32Array;
  }

  /** A float32 weight of two or more dimensions, to look rows up in. */
  #isTable(name: string): boolean {
    const tensor = this.#constants.get(name);
    return tensor?.dataType === float32 && tensor.dims.length >= 2;
  }

  #defineConstant(node: NodeProto): void {
    const name = node.output[0]!;
    const attribute = node.attribute[0];
    if (attribute?.name === 'value' && attribute.t) {
      this.#types.set(name, attribute.t.dataType);
      this.#constants.set(name, attribute.t);
    } else if (attribute?.name === 'value_float') {
      this.#types.set(name, float32);
      this.#constants.set(name, makeTensor(name, 'float32', [], Float32Array.of(attribute.f ?? 0)));
    } else if (attribute?.name === 'value_floats') {
      const values = Float32Array.from(attribute.floats ?? []);
      this.#types.set(name, float32);
      this.#constants.set(name, makeTensor(name, 'float32', [values.length], values));
    } else if (attribute?.name === 'value_int' || attribute?.name === 'value_ints') {
      this.#types.set(name, int64);
    }
  }

  #convert(name: string) {
    let result = this.#converted.get(name);
    if (!result) {
      const values = this.#float32Elements(name);
      const { label } = this.#type;
      if (this.#precision === 'fp16' ? exceedsFloat16(values) : beyondBfloat16(values)) {
        const limit = this.#precision === 'fp16' ? `, ${maxFloat16}` : '';
        result = { refusal: `"${name}" has values beyond ${label}'s largest${limit}` };
      } else if (values.length >= 16 && values.every((value, i) => value === i)) {
        result = { refusal: `"${name}" holds positions, which ${label} rounds once multiplied` };
      } else {
        const { dims } = this.#constants.get(name)!;
        const converted = this.#unique(`${name}${this.#type.suffix}`);
        result = { tensor: makeTensor(converted, this.#type.name, dims, this.#type.bits(values)) };
      }
      this.#converted.set(name, result);
    }
    return result;
  }

  // ---- the new graph -----------------------------------------------------------------------------------------------

  #emit(plan: Plan): void {
    const { node, operator } = plan;
    if (plan.kind === 'typeless') this.#emitTypeless(node);
    else if (plan.kind === 'low' && operator === 'Cast') this.#emitLowCast(node);
    else if (plan.kind === 'low') this.#emitLow(plan);
    else {
      for (const name of [...node.input, ...captured(node)]) this.#needHigh(name);
      this.#nodes.push(node);
    }
  }

  #emitLow({ node, operator, inputs }: Plan): void {
    const input = [...node.input];
    for (const i of inputs) {
      const isMask = operator === 'Attention' && i === 3;
      input[i] = isMask && this.#precision === 'fp16' ? this.#lowMask(input[i]!) : this.#needLow(input[i]!);
    }
    node.input.forEach((name, i) => {
      if (!inputs.includes(i)) this.#needHigh(name);
    });
    const output = node.output.map((name, i) =>
      name === '' || !isTypedOutput(operator, i) ? name : this.#defineLow(name),
    );
    // Its outputs have new names; what is said about the node should still lead to it.
    this.#nodes.push({ ...node, name: node.name || node.output[0] || node.opType, input, output });
  }

  /** A cast to float32 becomes one to 16 bits. */
  #emitLowCast(node: NodeProto): void {
    const output = [this.#defineLow(node.output[0]!)];
    const attribute = [this.#castAttribute(this.#type.onnx)];
    this.#nodes.push({ ...node, name: node.name || node.output[0]!, output, attribute });
  }

  #emitTypeless(node: NodeProto): void {
    const [from = ''] = node.input;
    const [to = ''] = node.output;
    const low = this.#lowOnly.has(from) ? this.#low.get(from) : undefined;
    if (node.opType === 'Cast' && this.#types.get(to) === float32 && this.#typeOf(node) === this.#type.onnx) {
      // Its input is its output in 16 bits.
      this.#low.set(to, from);
    }
    this.#nodes.push(low === undefined ? node : { ...node, input: [low, ...node.input.slice(1)] });
  }

  #defineLow(name: string): string {
    const low = this.#unique(`${name}${this.#type.suffix}`);
    this.#low.set(name, low);
    this.#lowOnly.add(name);
    return low;
  }

  /** The name of a value's 16-bit version, which is made if it doesn't exist. */
  #needLow(name: string): string {
    let low = this.#low.get(name);
    if (low === undefined) {
      const weight = this.#constants.has(name) ? this.#convert(name).tensor : undefined;
      if (weight) this.#added.push(weight);
      low = weight?.name ?? this.#cast(name, `${name}${this.#type.suffix}`, this.#type.onnx);
      this.#low.set(name, low);
    }
    return low;
  }

  /** Makes sure that a value exists under its own name. */
  #needHigh(name: string): void {
    if (this.#lowOnly.delete(name)) this.#cast(this.#low.get(name)!, name, float32);
  }

  /** An attention mask adds what may be the lowest float32 of all; FP16's lowest masks as well, and is finite. */
  #lowMask(name: string): string {
    const known = this.#masks.get(name);
    if (known) return known;
    this.#needHigh(name);
    const bounded = this.#unique(`${name}__bounded`);
    const limit = (f: number) => {
      const output = this.#unique(`${name}__limit`);
      const attribute = [{ name: 'value_float', type: AttributeType.FLOAT, f }];
      this.#nodes.push({ name: output, opType: 'Constant', input: [], output: [output], attribute });
      return output;
    };
    const input = [name, limit(-maxFloat16), limit(maxFloat16)];
    this.#nodes.push({ name: bounded, opType: 'Clip', input, output: [bounded], attribute: [] });
    const low = this.#cast(bounded, `${name}${this.#type.suffix}`, this.#type.onnx);
    this.#masks.set(name, low);
    return low;
  }

  #cast(from: string, to: string, type: number): string {
    const output = type === float32 ? to : this.#unique(to);
    this.#nodes.push({
      name: this.#unique(`${output}__cast`),
      opType: 'Cast',
      input: [from],
      output: [output],
      attribute: [this.#castAttribute(type)],
    });
    this.#casts++;
    return output;
  }

  #castAttribute(type: number) {
    // Before operator set 6 the type was a word.
    return attributeProto('to', this.#opset >= 6 ? type : type === float32 ? 'FLOAT' : 'FLOAT16');
  }

  #unique(base: string): string {
    let name = base;
    for (let i = 1; this.#names.has(name); i++) name = `${base}.${i}`;
    this.#names.add(name);
    return name;
  }
}

/** The last products before values, where only what works element by element comes after them. */
function productsOf({ node: nodes }: GraphProto, values: string[]): Set<NodeProto> {
  const makers = new Map(nodes.flatMap((node) => node.output.map((name) => [name, node] as const)));
  const found = new Set<NodeProto>();
  const seen = new Set(values);
  for (const name of seen) {
    const node = makers.get(name);
    if (node && products.has(operatorName(node))) found.add(node);
    else if (node && (elementWise.has(operatorName(node)) || node.opType === 'Cast')) {
      for (const input of node.input) seen.add(input);
    }
  }
  return found;
}

/** `*` stands for any characters; everything else for itself. */
function pattern(text: string): RegExp {
  const parts = text.split('*').map((part) => part.replaceAll(/[\\^$.|?+()[\]{}]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 's');
}

function printed(value: number): string {
  return String(Number(value.toPrecision(3)));
}

function castType(node: NodeProto): number | undefined {
  return outputType(node, 0, () => undefined);
}

function isFloat32Output(node: NodeProto, types: ReadonlyMap<string, number>): boolean {
  return types.get(node.output[0] ?? '') === float32;
}

function isOfFloat(type: number | undefined): boolean {
  const { float16, bfloat16, float64 } = dataTypes;
  return type === undefined || [float32, float16.onnx, bfloat16.onnx, float64.onnx].includes(type);
}

function isWideInteger(type: number | undefined): boolean {
  const { int32, uint32, uint64 } = dataTypes;
  return type === int32.onnx || type === uint32.onnx || type === int64 || type === uint64.onnx;
}
