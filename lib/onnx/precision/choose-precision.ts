import { dataTypes } from '../../base/data-type.js';
import type { ExternalDataOptions } from '../format/initializer.js';
import type { GraphProto, NodeProto } from '../format/model.js';
import {
  bfloat16Opset,
  delicate,
  elementWise,
  isTypedOutput,
  operatorName,
  products,
  sensitive,
  typedInputs,
  typeless,
} from '../graph/operators.js';
import { captured } from '../graph/traverse.js';
import { castType } from '../graph/value-types.js';
import type { GraphFacts } from './graph-facts.js';
import type { LowType } from './low-type.js';
import { rangeRefusal } from './range-rule.js';
import type { Ranges } from './ranges.js';
import { isWideInteger, ValueTraits } from './value-traits.js';
import type { WeightRounding } from './weight-rounding.js';

const float32 = dataTypes.float32.onnx;

/** Options of casts to 16 bits. */
export interface CastOptions extends ExternalDataOptions {
  /**
   * Nodes to leave in FP32, by name or operator type; `*` stands for any characters. A pattern after a `!` names nodes
   * to cast although a range or a sensitive operator would keep them in FP32. If several patterns match a node, the
   * last one decides.
   */
  keepFp32?: readonly string[];
  /**
   * The ranges that `measureRanges` measured. Defaults to none: then only products and the nodes after them are cast.
   */
  ranges?: Ranges;
  /** The largest magnitude that a node may reach and still be cast to FP16. Defaults to {@link defaultMaxValue}. */
  maxValue?: number;
}

/** A node and the choice made for it. */
export interface NodeChoice {
  readonly node: NodeProto;
  readonly operator: string;
  /** The inputs of the element type T that are float32. */
  readonly inputs: readonly number[];
  /**
   * 'either': the number of casts decides. 'typeless': the node reads whichever version exists. 'none': the node has
   * nothing to do with float32.
   */
  readonly kind: 'low' | 'high' | 'either' | 'typeless' | 'none';
  readonly reason: string;
  /** True if an 'either' node gets FP32 when both precisions need as many casts. */
  readonly prefersHigh: boolean;
}

type Decision = Pick<NodeChoice, 'kind' | 'reason'> & { readonly prefersHigh?: boolean };

/**
 * Chooses for every node of a graph the precision that it must or may compute in, from its operator, its inputs and its
 * ranges. Nodes that may have either are left to `settleByCasts`.
 */
export function choosePrecision(
  facts: GraphFacts,
  rounding: WeightRounding,
  type: LowType,
  options: CastOptions,
): NodeChoice[] {
  const chooser = new Chooser(facts, rounding, type, options);
  return facts.graph.node.map((node) => chooser.choose(node));
}

class Chooser {
  readonly #facts: GraphFacts;
  readonly #rounding: WeightRounding;
  readonly #type: LowType;
  readonly #maxValue: number | undefined;
  /** undefined if nothing was measured, or if casting to BF16, which has float32's range. */
  readonly #ranges: Ranges | undefined;
  readonly #keep: readonly { pattern: RegExp; cast: boolean }[];
  readonly #traits: ValueTraits;
  /** The products that compute the model's logits. */
  readonly #makesLogits: ReadonlySet<NodeProto>;
  /** The sizes of the last dimensions of logits, if the outputs' shapes give them. */
  readonly #vocabularies: ReadonlySet<number>;

