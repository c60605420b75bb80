import type { NativeBytes } from './bytes.js';

/** A loaded model, of a session or a language model. */
export interface NativeLoadedModel {
  inputs: NativeTensorInfo[];
  outputs: NativeTensorInfo[];
  runtime: { name: string; version: string };
  /** A plan's shapes by input: those that it was compiled for. Other models have none. */
  profiles: Record<string, { min: number[]; opt: number[]; max: number[] }>[];
}

export type NativeLoadRequest =
  | {
      /** ONNX Runtime's. */
      library: string;
      model: string | Uint8Array;
      /** The folder that a file's external data is named relative to; undefined: its own. */
      weights?: string | undefined;
      threads: number;
      device?: undefined;
    }
  | {
      /** TensorRT's core library. */
      library: string;
      /** A plan, which the thread that loads keeps. */
      model: NativeBytes;
      /** CUDA's number of the GPU. */
      device: number;
      cudaGraph: boolean;
      deviceOutputs: boolean;
      /** The file that keeps what TensorRT-RTX compiles when it first runs a plan; '' for none. */
      runtimeCache: string;
    };

export interface NativeTensorInfo {
  name: string;
  /** ONNX element type, see data-type.ts; 0 for an output that isn't a tensor. */
  type: number;
  /** A number, or the symbolic name of a dynamic dimension ('' where it has none). */
  shape: (number | string)[];
}

/** The bytes that a model takes on a GPU, and counts of its CUDA graphs. See `SessionStats`. */
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
