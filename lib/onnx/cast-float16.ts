import { dataTypes } from '../data-type.js';
import { exceedsFloat16, maxFloat16, toFloat16Bits } from './float16.js';
import { attributeProto } from './graph-builder.js';
import { type ExternalDataOptions, makeTensor, tensorElements } from './initializer.js';
import {
  AttributeType,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from './model.js';

const float32 = dataTypes.float32.onnx;
const float16 = dataTypes.float16.onnx;
const int64 = dataTypes.int64.onnx;
const bool = dataTypes.bool.onnx;

const operators = (names: string): ReadonlySet<string> => new Set(names.split(/\s+/));

/** Matrix products and convolutions: computed in FP16. */
const products = operators('MatMul Gemm Conv ConvTranspose Einsum Attention');

/** Element by element, or moving elements: in FP16 where what they read already is, for a cast would cost more. */
const followers = operators(
  `Add Sub Mul Div Neg Abs Min Max Sum Sign Floor Ceil Round
  Relu LeakyRelu PRelu ThresholdedRelu Clip Sigmoid HardSigmoid HardSwish Tanh Gelu Softsign
  Identity Reshape Transpose Squeeze Unsqueeze Flatten Concat Split Slice Expand Tile Pad Where DepthToSpace
  SpaceToDepth Trilu ReverseSequence GatherElements GatherND ScatterElements ScatterND Compress
  MaxPool GlobalMaxPool Gather Resize Upsample Dropout`,
);

/**
 * Of the operators above, those whose inputs do not all share the element type T of the operator's definition
 * (https://onnx.ai/onnx/operators/), and so have to be cast together: the inputs that do.
 */
const sharedInputs: ReadonlyMap<string, readonly number[]> = new Map([
  ['Attention', [0, 1, 2, 3, 4, 5]],
  ['MaxPool', [0]],
  ['GlobalMaxPool', [0]],
  ['Gather', [0]],
  ['Resize', [0]],
  ['Upsample', [0]],
  ['Dropout', [0]],
]);

/** Kept in FP32, with outputs of their first input's type: known in order to know the types that follow. */
const sameTypeOperators = operators(
  `Softmax LogSoftmax Hardmax
  BatchNormalization InstanceNormalization LayerNormalization GroupNormalization RMSNormalization LpNormalization
  MeanVarianceNormalization LRN
  ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp
  AveragePool GlobalAveragePool LpPool GlobalLpPool Mean CumSum TopK
  Pow Exp Log Sqrt Reciprocal Erf Sin Cos Tan Atan Softplus Elu Selu Celu Mish Swish Mod
  RotaryEmbedding GridSample RoiAlign LSTM GRU RNN`,
);
const int64Operators = operators('Shape Size NonZero ArgMax ArgMin');
const boolOperators = operators('Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Not IsNaN IsInf');

export interface CastFloat16Options extends ExternalDataOptions {
  /** Nodes to leave in FP32, by name or operator type; `*` stands for any characters. */
  keepFp32?: readonly string[];
}

/** What {@link castToFloat16} did. */
export interface CastFloat16Report {
  /** Nodes computing in FP16, by operator type. */
  readonly float16: Readonly<Record<string, number>>;
  /** Matrix products and convolutions left as they were: why, by node. */
  readonly kept: readonly { readonly node: string; readonly reason: string }[];
  /** Casts inserted. */
  readonly casts: number;
  /** Weights converted, and the bytes they have now. */
  readonly weights: number;
  readonly weightBytes: number;
}

/**
 * Casts a model to mixed precision: matrix products and convolutions in FP16, what follows them element by element
 * too; softmax, normalisations, reductions, powers, exponentials and whatever else in FP32, as are the graph's inputs
 * and outputs. The model given is not changed; weights that need no conversion are shared with it.
 *
 * Left in FP32 are also: weights beyond ±65504; products of what was cast from 32- or 64-bit integers (positions,
 * which FP16 counts exactly only to 2048); products of dequantized values; bodies of control flow; functions.
 *
 * @throws TensorRTError ERR_MODEL_INVALID, ERR_MODEL_NOT_FOUND or ERR_IO for weights that can't be read
 */
export function castToFloat16(
  model: ModelProto,
  options: CastFloat16Options = {},
): { model: ModelProto; report: CastFloat16Report } {
  const caster = new Caster(model, options);
  const graph = caster.run();
  // Before version 4 of the format weights had to be inputs too; the new ones are not.
  return { model: { ...model, irVersion: Math.max(model.irVersion, 4), graph }, report: caster.report() };
}

// Every value keeps its name in FP32; its FP16 version, if one is needed, has another. So a node that isn't touched
// reads what it always read, whatever it is.
class Caster {
  readonly #graph: GraphProto;
  readonly #opset: number;
  readonly #options: CastFloat16Options;
  readonly #keep: readonly RegExp[];
  readonly #nodes: NodeProto[] = [];
  readonly #names = new Set<string>();
  /** ONNX element types, as far as they are known. */
  readonly #types = new Map<string, number>();
  /** Weights, and the values of Constant nodes. */
  readonly #constants = new Map<string, TensorProto>();
  readonly #converted = new Map<string, { tensor?: TensorProto; refusal?: string }>();
  readonly #added: TensorProto[] = [];
  /** FP32 name → FP16 name, where the FP16 value exists. */
  readonly #low = new Map<string, string>();
  /** Values computed in FP16 whose FP32 version does not exist (yet). */
  readonly #lowOnly = new Set<string>();
  /** Values that something other than a product reads; the graph's outputs too. */
  readonly #otherReaders = new Set<string>();
  /** Values computed in FP16, as opposed to cast to it. */
  readonly #computedLow = new Set<string>();
  /** Values that were 32- or 64-bit integers, moved and calculated with. */
  readonly #integral = new Set<string>();
  readonly #dequantized = new Set<string>();
  readonly #softmax = new Set<string>();
  readonly #lowMasks = new Map<string, string>();
  readonly #counts = new Map<string, number>();
  readonly #kept: { node: string; reason: string }[] = [];
  #casts = 0;

  constructor({ graph, irVersion, opsetImport }: ModelProto, options: CastFloat16Options) {
    this.#graph = graph;
    this.#opset = opsetImport.find(({ domain }) => !domain || domain === 'ai.onnx')?.version ?? 1;
    this.#options = options;
    this.#keep = (options.keepFp32 ?? []).map(pattern);
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
    for (const { name } of graph.output) this.#otherReaders.add(name);
    for (const node of graph.node) {
      if (products.has(standardOperator(node))) continue;
      for (const name of [...node.input, ...captured(node)]) this.#otherReaders.add(name);
    }
    collectNames(graph, this.#names);
  }

  run(): GraphProto {
    for (const node of this.#graph.node) this.#visit(node);
    for (const { name } of this.#graph.output) this.#needHigh(name);

    const graph = this.#graph;
    const used = new Set(graph.output.map((output) => output.name));
    for (const node of this.#nodes) for (const name of [...node.input, ...captured(node)]) used.add(name);
    // What only FP16 nodes read is there in FP16 alone.
    const replaced = (name: string) => this.#low.has(name) && !used.has(name);
    const constant = (name: string) => this.#constants.has(name);
    const initializer = [
      ...graph.initializer.filter(({ name }) => !name || !replaced(name)),
      ...this.#added.filter(({ name }) => used.has(name!)),
    ];
    const defined = new Set(this.#nodes.flatMap((node) => node.output));
    return {
      ...graph,
      node: this.#nodes.filter((node) => node.opType !== 'Constant' || !replaced(node.output[0]!)),
      initializer,
      input: graph.input.filter(({ name }) => !constant(name)),
      valueInfo: graph.valueInfo.filter(({ name }) => defined.has(name) && !replaced(name)),
    };
  }

  report(): CastFloat16Report {
    return {
      float16: Object.fromEntries(this.#counts),
      kept: this.#kept,
      casts: this.#casts,
      weights: this.#added.length,
      weightBytes: this.#added.reduce((sum, tensor) => sum + tensor.rawData!.length, 0),
    };
  }

  #visit(node: NodeProto): void {
    const operator = standardOperator(node);
    const kept = this.#keep.some((p) => p.test(node.name ?? '') || p.test(node.opType));
    const isKnown = products.has(operator) || followers.has(operator);
    const typed = isKnown ? (sharedInputs.get(operator) ?? node.input.map((_, i) => i)) : [];
    // Of a node's inputs, those of the element type T; Where's condition and Reshape's shape are not.
    const inputs = typed.filter((i) => {
      const type = node.input[i] ? this.#types.get(node.input[i]) : undefined;
      // An attention mask may be of another type than the rest: it has to be known.
      const mayBeUnknown = node.input[i] && !(operator === 'Attention' && i === 3);
      return type === float32 || (type === undefined && mayBeUnknown);
    });

    if (operator === 'Constant') this.#defineConstant(node);
    if (products.has(operator) && inputs.some((i) => this.#types.get(node.input[i]!) === float32)) {
      const reason = kept ? 'options.keepFp32 names it' : this.#productRefusal(node, inputs);
      if (reason === undefined) this.#emitLow(node, inputs);
      else {
        this.#kept.push({ node: node.name || node.output[0] || operator, reason });
        this.#emitHigh(node, operator, inputs);
      }
    } else if (!kept && followers.has(operator) && this.#follows(node, operator, inputs)) {
      this.#emitLow(node, inputs);
    } else if (!kept && operator === 'Gather' && this.#isTable(node.input[0]!)) {
      this.#emitTable(node);
    } else {
      this.#emitHigh(node, operator, inputs);
    }
  }

  /** Why a product can't be computed in FP16. */
  #productRefusal(node: NodeProto, inputs: readonly number[]): string | undefined {
    for (const i of inputs) {
      const name = node.input[i]!;
      // Of an attention mask, low values are limited.
      if (node.opType === 'Attention' && i === 3) continue;
      if (this.#constants.has(name)) {
        const { refusal } = this.#convert(name);
        if (refusal) return refusal;
      }
      if (this.#integral.has(name)) return `"${name}" holds integers, which FP16 may not hold exactly`;
      if (this.#dequantized.has(name)) return `"${name}" is dequantized: quantized products stay as they are`;
    }
    return undefined;
  }

  #follows(node: NodeProto, operator: string, inputs: readonly number[]): boolean {
    // A square is a power.
    if (operator === 'Mul' && node.input[0] === node.input[1]) return false;
    // PyTorch guards a softmax with Where(IsNaN(p), 0, p). TensorRT's attention fusion wants the cast before that, and
    // fails to compile where it comes after; nothing is lost, for p lies in [0, 1] and only products read it next.
    const isGuard = operator === 'Where' && !this.#otherReaders.has(node.output[0]!);
    const isLow = (name: string) => this.#computedLow.has(name) || (isGuard && this.#softmax.has(name));
    if (!inputs.some((i) => isLow(node.input[i]!))) return false;
    return inputs.every((i) => {
      const name = node.input[i]!;
      if (!this.#constants.has(name)) return isLow(name);
      if (this.#types.get(name) !== float32) return false;
      if (this.#convert(name).refusal) return false;
      // An epsilon, or a divisor, that FP16 would make zero.
      const vanishes = this.#vanishing(name);
      return vanishes !== 'all' && !(vanishes === 'some' && operator === 'Div' && i === 1);
    });
  }

  /** Do nonzero values of a constant become zero: none, some, or all of them? */
  #vanishing(name: string): 'none' | 'some' | 'all' {
    const values = this.#float32Elements(name);
    const bits = toFloat16Bits(values);
    let [some, all] = [false, true];
    for (let i = 0; i < bits.length; i++) {
      if (values[i] === 0) continue;
      if ((bits[i]! & 0x7fff) === 0) some = true;
      else all = false;
    }
    return some ? (all ? 'all' : 'some') : 'none';
  }

  #float32Elements(name: string): Float32Array {
    return tensorElements(this.#constants.get(name)!, this.#options) as Float32Array;
  }

  /** A float32 weight of two or more dimensions, to look rows up in. */
  #isTable(name: string): boolean {
    const tensor = this.#constants.get(name);
    return tensor?.dataType === float32 && tensor.dims.length >= 2 && !this.#convert(name).refusal;
  }

  #emitLow(node: NodeProto, inputs: readonly number[]): void {
    const input = [...node.input];
    for (const i of inputs) {
      const isMask = node.opType === 'Attention' && i === 3;
      input[i] = isMask ? this.#lowMask(input[i]!) : this.#needLow(input[i]!);
    }
    node.input.forEach((name, i) => {
      if (!inputs.includes(i)) this.#needHigh(name);
    });
    const isOfT = (i: number) => i === 0 || node.opType === 'Split' || node.opType === 'Attention';
    const output = node.output.map((name, i) => {
      if (name === '' || !isOfT(i)) return name;
      const low = this.#unique(`${name}__fp16`);
      this.#low.set(name, low);
      this.#lowOnly.add(name);
      this.#computedLow.add(name);
      this.#types.set(name, float32);
      return low;
    });
    // Its outputs have new names; what is said about the node should still lead to it.
    this.#nodes.push({ ...node, name: node.name || node.output[0] || node.opType, input, output });
    this.#counts.set(node.opType, (this.#counts.get(node.opType) ?? 0) + 1);
  }

  /** An embedding: half the memory, and its rows in FP32 again before anything is computed with them. */
  #emitTable(node: NodeProto): void {
    this.#emitLow(node, [0]);
    this.#needHigh(node.output[0]!);
    this.#computedLow.delete(node.output[0]!);
  }

  #emitHigh(node: NodeProto, operator: string, inputs: readonly number[]): void {
    for (const name of [...node.input, ...captured(node)]) this.#needHigh(name);
    this.#nodes.push(node);
    const isMove = followers.has(operator);
    for (const [i, name] of node.output.entries()) {
      if (name === '') continue;
      const type = this.#types.get(name) ?? this.#outputType(node, operator, i, inputs);
      if (type !== undefined) this.#types.set(name, type);
    }
    const name = node.output[0];
    if (!name) return;
    if (operator === 'Cast' && isWideInteger(this.#types.get(node.input[0]!))) this.#integral.add(name);
    if (operator === 'Range') this.#integral.add(name);
    if (isMove && inputs.some((i) => this.#integral.has(node.input[i]!))) this.#integral.add(name);
    if (operator === 'DequantizeLinear') this.#dequantized.add(name);
    if (operator === 'Softmax' && this.#types.get(name) === float32) this.#softmax.add(name);
    if (isMove && inputs.some((i) => this.#dequantized.has(node.input[i]!))) this.#dequantized.add(name);
  }

  #outputType(
    node: NodeProto,
    operator: string,
    output: number,
    inputs: readonly number[],
  ): number | undefined {
    const typeOf = (i: number) => this.#types.get(node.input[i] ?? '');
    if (output > 0 && operator !== 'Split' && !sameTypeOperators.has(operator)) return undefined;
    if (operator === 'TopK' && output === 1) return int64;
    if (followers.has(operator) || products.has(operator)) {
      if (operator === 'Where') return typeOf(1) ?? typeOf(2);
      const known = inputs.map(typeOf).find((type) => type !== undefined);
      return known ?? typeOf(0);
    }
    if (sameTypeOperators.has(operator)) return typeOf(0);
    if (int64Operators.has(operator)) return int64;
    if (boolOperators.has(operator)) return bool;
    switch (operator) {
      case 'Cast':
        return integerAttribute(node, 'to');
      case 'CastLike':
      case 'DequantizeLinear':
        return typeOf(1);
      case 'ConstantOfShape':
        return node.attribute.find(({ name }) => name === 'value')?.t?.dataType ?? float32;
      case 'Range':
        return typeOf(0);
      case 'OneHot':
        return typeOf(2);
      default:
        return undefined;
    }
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
      if (exceedsFloat16(values)) {
        result = { refusal: `"${name}" has values beyond FP16's largest, 65504` };
      } else if (values.length >= 16 && values.every((value, i) => value === i)) {
        result = { refusal: `"${name}" holds positions, which FP16 rounds once multiplied` };
      } else {
        const { dims } = this.#constants.get(name)!;
        const converted = this.#unique(`${name}__fp16`);
        result = { tensor: makeTensor(converted, 'float16', dims, toFloat16Bits(values)) };
      }
      this.#converted.set(name, result);
    }
    return result;
  }

  /** The name of a value's FP16 version, which is made if it doesn't exist. */
  #needLow(name: string): string {
    let low = this.#low.get(name);
    if (low === undefined) {
      const weight = this.#constants.has(name) ? this.#convert(name).tensor : undefined;
      if (weight) this.#added.push(weight);
      low = weight?.name ?? this.#cast(name, `${name}__fp16`, float16);
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
    const known = this.#lowMasks.get(name);
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
    const low = this.#cast(bounded, `${name}__fp16`, float16);
    this.#lowMasks.set(name, low);
    return low;
  }

  #cast(from: string, to: string, type: number): string {
    const output = type === float16 ? this.#unique(to) : to;
    this.#nodes.push({
      name: this.#unique(`${output}__cast`),
      opType: 'Cast',
      input: [from],
      output: [output],
      attribute: [attributeProto('to', this.#opset < 6 ? (type === float16 ? 'FLOAT16' : 'FLOAT') : type)],
    });
    this.#casts++;
    return output;
  }

  #unique(base: string): string {
    let name = base;
    for (let i = 1; this.#names.has(name); i++) name = `${base}.${i}`;
    this.#names.add(name);
    return name;
  }
}

/** `*` stands for any characters; everything else for itself. */
function pattern(text: string): RegExp {
  const parts = text.split('*').map((part) => part.replaceAll(/[\\^$.|?+()[\]{}]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`);
}

/** An operator of the ONNX standard; '' for any other. */
function standardOperator({ domain, opType }: NodeProto): string {
  return !domain || domain === 'ai.onnx' ? opType : '';
}

function isWideInteger(type: number | undefined): boolean {
  const { int32, uint32, uint64 } = dataTypes;
  return type === int32.onnx || type === uint32.onnx || type === int64 || type === uint64.onnx;
}

function integerAttribute(node: NodeProto, name: string): number | undefined {
  const value = node.attribute.find((attribute) => attribute.name === name)?.i;
  return value === undefined ? undefined : Number(value);
}

function subgraphs(node: NodeProto): GraphProto[] {
  return node.attribute.flatMap(({ g, graphs }) => [...(g ? [g] : []), ...(graphs ?? [])]);
}

/** Values that the bodies of a control-flow node may read from outside: all names in them, to be safe. */
function captured(node: NodeProto): string[] {
  return subgraphs(node).flatMap((graph) => [
    ...graph.node.flatMap((inner) => [...inner.input, ...captured(inner)]),
    ...graph.output.map((output) => output.name),
  ]);
}

function collectNames(graph: GraphProto, names: Set<string>): void {
  for (const { name } of [...graph.input, ...graph.output, ...graph.valueInfo]) names.add(name);
  for (const { name } of graph.initializer) if (name) names.add(name);
  for (const node of graph.node) {
    if (node.name) names.add(node.name);
    for (const name of [...node.input, ...node.output]) names.add(name);
    for (const inner of subgraphs(node)) collectNames(inner, names);
  }
}
