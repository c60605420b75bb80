import { dataTypes } from '../../base/data-type.js';
import { maxFloat16 } from '../../base/float16.js';
import { makeTensor } from '../format/initializer.js';
import { AttributeType, type GraphProto, type NodeProto, type TensorProto } from '../format/model.js';
import { madeFrom } from '../format/weight-origin.js';
import { attributeProto } from '../graph/graph-builder.js';
import { isTypedOutput } from '../graph/operators.js';
import { captured, collectNames, uniqueName } from '../graph/traverse.js';
import { isMask, type NodeChoice } from './choose-precision.js';
import type { GraphFacts } from './graph-facts.js';
import type { LowType } from './low-type.js';
import type { WeightRounding } from './weight-rounding.js';

const float32 = dataTypes.float32.onnx;

/** The graph with its casts. */
export interface WrittenCasts {
  readonly graph: GraphProto;
  /** The number of casts that were inserted. */
  readonly casts: number;
  /** The converted weights, in 16 bits. */
  readonly weights: readonly TensorProto[];
}

/** Writes the graph as it was chosen: 'low' nodes in 16 bits, with casts where a value changes its type. */
export function writeCasts(
  facts: GraphFacts,
  rounding: WeightRounding,
  type: LowType,
  choices: readonly NodeChoice[],
): WrittenCasts {
  return new CastWriter(facts, rounding, type).write(choices);
}

// Every value keeps its name in FP32; its 16-bit version, if one is needed, has another name. A node that isn't changed
// therefore reads the same values as before.
class CastWriter {
  readonly #facts: GraphFacts;
  readonly #rounding: WeightRounding;
  readonly #type: LowType;
  readonly #nodes: NodeProto[] = [];
  readonly #names = new Set<string>();
  readonly #weights: TensorProto[] = [];
  /** Maps an FP32 name to the 16-bit name, if the 16-bit value exists. */
  readonly #low = new Map<string, string>();
  /** Values computed in 16 bits whose FP32 version doesn't exist, at least not yet. */
  readonly #lowOnly = new Set<string>();
  readonly #masks = new Map<string, string>();
  #casts = 0;

  constructor(facts: GraphFacts, rounding: WeightRounding, type: LowType) {
    this.#facts = facts;
    this.#rounding = rounding;
    this.#type = type;
    collectNames(facts.graph, this.#names);
  }

  write(choices: readonly NodeChoice[]): WrittenCasts {
    for (const choice of choices) this.#emit(choice);
    for (const name of this.#facts.outputs) this.#needHigh(name);
    return { graph: this.#assemble(), casts: this.#casts, weights: this.#weights };
  }

  #assemble(): GraphProto {
    const { graph, outputs, constants } = this.#facts;
    const used = new Set(outputs);
    // Nodes are visited backwards, so that casts that only dropped nodes read are dropped too.
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
    // Values that only 16-bit nodes read exist in 16 bits only.
    const replaced = (name: string) => this.#low.has(name) && !used.has(name);
    const defined = new Set(nodes.flatMap((node) => node.output));
    return {
      ...graph,
      node: nodes,
      initializer: [
        ...graph.initializer.filter(({ name }) => !name || !replaced(name)),
        ...this.#weights.filter(({ name }) => used.has(name!)),
      ],
      input: graph.input.filter(({ name }) => !constants.has(name)),
      valueInfo: graph.valueInfo.filter(({ name }) => defined.has(name) && !replaced(name)),
    };
  }

  #emit(choice: NodeChoice): void {
    const { node, operator, kind } = choice;
    if (kind === 'typeless') this.#emitTypeless(node);
    else if (kind === 'low' && operator === 'Cast') this.#emitLowCast(node);
    else if (kind === 'low') this.#emitLow(choice);
    else {
      for (const name of [...node.input, ...captured(node)]) this.#needHigh(name);
      this.#nodes.push(node);
    }
  }

  #emitLow({ node, operator, inputs }: NodeChoice): void {
    const input = [...node.input];
    for (const i of inputs) {
      const isLimited = isMask(operator, i) && this.#type.precision === 'fp16';
      input[i] = isLimited ? this.#lowMask(input[i]!) : this.#needLow(input[i]!);
    }
    node.input.forEach((name, i) => {
      if (!inputs.includes(i)) this.#needHigh(name);
    });
    const output = node.output.map((name, i) =>
      name === '' || !isTypedOutput(operator, i) ? name : this.#defineLow(name),
    );
    // Reports refer to a node without a name by its first output, which gets a new name here.
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
    const isFromLow = node.opType === 'Cast' && this.#facts.typeOf(node) === this.#type.onnx;
    if (isFromLow && this.#facts.isFloat32(to)) {
      // The cast's input is its output's 16-bit version.
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

  /** Returns the name of a value's 16-bit version, which is made if it doesn't exist. */
  #needLow(name: string): string {
    let low = this.#low.get(name);
    if (low === undefined) {
      const weight = this.#converted(name);
      if (weight) this.#weights.push(weight);
      low = weight?.name ?? this.#cast(name, `${name}${this.#type.suffix}`, this.#type.onnx);
      this.#low.set(name, low);
    }
    return low;
  }

  /** Returns a constant in 16 bits, if it can be rounded. */
  #converted(name: string): TensorProto | undefined {
    const constant = this.#facts.constants.get(name);
    if (!constant || this.#rounding.of(name).refusal !== undefined) return undefined;
    const { suffix, name: type, bits } = this.#type;
    const converted = this.#unique(`${name}${suffix}`);
    const tensor = makeTensor(converted, type, constant.dims, bits(this.#facts.elements(name)));
    // A Constant node's tensor may have another name than its output.
    return madeFrom(tensor, [{ ...constant, name }], 'cast');
  }

  /** Makes sure that a value exists under its own name. */
  #needHigh(name: string): void {
    if (this.#lowOnly.delete(name)) this.#cast(this.#low.get(name)!, name, float32);
  }

  /**
   * Returns a mask in FP16. An attention mask may add the lowest float32, which would become infinite. FP16's lowest
   * number masks just as well and is finite.
   */
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
    // Before operator set 6, the type was a string.
    return attributeProto('to', this.#facts.opset >= 6 ? type : type === float32 ? 'FLOAT' : 'FLOAT16');
  }

  #unique(base: string): string {
    return uniqueName(base, this.#names);
  }
}
