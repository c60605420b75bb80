import type { Flavour } from '../nvidia-support.js';

/** A TensorRT library pair (core and ONNX parser) that native opened and whose version it accepted. */
export interface NativeTensorRT {
  flavour: Flavour;
  /** `major.minor.patch` as the library itself says. */
  version: string;
  /** The core library's file. */
  path: string;
  capabilities: TensorRTCapabilities;
}

/** The abilities of an open library, by its flavour and version (tensorrt.h has the calls behind each). */
export interface TensorRTCapabilities {
  /** Compiles for GPUs that are not here. */
  readonly aheadOfTime: boolean;
  /** Measures kernels while it compiles, and can be given what it measured before. */
  readonly timingCache: boolean;
  /** Updates a KV cache in place. */
  readonly kvCache: boolean;
  /** Attention over a part of the cache, as long as each row. */
  readonly keyValueLengths: boolean;
  /** Keeps the kernels that it compiles at run time. */
  readonly runtimeCache: boolean;
  /** Judges a plan before it is loaded. */
  readonly engineValidity: boolean;
  /** Knows beforehand whether a run can be captured in a CUDA graph. */
  readonly streamCapturable: boolean;
  /** Knows how large an engine's weights are. */
  readonly engineStatistics: boolean;
}
