export {
  fromBfloat16Bits,
  fromFloat16Bits,
  maxFloat16,
  toBfloat16Bits,
  toFloat16Bits,
} from '../base/float16.js';
export type { DecoderGraph, DecoderInputRole } from '../system/native.js';
export { type BertOptions, buildBert } from './bert.js';
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
} from './cast-precision.js';
export { type CacheTensor, type Decoder, recogniseDecoder } from './decoder.js';
export type { FloatType } from './float-tensor.js';
export { fuseNormalization } from './fuse-normalization.js';
export {
  type AttributeValue,
  attributeProto,
  GraphBuilder,
  type OpOptions,
  type SymbolicDims,
  type Value,
  valueInfo,
} from './graph-builder.js';
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
} from './initializer.js';
export { keepLastPosition } from './last-position.js';
export type { Lift } from './lift.js';
export { type LiftOptions, liftAttention } from './lift-attention.js';
export { liftGroupQueryAttention, withWholeCaches } from './lift-group-query-attention.js';
export { liftTensorScatter } from './lift-tensor-scatter.js';
export { type LowerAttentionOptions, lowerAttention } from './lower-attention.js';
export { type LowerDecoderOptions, type LoweredDecoder, lowerDecoder } from './lower-decoder.js';
export { type LowerMatMulNBitsOptions, lowerMatMulNBits } from './lower-matmul-nbits.js';
export { lowerNormalization } from './lower-normalization.js';
export { type Feeds, type MeasureOptions, measureRanges, type Range, type Ranges } from './measure-ranges.js';
export * from './model.js';
export { withNarrowCaches } from './narrow-caches.js';
export { raiseOpset } from './raise-opset.js';
export { type RandomInputsOptions, randomInputs } from './random-inputs.js';
export { buildResnet, type ResnetOptions } from './resnet.js';
export { rewriteDecoder } from './rewrite-decoder.js';
export {
  parseSafetensors,
  readSafetensors,
  readSafetensorsSync,
  type Safetensors,
  type SafetensorsTensor,
} from './safetensors.js';
export { addTopKHead, topLogits } from './top-k-head.js';
