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
export { fromBfloat16Bits, fromFloat16Bits, maxFloat16, toBfloat16Bits, toFloat16Bits } from './float16.js';
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
export { type Feeds, type MeasureOptions, measureRanges, type Range, type Ranges } from './measure-ranges.js';
export * from './model.js';
export { type RandomInputsOptions, randomInputs } from './random-inputs.js';
export { buildResnet, type ResnetOptions } from './resnet.js';
export {
  parseSafetensors,
  readSafetensors,
  readSafetensorsSync,
  type Safetensors,
  type SafetensorsTensor,
} from './safetensors.js';
