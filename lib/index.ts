export type { Finding } from './apps/doctor/diagnosis.js';
export { inspectSystem, type SystemReport } from './apps/doctor/system-report.js';
export type { ListedLibrary } from './apps/libraries/list-libraries.js';
export type { DataType } from './base/data-type.js';
export { type ErrorCode, TensorRTError } from './base/errors.js';
export type { Bytes } from './base/options.js';
export type { Profile, ShapeRange, ShapeRanges } from './base/shapes.js';
export type { Dims, TensorLike } from './base/tensor-like.js';
export { type CastOf, compareModels } from './compare/compare-models.js';
export type { CompareOptions, CompareProgress, SampleInputs } from './compare/compare-options.js';
export type {
  Bisection,
  ComparedInputs,
  Comparison,
  LayerDifference,
  OutputDifference,
  PartedNode,
} from './compare/comparison.js';
export type { Difference } from './compare/difference.js';
export { buildEngine } from './engine/build-engine.js';
export type { BuildOptions, BuildProgress } from './engine/build-options.js';
export { Engine } from './engine/engine.js';
export type {
  EngineManifest,
  EngineTensor,
  LayerInfo,
  MaskRecord,
  SparsityRecord,
  TensorInfo,
} from './engine/manifest.js';
export type { RunOptions, RunTiming } from './execution/loaded-session.js';
export type {
  InputMetadata,
  NonTensorValueMetadata,
  TensorValueMetadata,
  ValueMetadata,
} from './execution/model-metadata.js';
export type { Feeds, Fetches } from './execution/run-request.js';
export type { SessionStats } from './execution/session-stats.js';
export { type OnnxValue, Tensor, type TensorConstructor, type TypedTensor } from './execution/tensor.js';
export type {
  DataFor,
  DataOf,
  DataTypeMap,
  ElementTypeMap,
  SelfDescribing,
  TypeOf,
} from './execution/tensor-types.js';
export type { GenerateOptions, SequenceGenerateOptions } from './generation/generate-options.js';
export type {
  ChosenTokenLogprob,
  Generation,
  GenerationChunk,
  TokenLogprob,
} from './generation/generation.js';
export type { KvCache, KvCacheOptions } from './generation/kv-cache.js';
export { LanguageModel, type LanguageModelStats } from './generation/language-model.js';
export type { LanguageModelOptions } from './generation/language-model-options.js';
export type { Sequence } from './generation/sequence.js';
export type { MaskModelOptions, MaskProgress } from './masks/mask-model-options.js';
export type {
  MaskPattern,
  MaskRule,
  MaskUpdateOptions,
  RandomRule,
  StructuredRule,
} from './masks/mask-rule.js';
export { type LayerReport, MaskSet } from './masks/mask-set.js';
export { pruneModel } from './masks/prune-model.js';
export type { PruneModelOptions } from './masks/prune-model-options.js';
export type { SparseLayer } from './masks/sparse-layers.js';
export { type MaskUpdate, type MaskWorkOptions, type PatternCheck, SparseMask } from './masks/sparse-mask.js';
export { InferenceSession } from './session/session.js';
export type { SessionOptions } from './session/session-options.js';
export type { CudaCompiler, CudaRuntime, CudaToolkit } from './system/cuda-toolkit.js';
export type { TensorRTCapabilities } from './system/native/tensorrt.js';
export type { CudaMajor, Flavour } from './system/nvidia-support.js';
export type { TensorRTLibrary } from './system/tensorrt-library.js';
export type { TensorRTPackage } from './system/tensorrt-package.js';
export type { ChatMessage } from './text/chat-template.js';
export type { Prompt } from './text/prompt.js';
export type { Tokenizer } from './text/tokenizer.js';
