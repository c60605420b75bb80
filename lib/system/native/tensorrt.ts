import type { Flavour } from '../nvidia-support.js';

/** A TensorRT library pair (core and ONNX parser) that native opened and whose version it accepted. */
export interface NativeTensorRT {
  flavour: Flavour;
  /** `major.minor.patch`, as the library itself reports it. */
  version: string;
  /** The path of the core library. */
  path: string;
  capabilities: TensorRTCapabilities;
}

/** The features of an open library, which depend on its flavour and version (tensorrt.h has the calls behind each). */
export interface TensorRTCapabilities {
  /** Can compile for GPUs that aren't in this machine. */
  readonly aheadOfTime: boolean;
  /** Measures kernels while it compiles, and can reuse earlier measurements. */
  readonly timingCache: boolean;
  /** Can update a KV cache in place. */
  readonly kvCache: boolean;
  /** Has attention over a part of the cache, with its own length per row. */
  readonly keyValueLengths: boolean;
  /** Can save the kernels that it compiles at run time. */
  readonly runtimeCache: boolean;
  /** Can validate a plan before loading it. */
  readonly engineValidity: boolean;
  /** Can tell beforehand whether a run can be captured in a CUDA graph. */
  readonly streamCapturable: boolean;
  /** Can tell how large an engine's weights are. */
  readonly engineStatistics: boolean;
}
