import type { NativeBytes } from './bytes.js';

export interface NativeBuildRequest {
  /** The core library, beside which its parser lies. */
  library: string;
  /** The ONNX file to parse; native maps it into memory. */
  model: string;
  /** The path relative to which the parser finds external data. */
  modelPath: string;
  /** One entry per optimization profile: min, opt and max of each dynamic input. */
  profiles: Record<string, { min: readonly number[]; opt: readonly number[]; max: readonly number[] }>[];
  /** 89 for sm_89. Empty: that of `device`. */
  computeCapabilities: number[];
  /** CUDA's number of the GPU to compile for and measure on; none ahead of time. */
  device?: number;
  sparsity: boolean;
  /** True if products in FP32 may round their factors to TF32. */
  tf32: boolean;
  /** 0–5. */
  optimizationLevel?: number;
  /** Bytes. */
  workspace?: number;
  /** All weights, or the named ones. */
  refit?: boolean | readonly string[];
  /** A file, which need not exist. */
  timingCache?: string;
  /** The plan keeps what `inspectPlan` says of its layers beside their names. */
  detailed: boolean;
}

/** TensorRT's description of a plan. */
export interface NativePlan {
  /** Its own JSON. `Layers` are names; of a plan that was built `detailed`, objects that say what each reads and writes. */
  information: string;
  /** For each output that is written over an input's memory, the name of that input. */
  aliases: Record<string, string>;
}

/** One layer of the network as it went to the compiler, recorded after parsing. */
export interface NativeLayer {
  name: string;
  /** TensorRT's own term, e.g. 'MATRIX_MULTIPLY'. */
  type: string;
  inputs: string[];
  outputs: { name: string; type: number; dims: number[] }[];
}

/** A network as TensorRT's parser imported it. */
export interface NativeNetwork {
  /** `type` is the ONNX element type (0 where it has none here); -1 in `dims` is dynamic. */
  inputs: { name: string; type: number; dims: number[] }[];
  outputs: { name: string; type: number; dims: number[] }[];
  layers: NativeLayer[];
}

export interface NativeParseResult extends NativeNetwork {
  /** Nodes that couldn't be imported, without those after them; empty if the network is complete. */
  errors: {
    /** Index in its graph; -1 where the parser does not say. */
    node: number;
    /** The node's, or ''. */
    name: string;
    /** Its operator without its domain, or ''. */
    op: string;
    /** A sentence. */
    reason: string;
  }[];
}

export interface NativeBuildResult extends NativeNetwork {
  plan: NativeBytes;
  /** TensorRT's warnings, in order, without repetitions. */
  warnings: string[];
  /** The new content of the file `timingCache`. Its lock is held: release it when the content is written. */
  timingCache?: { bytes: ArrayBuffer; release(): void };
}

export interface NativeBuild {
  /** Resolves with undefined when `cancel()` ended the build. Rejects with a TensorRTError. */
  readonly result: Promise<NativeBuildResult | undefined>;
  cancel(): void;
}
