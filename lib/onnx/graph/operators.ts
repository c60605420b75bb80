import type { NodeProto } from '../format/model.js';

// The facts about operators that mixed precision needs (https://onnx.ai/onnx/operators/), by name. The name of an
// operator of another domain has the domain before it.

const operators = (names: string): ReadonlySet<string> => new Set(names.trim().split(/\s+/));

/** `MatMul`, `com.microsoft.GroupQueryAttention`. */
export function operatorName({ domain, opType }: NodeProto): string {
  return !domain || domain === 'ai.onnx' ? opType : `${domain}.${opType}`;
}

/** Returns a node's name in messages. */
export function label(node: NodeProto): string {
  return node.name
    ? `the ${node.opType} "${node.name}"`
    : `the ${node.opType} that gives "${node.output[0]}"`;
}

/** Matrix products and convolutions. */
export const products = operators('MatMul Gemm Conv ConvTranspose Einsum Attention');

/** Operators that work element by element, or move elements. They are as exact in 16 bits as their inputs. */
export const elementWise = operators(`
  Add Sub Mul Div Neg Abs Min Max Sum Mean Sign Floor Ceil Round
  Relu LeakyRelu PRelu ThresholdedRelu Clip Sigmoid HardSigmoid HardSwish Tanh Gelu Softsign Erf Elu Selu Mish Swish
  BatchNormalization RotaryEmbedding
  Identity Reshape Transpose Squeeze Unsqueeze Flatten Concat Split Slice Expand Tile Pad Where DepthToSpace
  SpaceToDepth Trilu ReverseSequence GatherElements GatherND ScatterElements ScatterND Compress
  MaxPool GlobalMaxPool Gather Dropout`);

/** Those of them that only move elements, or count with them as exactly as with integers. */
export const exact = operators(`
  Add Sub Mul Div Neg Abs Min Max Sum Sign Floor Ceil Round Clip Identity Reshape Transpose Squeeze Unsqueeze Flatten
  Concat Split Slice Expand Tile Pad Where DepthToSpace SpaceToDepth Trilu ReverseSequence GatherElements GatherND
  ScatterElements ScatterND Compress Gather Dropout`);

/**
 * Sums over many elements, powers and exponentials, which overflow or lose small addends first. NVIDIA's issues #2564,
 * #2466, #3101 and #1262 blame these. TensorRT 11 has no compute precision for a layer beside the type of its inputs
 * (NvInfer.h 10.16, `setComputePrecision`: "controlled by casting the input tensors").
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

/** Operators with any type in and another out. They read whichever version of a value there is. */
export const typeless = operators('Shape Size IsNaN IsInf Cast');

/** Operators that should stay exact if that costs no cast. */
export const delicate = operators('Erf Tanh Sigmoid Gelu Elu Selu Mish Swish');

/**
 * The inputs that share the element type T of the operator's first output and must be cast together, for operators for
 * which that isn't all of them.
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

/** True if output `i` has the type T too. */
export function isTypedOutput(operator: string, i: number): boolean {
  return i === 0 || operator === 'Split' || operator === 'Attention';
}

/** The operator set from which an operator has BF16, if it isn't 13; Infinity if none has it. */
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
