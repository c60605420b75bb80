import type { NodeProto } from '../format/model.js';

// These are the facts about operators that mixed precision needs, by operator name (https://onnx.ai/onnx/operators/).
// If an operator comes from another domain, its name begins with that domain.

const operators = (names: string): ReadonlySet<string> => new Set(names.trim().split(/\s+/));

/**
 * Returns the operator's name, preceded by its domain if that isn't the standard one: `MatMul`,
 * `com.microsoft.GroupQueryAttention`.
 */
export function operatorName({ domain, opType }: NodeProto): string {
  return !domain || domain === 'ai.onnx' ? opType : `${domain}.${opType}`;
}

/** Returns a description of a node for messages. */
export function label(node: NodeProto): string {
  return node.name
    ? `the ${node.opType} "${node.name}"`
    : `the ${node.opType} that gives "${node.output[0]}"`;
}

/** Matrix products and convolutions. */
export const products = operators('MatMul Gemm Conv ConvTranspose Einsum Attention');

/** Operators that work element by element, or move elements. In 16 bits, they are as exact as their inputs. */
export const elementWise = operators(`
  Add Sub Mul Div Neg Abs Min Max Sum Mean Sign Floor Ceil Round
  Relu LeakyRelu PRelu ThresholdedRelu Clip Sigmoid HardSigmoid HardSwish Tanh Gelu Softsign Erf Elu Selu Mish Swish
  BatchNormalization RotaryEmbedding
  Identity Reshape Transpose Squeeze Unsqueeze Flatten Concat Split Slice Expand Tile Pad Where DepthToSpace
  SpaceToDepth Trilu ReverseSequence GatherElements GatherND ScatterElements ScatterND Compress
  MaxPool GlobalMaxPool Gather Dropout`);

/**
 * The operators in `elementWise` that only move elements, or calculate with whole numbers as exactly as integers would.
 */
export const exact = operators(`
  Add Sub Mul Div Neg Abs Min Max Sum Sign Floor Ceil Round Clip Identity Reshape Transpose Squeeze Unsqueeze Flatten
  Concat Split Slice Expand Tile Pad Where DepthToSpace SpaceToDepth Trilu ReverseSequence GatherElements GatherND
  ScatterElements ScatterND Compress Gather Dropout`);

/**
 * Sums over many elements, powers and exponentials. They are the first to overflow or to lose small addends: NVIDIA's
 * issues #2564, #2466, #3101 and #1262 blame them. In TensorRT 11, a layer's compute precision is the type of its
 * inputs (NvInfer.h 10.16, `setComputePrecision`: "controlled by casting the input tensors").
 */
export const sensitive = operators(`
  Softmax LogSoftmax Hardmax
  InstanceNormalization LayerNormalization GroupNormalization RMSNormalization LpNormalization
  MeanVarianceNormalization LRN
  SimplifiedLayerNormalization com.microsoft.SimplifiedLayerNormalization
  com.microsoft.SkipSimplifiedLayerNormalization com.microsoft.SkipLayerNormalization
  ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp
  AveragePool GlobalAveragePool LpPool GlobalLpPool CumSum
  Pow Exp Log Sqrt Reciprocal Softplus Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh`);

/** Operators that read any type and return another. They read whichever version of a value exists. */
export const typeless = operators('Shape Size IsNaN IsInf Cast');

/** Operators that should stay in FP32 if that takes no extra cast. */
export const delicate = operators('Erf Tanh Sigmoid Gelu Elu Selu Mish Swish');

/**
 * The inputs that share the element type T of the operator's first output and must be cast together. Operators that
 * aren't listed share it among all inputs.
 */
const sharedInputs: ReadonlyMap<string, readonly number[]> = new Map([
  ['Attention', [0, 1, 2, 3, 4, 5]],
  ['BatchNormalization', [0, 1, 2, 3, 4]],
  ['RotaryEmbedding', [0, 1, 2]],
  ['MaxPool', [0]],
  ['GlobalMaxPool', [0]],
  ['Gather', [0]],
  ['GatherElements', [0]],
  ['GatherND', [0]],
  ['Compress', [0]],
  ['Dropout', [0]],
  ['Expand', [0]],
  ['Tile', [0]],
  ['Reshape', [0]],
  ['Squeeze', [0]],
  ['Unsqueeze', [0]],
  ['Slice', [0]],
  ['Split', [0]],
  ['Trilu', [0]],
  ['ReverseSequence', [0]],
  ['Pad', [0, 2]],
  ['Where', [1, 2]],
  ['ScatterElements', [0, 2]],
  ['ScatterND', [0, 2]],
]);

export function typedInputs(operator: string, node: NodeProto): readonly number[] {
  const shared = sharedInputs.get(operator) ?? node.input.map((_, i) => i);
  return shared.filter((i) => node.input[i]);
}

/** True if output `i` also has the type T. */
export function isTypedOutput(operator: string, i: number): boolean {
  return i === 0 || operator === 'Split' || operator === 'Attention';
}

/** The first operator set in which an operator supports BF16, if that isn't 13; Infinity if no set does. */
const bfloat16Opsets: ReadonlyMap<string, number> = new Map([
  ...['LeakyRelu', 'PRelu', 'Where'].map((name) => [name, 16] as const),
  ...`Conv ConvTranspose MaxPool GlobalMaxPool Round ThresholdedRelu HardSigmoid HardSwish Softsign Elu Selu Mish`
    .split(' ')
    .map((name) => [name, 22] as const),
  ...['Einsum', 'ReverseSequence', 'Compress'].map((name) => [name, Number.POSITIVE_INFINITY] as const),
]);

export function bfloat16Opset(operator: string): number {
  return bfloat16Opsets.get(operator) ?? 13;
}
