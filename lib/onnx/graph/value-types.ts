import { type DataType, dataTypes } from '../../base/data-type.js';
import type { GraphProto, NodeProto } from '../format/model.js';
import { attribute, intAttribute, tensorAttribute } from './node-attribute.js';
import { operatorName } from './operators.js';

const float32 = dataTypes.float32.onnx;
const int32 = dataTypes.int32.onnx;
const int64 = dataTypes.int64.onnx;
const uint8 = dataTypes.uint8.onnx;
const bool = dataTypes.bool.onnx;
const string = dataTypes.string.onnx;

/** The ONNX element type of a value; undefined if it isn't known. */
type TypeOf = (name: string) => number | undefined;

/**
 * Returns the ONNX element types of a graph's tensors, from the graph's declarations and from the rules of its
 * operators (https://onnx.ai/onnx/operators/, ONNX Runtime's docs/ContribOperators.md). A value is missing if neither
 * gives its type. This is the case for sequences and for outputs of unknown operators.
 *
 * @param outer the types of the values around the graph, if it is the body of a control-flow node
 */
export function valueTypes(graph: GraphProto, outer?: TypeOf): ReadonlyMap<string, number> {
  const types = declaredTypes(graph);
  const typeOf: TypeOf = (name) => (name === '' ? undefined : (types.get(name) ?? outer?.(name)));
  for (const node of graph.node) {
    // These inputs share one type: if the type of one is known, the others have it too.
    const shared = sharedInputs(node);
    const known = shared.map(typeOf).find((type) => type !== undefined);
    if (known !== undefined) for (const name of shared) if (!typeOf(name)) types.set(name, known);
    const unknown = [...node.output.entries()].filter(([, name]) => name !== '' && !types.has(name));
    const fromBodies = unknown.length > 0 && bodies.has(operatorName(node)) ? bodyTypes(node, typeOf) : [];
    for (const [i, name] of unknown) {
      const type = fromBodies[i] ?? outputType(node, i, typeOf);
      if (type) types.set(name, type);
    }
  }
  return types;
}

function declaredTypes(graph: GraphProto): Map<string, number> {
  const types = new Map<string, number>();
  for (const { name, dataType } of graph.initializer) if (name) types.set(name, dataType);
  for (const { values } of graph.sparseInitializer ?? []) {
    if (values?.name) types.set(values.name, values.dataType);
  }
  for (const { name, type } of [...graph.input, ...graph.output, ...graph.valueInfo]) {
    if (type?.tensorType?.elemType) types.set(name, type.tensorType.elemType);
  }
  return types;
}

/** Returns the type that a Cast casts to. Before operator set 6, the attribute was a string. */
export function castType(node: NodeProto): number | undefined {
  const to = attribute(node, 'to');
  return to?.s ? typeNames.get(new TextDecoder().decode(to.s)) : Number(to?.i ?? 0) || undefined;
}

/** ONNX element types by their names in `TensorProto.DataType`. */
const typeNames = new Map<string, number>(
  Object.entries(dataTypes).map(([name, { onnx }]) => {
    const words: Partial<Record<DataType, string>> = { float32: 'FLOAT', float64: 'DOUBLE' };
    return [words[name as DataType] ?? name.toUpperCase(), onnx];
  }),
);

function table<T>(rows: readonly (readonly [T, string])[]): ReadonlyMap<string, T> {
  return new Map(
    rows.flatMap(([value, names]) =>
      names
        .trim()
        .split(/\s+/)
        .map((name) => [name, value]),
    ),
  );
}

