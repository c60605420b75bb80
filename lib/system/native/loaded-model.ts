import type { NativeBytes } from './bytes.js';

/** A model that is loaded for a session or a language model. */
export interface NativeLoadedModel {
  inputs: NativeTensorInfo[];
  outputs: NativeTensorInfo[];
  runtime: { name: string; version: string };
  /** For a plan, the shapes that it was compiled for, by input; empty for other models. */
  profiles: Record<string, { min: number[]; opt: number[]; max: number[] }>[];
}

export type NativeLoadRequest =
  | {
      /** The path of ONNX Runtime's library. */
      library: string;
      model: string | Uint8Array;
      /** External data is looked up relative to this folder; undefined: the model's own. */
      weights?: string | undefined;
      threads: number;
      device?: undefined;
    }
  | {
      /** The path of TensorRT's core library. */
      library: string;
      /** A plan. The thread that loads it keeps a handle. */
      model: NativeBytes;
      /** CUDA's device number. */
      device: number;
      cudaGraph: boolean;
      deviceOutputs: boolean;
      /** The file in which TensorRT-RTX caches the kernels that it compiles when a plan first runs; '' for none. */
      runtimeCache: string;
    };

export interface NativeTensorInfo {
  name: string;
  /** ONNX element type, see data-type.ts; 0 for an output that isn't a tensor. */
  type: number;
  /** A number, or the symbolic name of a dynamic dimension ('' if unnamed). */
  shape: (number | string)[];
}

/** The memory that a model uses on a GPU, in bytes, and the state of its CUDA graphs. See `SessionStats`. */
export interface NativeDeviceStats {
  memory: {
    weights: number;
    activations: number;
    io: number;
    pinned: number;
    free: number;
    total: number;
  };
  graphs: { captured: number; replayed: number; refused: number };
}
