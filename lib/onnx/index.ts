export {
  fromBfloat16Bits,
  fromFloat16Bits,
  maxFloat16,
  toBfloat16Bits,
  toFloat16Bits,
} from '../base/float16.js';
export {
  type Feeds,
  type MeasureOptions,
  measureRanges,
  type Range,
  type Ranges,
} from '../engine/measure-ranges.js';
export { type RandomInputsOptions, randomInputs } from '../execution/random-inputs.js';
export type { DecoderGraph, DecoderInputRole } from '../system/native.js';
export { type CacheTensor, type Decoder, recogniseDecoder } from './decoder/decoder.js';
export { fuseNormalization } from './decoder/fuse-normalization.js';
export { keepLastPosition } from './decoder/last-position.js';
export type { Lift } from './decoder/lift.js';
export { type LiftOptions, liftAttention } from './decoder/lift-attention.js';
export { liftGroupQueryAttention, withWholeCaches } from './decoder/lift-group-query-attention.js';
export { liftTensorScatter } from './decoder/lift-tensor-scatter.js';
export { type LowerAttentionOptions, lowerAttention } from './decoder/lower-attention.js';
export { type LowerDecoderOptions, type LoweredDecoder, lowerDecoder } from './decoder/lower-decoder.js';
export { withNarrowCaches } from './decoder/narrow-caches.js';
export { rewriteDecoder } from './decoder/rewrite-decoder.js';
export { addTopKHead, topLogits } from './decoder/top-k-head.js';
export type { FloatType } from './format/float-tensor.js';
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
} from './format/initializer.js';
export * from './format/model.js';
export {
  parseSafetensors,
  readSafetensors,
  readSafetensorsSync,
  type Safetensors,
  type SafetensorsTensor,
} from './format/safetensors.js';
export {
  type AttributeValue,
  attributeProto,
  GraphBuilder,
  type OpOptions,
  type SymbolicDims,
  type Value,
  valueInfo,
} from './graph/graph-builder.js';
export { raiseOpset } from './graph/raise-opset.js';
export { type BertOptions, buildBert } from './models/bert.js';
export { buildResnet, type ResnetOptions } from './models/resnet.js';
export { type LowerMatMulNBitsOptions, lowerMatMulNBits } from './passes/lower-matmul-nbits.js';
export { lowerNormalization } from './passes/lower-normalization.js';
export {
  type CastBfloat16Report,
  type CastFloat16Report,
  type CastNode,
  type CastOptions,
  type CastReport,
  castToBfloat16,
  castToFloat16,
  defaultMaxValue,
  type RangesReport,
} from './precision/cast-precision.js';