/** The inputs that have the type of the first output; 'all' means every input. */
const inputsOfFirstOutput = table<readonly number[] | 'all'>([
  [
    'all',
    `Add BitShift BitwiseAnd BitwiseOr BitwiseXor Clip Concat Conv ConvTranspose DeformConv Div Einsum Gemm
    GroupNormalization InstanceNormalization MatMul Max MaxRoiPool Mean Min Mod Mul PRelu Range StringConcat Sub Sum`,
  ],
  [
    [0],
    `Abs Acos Acosh AffineGrid Asin Asinh Atan Atanh AveragePool BatchNormalization BitwiseNot Ceil Celu CenterCropPad
    Col2Im Compress Cos Cosh CumSum DFT DepthToSpace Det Dropout Elu Erf Exp Expand Flatten Floor Gather GatherElements
    GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSigmoid HardSwish Hardmax Identity LRN
    LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MaxPool MaxUnpool MeanVarianceNormalization Mish
    Neg Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence Round Selu Shrink Sigmoid Sign Sin Sinh Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze StringNormalizer Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
    Unique Unsqueeze Upsample
    com.microsoft.FastGelu com.microsoft.BiasGelu com.microsoft.QuickGelu com.microsoft.FusedMatMul
    com.microsoft.MatMulNBits com.microsoft.RotaryEmbedding com.microsoft.MultiHeadAttention
    com.microsoft.GroupQueryAttention com.microsoft.SkipLayerNormalization com.microsoft.SkipSimplifiedLayerNormalization`,
  ],
  [[1], 'CastLike RMSNormalization SimplifiedLayerNormalization com.microsoft.SimplifiedLayerNormalization'],
  [[2], 'OneHot'],
  [[7], 'QLinearConv QLinearMatMul'],
  [[0, 1], 'RoiAlign TensorScatter'],
  [[0, 2], 'NegativeLogLikelihoodLoss Pad STFT Scatter ScatterElements ScatterND SoftmaxCrossEntropyLoss'],
  [[1, 2], 'Where'],
  [[0, 1, 2], 'RotaryEmbedding'],
  [[0, 1, 4], 'Attention'],
  [[0, 1, 2, 3, 5], 'GRU RNN'],
  [[0, 1, 2, 3, 5, 6, 7], 'LSTM'],
]);

/** Operators whose outputs all have the type of the first. */
const ofOneType = new Set(['Split', 'GRU', 'RNN', 'LSTM', 'SoftmaxCrossEntropyLoss']);

/** Types of first outputs that don't depend on the inputs. */
const fixedTypes = table<number>([
  [bool, 'And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor'],
  [bool, 'OptionalHasElement RegexFullMatch'],
  [int64, 'ArgMax ArgMin NonMaxSuppression NonZero SequenceLength Shape Size'],
  [int32, 'ConvInteger MatMulInteger'],
  [uint8, 'DynamicQuantizeLinear ImageDecoder'],
  [float32, 'TfIdfVectorizer'],
  [string, 'StringSplit'],
]);

/** Returns the values that a node reads with the type of its first output. */
function sharedInputs(node: NodeProto): readonly string[] {
  const inputs = inputsOfFirstOutput.get(operatorName(node));
  if (inputs === undefined) return [];
  const names = inputs === 'all' ? node.input : inputs.map((i) => node.input[i] ?? '');
  return names.filter((name) => name !== '');
}

function outputType(node: NodeProto, output: number, typeOf: TypeOf): number | undefined {
  const operator = operatorName(node);
  if (output > 0 && !ofOneType.has(operator)) return laterOutputType(node, operator, output, typeOf);
  const fixed = fixedTypes.get(operator);
  if (fixed !== undefined) return fixed;
  const input = (i: number) => typeOf(node.input[i] ?? '');
  const named = (name: string) => intAttribute(node, name, 0) || undefined;
  switch (operator) {
    case 'Constant':
      return constantType(node);
    case 'ConstantOfShape':
      return tensorAttribute(node, 'value')?.dataType ?? float32;
    case 'Cast':
      return castType(node);
    case 'QuantizeLinear':
      return input(2) ?? named('output_dtype') ?? (node.input[2] ? undefined : uint8);
    case 'DequantizeLinear':
      return named('output_dtype') ?? input(1);
    case 'RandomNormal':
    case 'RandomUniform':
      return named('dtype') ?? float32;
    case 'Multinomial':
      return named('dtype') ?? int32;
    case 'Bernoulli':
    case 'EyeLike':
    case 'RandomNormalLike':
    case 'RandomUniformLike':
      return named('dtype') ?? input(0);
    case 'BlackmanWindow':
    case 'HammingWindow':
    case 'HannWindow':
    case 'MelWeightMatrix':
      return named('output_datatype') ?? float32;
    default:
      return sharedInputs(node)
        .map(typeOf)
        .find((type) => type !== undefined);
  }
}

