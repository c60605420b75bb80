export { type BertOptions, buildBert } from './bert.js';
export { type CastFloat16Options, type CastFloat16Report, castToFloat16 } from './cast-float16.js';
export { fromBfloat16Bits, fromFloat16Bits, maxFloat16, toFloat16Bits } from './float16.js';
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
export * from './model.js';
export { buildResnet, type ResnetOptions } from './resnet.js';
export {
  parseSafetensors,
  readSafetensors,
  readSafetensorsSync,
  type Safetensors,
  type SafetensorsTensor,
} from './safetensors.js';
