import type { NativeBytes } from './bytes.js';

export interface NativeBuildRequest {
  /** The core library. Its parser lies beside it. */
  library: string;
  /** The ONNX file to parse; native maps it into memory. */
  model: string;
  /** The parser looks up external data relative to this path. */
  modelPath: string;
  /** One entry per optimization profile: min, opt and max of each dynamic input. */
  profiles: Record<string, { min: readonly number[]; opt: readonly number[]; max: readonly number[] }>[];
  /** 89 for sm_89. If empty, that of `device`. */
  computeCapabilities: number[];
  /** CUDA's number of the GPU to compile for and measure on; none when building ahead of time. */
  device?: number;
  sparsity: boolean;
  /** True if FP32 products may round their factors to TF32. */
  tf32: boolean;
  /** 0–5. */
  optimizationLevel?: number;
  /** Bytes of workspace. */
  workspace?: number;
  /** All weights, or only the named ones. */
  refit?: boolean | readonly string[];
  /** A file, which needn't exist. */
  timingCache?: string;
  /** The plan keeps detailed information about its layers for `inspectPlan`, besides their names. */
  detailed: boolean;
}

/** TensorRT's description of a plan. */
export interface NativePlan {
  /**
   * TensorRT's JSON. `Layers` are names, or, if the plan was built `detailed`, objects that list each layer's inputs
   * and outputs.
   */
  information: string;
  /** Outputs that are written over an input's memory: output name to input name. */
  aliases: Record<string, string>;
}

/** One layer of the network as the compiler received it, recorded after parsing. */
export interface NativeLayer {
  name: string;
  /** TensorRT's own name of the type, e.g. 'MATRIX_MULTIPLY'. */
  type: string;
  inputs: string[];
  outputs: { name: string; type: number; dims: number[] }[];
}

/** A network as TensorRT's parser imported it. */
export interface NativeNetwork {
  /** `type` is the ONNX element type, or 0 if it isn't supported here; -1 in `dims` is a dynamic dimension. */
  inputs: { name: string; type: number; dims: number[] }[];
  outputs: { name: string; type: number; dims: number[] }[];
  layers: NativeLayer[];
}

export interface NativeParseResult extends NativeNetwork {
  /** The nodes that couldn't be imported, without those that depend on them; empty if the network is complete. */
  errors: {
    /** Index in its graph; -1 if the parser doesn't give it. */
    node: number;
    /** The node's name, or ''. */
    name: string;
    /** The node's operator without its domain, or ''. */
    op: string;
    /** The reason, as a sentence. */
    reason: string;
  }[];
}

export interface NativeBuildResult extends NativeNetwork {
  plan: NativeBytes;
  /** TensorRT's warnings, in order, without repetitions. */
  warnings: string[];
  /** TensorRT's lines about sparse kernels, as it logs them. */
  sparsity: string[];
  /** The new content of the file `timingCache`, whose lock is held. Call `release()` once it is written. */
  timingCache?: { bytes: ArrayBuffer; release(): void };
}

export interface NativeBuild {
  /** Resolves with undefined if `cancel()` ended the build. Rejects with a TensorRTError. */
  readonly result: Promise<NativeBuildResult | undefined>;
  cancel(): void;
}