/** Returns the type of an output after the first, which may differ from the first's. */
function laterOutputType(
  node: NodeProto,
  operator: string,
  output: number,
  typeOf: TypeOf,
): number | undefined {
  const input = (i: number) => typeOf(node.input[i] ?? '');
  switch (operator) {
    case 'MaxPool':
    case 'StringSplit':
    case 'TopK':
    case 'Unique':
      return int64;
    case 'Dropout':
      return bool;
    case 'DynamicQuantizeLinear':
      return output === 1 ? float32 : uint8;
    // The outputs after the first are keys, values and scores. Only the values may have another type than the first.
    case 'Attention':
      return output === 2 ? (input(2) ?? input(5)) : outputType(node, 0, typeOf);
    case 'BatchNormalization':
      return input(3) ?? input(4);
    // The mean and the inverse standard deviation have the type that they are computed in.
    case 'LayerNormalization':
    case 'SimplifiedLayerNormalization':
    case 'com.microsoft.SimplifiedLayerNormalization':
      return intAttribute(node, 'stash_type', float32);
    case 'com.microsoft.SkipLayerNormalization':
    case 'com.microsoft.SkipSimplifiedLayerNormalization':
      return output === 3 ? input(0) : float32;
    case 'com.microsoft.GroupQueryAttention':
      return input(2 + output) ?? input(0);
    case 'com.microsoft.MultiHeadAttention':
      return input(0);
    default:
      return undefined;
  }
}

function constantType(node: NodeProto): number | undefined {
  const [value] = node.attribute;
  switch (value?.name) {
    case 'value':
      return value.t?.dataType;
    case 'sparse_value':
      return value.sparseTensor?.values?.dataType;
    case 'value_float':
    case 'value_floats':
      return float32;
    case 'value_int':
    case 'value_ints':
      return int64;
    case 'value_string':
    case 'value_strings':
      return string;
    default:
      return undefined;
  }
}

const bodies = new Set(['If', 'Loop', 'Scan']);

/** Returns the types of a control-flow node's outputs, which are the types of its bodies' outputs. */
function bodyTypes(node: NodeProto, typeOf: TypeOf): (number | undefined)[] {
  if (node.opType === 'If') {
    const branches = ['then_branch', 'else_branch'].flatMap((name) => attribute(node, name)?.g ?? []);
    const [yes = [], no = []] = branches.map((branch) => outputTypes(branch, typeOf));
    return node.output.map((_, i) => yes[i] ?? no[i]);
  }
  const body = attribute(node, 'body')?.g;
  if (!body) return [];
  const isLoop = node.opType === 'Loop';
  // A body's inputs needn't declare their types, because they are those of the node's inputs. A loop's first two inputs
  // are the iteration number and the condition. Before operator set 9, a Scan had an input that its body doesn't have.
  const inputs = new Map<string, number | undefined>();
  if (body.input.length === node.input.length) {
    for (const [i, { name }] of body.input.entries()) {
      inputs.set(name, isLoop && i < 2 ? [int64, bool][i] : typeOf(node.input[i] ?? ''));
    }
  }
  const types = outputTypes(body, (name) => inputs.get(name) ?? typeOf(name));
  // The first output of a loop's body says whether to continue.
  return isLoop ? types.slice(1) : types;
}

function outputTypes(body: GraphProto, outer: TypeOf): (number | undefined)[] {
  const types = valueTypes(body, outer);
  return body.output.map(({ name }) => types.get(name) ?? outer(name));
}
