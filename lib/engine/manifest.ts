import { type DataType, dataTypeFromOnnx } from '../base/data-type.js';
import type { DecoderGraph } from '../base/decoder-graph.js';
import { type Profile, rangeOf, type ShapeRange } from '../base/shapes.js';
import type { Dims } from '../base/tensor-like.js';
import type { SparseLayer } from '../masks/sparse-layers.js';
import type { MadeWeight } from '../onnx/format/weight-origin.js';
import type { CastBfloat16Report, CastFloat16Report } from '../onnx/precision/cast-report.js';
import type { NativeBuildResult } from '../system/native/plan-builder.js';
import type { Flavour } from '../system/nvidia-support.js';

/** A tensor of a compiled network. */
export interface TensorInfo {
  /** Its name in the network. */
  readonly name: string;
  /** The type of its elements; null for a type that no {@link DataType} names. */
  readonly type: DataType | null;
  /** Its dimensions, outermost first; -1 is a dynamic one. */
  readonly dims: Dims;
}

/** An engine's input or output. */
export interface EngineTensor extends TensorInfo {
  /** An input's range in each optimization profile. Empty for a static input, and for outputs. */
  readonly profiles: readonly ShapeRange[];
}

/** A layer of the network that was compiled. */
export interface LayerInfo {
  /** Its name in the network. */
  readonly name: string;
  /** TensorRT's name for its kind, such as 'MATRIX_MULTIPLY'. */
  readonly type: string;
  /** The names of the tensors that it reads. */
  readonly inputs: readonly string[];
  /** The tensors that it computes. */
  readonly outputs: readonly TensorInfo[];
}

/** The masks that an engine's weights were pruned by. */
export interface MaskRecord {
  /** SHA-256 of the ONNX file before it was pruned, in hexadecimal. */
  readonly model: string;
  /** The masked weights. */
  readonly weights: readonly {
    /** Its name. */
    readonly weight: string;
    /** How many elements it has. */
    readonly size: number;
    /** How many of them the mask keeps. */
    readonly kept: number;
    /** SHA-256 of the mask's bits, in hexadecimal. */
    readonly sha256: string;
  }[];
}

/** The use of sparse kernels. */
export interface SparsityRecord {
  /** The weights with at most 2 of every 4 elements along the axis that sparse kernels need. */
  readonly eligible: readonly SparseLayer[];
  /** How many layers use a sparse kernel, as TensorRT 10 and 11 log it; 'unknown' for TensorRT-RTX, which logs nothing. */
  readonly chosen: number | 'unknown';
}

/** A description of an engine and of its origin. Plain JSON. */
export interface EngineManifest {
  /** The library that compiled the engine, and that can run it. */
  readonly library: {
    /** 'trt10', 'trt11' or 'rtx'. */
    readonly flavour: Flavour;
    /** Its version, such as '1.7.1'. */
    readonly version: string;
  };
  /** The version of node-tensorrt that built it. */
  readonly builder: string;
  /** The GPUs that it was compiled for, such as 'sm_89'. */
  readonly targets: readonly string[];
  /** The types that it computes in: see {@link BuildOptions.precision}. */
  readonly precision: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
  /** With 'fp16' and 'bf16': the type that every node got, and why. */
  readonly cast?: CastFloat16Report | CastBfloat16Report;
  /**
   * The constants that replaced weights of the model when the graph was rewritten before compiling, each with the weights
   * that it was made from. A weight that isn't named here is in the compiled graph as it was.
   */
  readonly weights?: readonly MadeWeight[];
  /** The masks that were applied to the model's weights before compiling, with `masks`. */
  readonly masks?: MaskRecord;
  /** With `sparsity: 'auto'`: the layers that TensorRT may use sparse kernels for, and how many it does. */
  readonly sparsity?: SparsityRecord;
  /** The optimization profiles. Empty if every input is static. */
  readonly profiles: readonly Profile[];
  /** How a decoder with a KV cache is driven. Absent for any other model. */
  readonly decoder?: DecoderGraph;
  /** The ONNX model that it was compiled from. */
  readonly model: {
    /** The file's name without its folder; absent if the model was given as bytes. */
    readonly name?: string;
    /** SHA-256 of the ONNX file, in hexadecimal. */
    readonly sha256: string;
    /** SHA-256 of the weights (the main graph's initializers): names, types, dimensions and elements; in hexadecimal. */
    readonly weightsSha256: string;
    /** The program that exported the model. */
    readonly producer: string;
  };
  /** The {@link Engine.id} of the engine that this one descends from. */
  readonly parent?: string;
  /** What the caller of buildEngine added about the engine's origin. */
  readonly lineage?: Readonly<Record<string, unknown>>;
  /** The build options that weren't defaults. */
  readonly options: Readonly<Record<string, unknown>>;
  /** When the engine was built, in ISO 8601. */
  readonly created: string;
  /** TensorRT's warnings. */
  readonly warnings: readonly string[];
  /** The engine's inputs. */
  readonly inputs: readonly TensorInfo[];
  /** The engine's outputs. */
  readonly outputs: readonly TensorInfo[];
}

/** The parts of a manifest that don't follow from the plan. */
export interface Provenance {
  /** The model file's name. */
  readonly name: string | undefined;
  readonly parent: string | undefined;
  readonly lineage: Readonly<Record<string, unknown>> | undefined;
  readonly masks?: MaskRecord | undefined;
}

/** The description of a plan in an engine file. */
export interface EngineContents {
  readonly manifest: EngineManifest;
  readonly layers: readonly LayerInfo[];
}

/** An engine's inputs and outputs. */
export interface Bindings {
  readonly inputs: readonly EngineTensor[];
  readonly outputs: readonly EngineTensor[];
}

/** Reads inputs and outputs from a manifest. */
export function bindingsOf({ inputs, outputs, profiles }: EngineManifest): Bindings {
  return {
    inputs: inputs.map((input) => ({
      ...input,
      profiles: profiles.flatMap((profile) => rangeOf(profile, input.name) ?? []),
    })),
    outputs: outputs.map((output) => ({ ...output, profiles: [] })),
  };
}

/** The addon's description of a tensor, with the type by name. */
export function tensorInfo({ name, type, dims }: NativeBuildResult['inputs'][number]): TensorInfo {
  return { name, type: dataTypeFromOnnx(type) ?? null, dims };
}