  constructor(facts: GraphFacts, rounding: WeightRounding, type: LowType, options: CastOptions) {
    this.#facts = facts;
    this.#rounding = rounding;
    this.#type = type;
    this.#maxValue = options.maxValue;
    const isMeasured = type.precision === 'fp16' && options.ranges?.report.source !== 'none';
    this.#ranges = isMeasured ? options.ranges : undefined;
    this.#keep = (options.keepFp32 ?? []).map((text) => {
      const cast = text.startsWith('!');
      return { pattern: pattern(cast ? text.slice(1) : text), cast };
    });
    this.#traits = new ValueTraits(facts);
    const { graph } = facts;
    const logits = graph.output.filter(({ name }) => /logits/i.test(name));
    this.#makesLogits = productsOf(
      graph,
      logits.map(({ name }) => name),
    );
    this.#vocabularies = new Set(
      logits.flatMap(({ type }) => type?.tensorType?.shape?.dim.at(-1)?.dimValue ?? []),
    );
  }

  choose(given: NodeProto): NodeChoice {
    const node = this.#withoutNullCast(given);
    const operator = operatorName(node);
    const canBeLow = products.has(operator) || elementWise.has(operator);
    const inputs = canBeLow ? this.#float32Inputs(operator, node) : [];
    const { prefersHigh = false, ...decision } = this.#decide(operator, node, inputs);
    const mayBeLow = decision.kind === 'low' || decision.kind === 'either';
    this.#traits.trace(node, inputs, mayBeLow);
    return { node, operator, inputs, prefersHigh, ...decision };
  }

  /** A cast from float32 to float32, which exporters write, does nothing. */
  #withoutNullCast(node: NodeProto): NodeProto {
    const isNull =
      operatorName(node) === 'Cast' && this.#facts.typeOf(node) === float32 && castType(node) === float32;
    return isNull ? { ...node, opType: 'Identity', attribute: [] } : node;
  }

  #float32Inputs(operator: string, node: NodeProto): number[] {
    const typed = typedInputs(operator, node);
    const isFloat32 = (i: number) => this.#facts.isFloat32(node.input[i]);
    // T is one type: if one input has a known type, the others have it too. Only Attention's mask has its own.
    const isOfT = typed.some(isFloat32);
    return typed.filter((i) => {
      const isUnknown = !this.#facts.types.has(node.input[i]!) && !isMask(operator, i);
      return isFloat32(i) || (isOfT && isUnknown);
    });
  }

  #decide(operator: string, node: NodeProto, inputs: readonly number[]): Decision {
    const facts = this.#facts;
    const isFlag = operator === 'Cast' && facts.isFloat32(node.output[0]) && !isOfFloat(facts.typeOf(node));
    if (inputs.length > 0 || isFlag) return this.#weigh(operator, node, inputs);
    if (typeless.has(operator)) return { kind: 'typeless', reason: '' };
    if (operator === 'Constant' || !this.#touchesFloat32(node)) return { kind: 'none', reason: '' };
    const reason = sensitive.has(operator)
      ? `${operator} is computed in FP32: it sums many elements, or grows fast`
      : `${operator} is left in FP32`;
    return { kind: 'high', reason };
  }

  #touchesFloat32(node: NodeProto): boolean {
    return [...node.input, ...node.output, ...captured(node)].some((name) => this.#facts.isFloat32(name));
  }

  /** Decides whether a node that can compute in 16 bits must, may or must not do so. */
  #weigh(operator: string, node: NodeProto, inputs: readonly number[]): Decision {
    const isTable = operator === 'Gather' && this.#facts.isTable(node.input[0]!);
    const named = this.#keep.findLast(({ pattern: p }) => p.test(node.name ?? '') || p.test(node.opType));
    const refusal =
      named && !named.cast
        ? 'options.keepFp32 names it'
        : (this.#opsetRefusal(operator) ??
          (this.#makesLogits.has(node) && !named
            ? 'logits are compared with each other: they are not rounded'
            : undefined) ??
          (isTable && !named ? this.#vocabularyRefusal(node.input[0]!) : undefined) ??
          this.#exactnessRefusal(operator, node, inputs) ??
          (named?.cast
            ? undefined
            : (this.#rangeRefusal(operator, node, inputs) ??
              this.#unmeasuredRefusal(operator, node, inputs))));
    if (refusal !== undefined) return { kind: 'high', reason: refusal };
    const isProduct = products.has(operator);
    return {
      kind: isProduct || isTable || named?.cast ? 'low' : 'either',
      reason: isProduct
        ? 'a product'
        : isTable
          ? 'a table, of half the size'
          : named?.cast
            ? 'options.keepFp32 exempts it'
            : 'element by element',
      // Values that are read or returned in FP32 anyway aren't rounded.
      prefersHigh:
        delicate.has(operator) ||
        !this.#traits.followsProducts(node, inputs) ||
        node.output.some((name) => this.#facts.outputs.has(name)),
    };
  }

  /** A decoder's residual stream is FP32. Rounding it where it begins would save no computation and cost a cast. */
  #vocabularyRefusal(table: string): string | undefined {
    return this.#vocabularies.has(this.#facts.constants.get(table)!.dims[0]!)
      ? `"${table}" has a row for each logit: every layer adds to what is read there`
      : undefined;
  }

  #opsetRefusal(operator: string): string | undefined {
    if (this.#type.precision !== 'bf16') return undefined;
    const needed = bfloat16Opset(operator);
    if (needed <= this.#facts.opset) return undefined;
    return Number.isFinite(needed)
      ? `${operator} has BF16 from operator set ${needed} on; the model's is ${this.#facts.opset}`
      : `${operator} does not have BF16`;
  }

  /** Returns the reason why 16 bits can't hold a node's numbers well enough, whatever their measured range. */
  #exactnessRefusal(operator: string, node: NodeProto, inputs: readonly number[]): string | undefined {
    const { label } = this.#type;
    if (operator === 'Cast') {
      return isWideInteger(this.#facts.typeOf(node))
        ? `it holds integers, which ${label} may not hold exactly`
        : undefined;
    }
    if (operator === 'Mul' && node.input[0] === node.input[1]) return 'a square is a power';
    for (const i of inputs) {
      const name = node.input[i]!;
      // An attention mask's low values are clipped to FP16's range.
      if (isMask(operator, i)) continue;
      if (this.#facts.constants.has(name)) {
        const { refusal, vanishing } = this.#rounding.of(name);
        if (refusal) return refusal;
        if (vanishing === 'all') return `"${name}" is too small for ${label}`;
        if (vanishing === 'some' && operator === 'Div' && i === 1) {
          return `"${name}", a divisor, has values that ${label} would make zero`;
        }
      }
      if (this.#traits.isIntegral(name))
        return `"${name}" holds integers, which ${label} may not hold exactly`;
      if (this.#traits.isDequantized(name))
        return `"${name}" is dequantized: quantized products stay as they are`;
    }
    return undefined;
  }

  #rangeRefusal(operator: string, node: NodeProto, inputs: readonly number[]): string | undefined {
    if (!this.#ranges) return undefined;
    const read = inputs.filter((i) => !isMask(operator, i)).map((i) => node.input[i]!);
    const given = node.output.filter((name, i) => name !== '' && isTypedOutput(operator, i));
    const values = [...read, ...given].filter((name) => !this.#facts.constants.has(name));
    return rangeRefusal(values, this.#ranges, this.#maxValue);
  }

  /**
   * Without ranges, an element-wise node stays in FP32 unless it looks up a table or reads only values that follow from
   * products.
   */
  #unmeasuredRefusal(operator: string, node: NodeProto, inputs: readonly number[]): string | undefined {
    if (this.#ranges || this.#type.precision === 'bf16') return undefined;
    if (products.has(operator) || operator === 'Cast') return undefined;
    if (operator === 'Gather' && this.#facts.isTable(node.input[0]!)) return undefined;
    return this.#traits.followsProducts(node, inputs)
      ? undefined
      : 'it reads FP32, and the ranges of values are not known';
  }
}

/** True if input `i` is an attention mask. */
export function isMask(operator: string, i: number): boolean {
  return operator === 'Attention' && i === 3;
}

/** Finds the last products before some values, if there are only element-wise nodes and casts in between. */
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

/**
 * Returns the expression for a pattern, in which `*` stands for any characters and all other characters for themselves.
 */
function pattern(text: string): RegExp {
  const parts = text.split('*').map((part) => part.replaceAll(/[\\^$.|?+()[\]{}]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 's');
}

function isOfFloat(type: number | undefined): boolean {
  const { float16, bfloat16, float64 } = dataTypes;
  return type === undefined || [float32, float16.onnx, bfloat16.onnx, float64.onnx].includes(type);
}
