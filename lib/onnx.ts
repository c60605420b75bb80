export type { DecoderGraph, DecoderInputRole } from './base/decoder-graph.js';
export {
  fromBfloat16Bits,
  fromFloat16Bits,
  maxFloat16,
  toBfloat16Bits,
  toFloat16Bits,
} from './base/float16.js';
export {
  type LowerDecoderOptions,
  type LoweredDecoder,
  lowerDecoder,
} from './engine/decoder/lower-decoder.js';
export { rewriteDecoder } from './engine/decoder/rewrite-decoder.js';
export { type Feeds, type MeasureOptions, measureRanges } from './engine/measure-ranges.js';
export { type RandomInputsOptions, randomInputs } from './execution/random-inputs.js';
export { type CacheTensor, type Decoder, recogniseDecoder } from './onnx/decoder/decoder.js';
export { fuseNormalization } from './onnx/decoder/fuse-normalization.js';
export { keepLastPosition } from './onnx/decoder/last-position.js';
export type { Lift } from './onnx/decoder/lift.js';
export type { LiftOptions } from './onnx/decoder/lift-attention.js';
export { liftGroupQueryAttention, withWholeCaches } from './onnx/decoder/lift-group-query-attention.js';
export { liftTensorScatter } from './onnx/decoder/lift-tensor-scatter.js';
export { type LowerAttentionOptions, lowerAttention } from './onnx/decoder/lower-attention.js';
export { withNarrowCaches } from './onnx/decoder/narrow-caches.js';
export { addTopKHead, topLogits } from './onnx/decoder/top-k-head.js';
export type { FloatType } from './onnx/format/float-tensor.js';
export {
  type ElementArray,
  type ExternalData,
  type ExternalDataOptions,
  externalData,
  isExternal,
  makeTensor,
  tensorBytes,
  tensorDataType,
  tensorElements,
  tensorSize,
} from './onnx/format/initializer.js';
export * from './onnx/format/model.js';
export { parseModel, readModel, serializeModel, writeModel } from './onnx/format/model-file.js';
export {
  parseSafetensors,
  readSafetensors,
  readSafetensorsSync,
  type Safetensors,
  type SafetensorsTensor,
} from './onnx/format/safetensors.js';
export { type MadeWeight, madeWeights, type WeightChange } from './onnx/format/weight-origin.js';
export {
  type AttributeValue,
  attributeProto,
  GraphBuilder,
  type OpOptions,
  type SymbolicDims,
  type Value,
  valueInfo,
} from './onnx/graph/graph-builder.js';
export { raiseOpset } from './onnx/graph/raise-opset.js';
export { type BertOptions, buildBert } from './onnx/models/bert.js';
export { buildResnet, type ResnetOptions } from './onnx/models/resnet.js';
export { type LowerMatMulNBitsOptions, lowerMatMulNBits } from './onnx/passes/lower-matmul-nbits.js';
export { lowerNormalization } from './onnx/passes/lower-normalization.js';
export { castToBfloat16, castToFloat16 } from './onnx/precision/cast-precision.js';
export type {
  CastBfloat16Report,
  CastFloat16Report,
  CastNode,
  CastReport,
} from './onnx/precision/cast-report.js';
export type { CastOptions } from './onnx/precision/choose-precision.js';
export { defaultMaxValue } from './onnx/precision/range-rule.js';
export type { Range, Ranges, RangesReport } from './onnx/precision/ranges.js';
export { simulatePrecision } from './onnx/precision/simulate-precision.js';
