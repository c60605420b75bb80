import { type DataType, dataTypeFromOnnx } from '../base/data-type.js';
import type { DecoderGraph } from '../base/decoder-graph.js';
import { type Profile, rangeOf, type ShapeRange } from '../base/shapes.js';
import type { Dims } from '../base/tensor-like.js';
import type { MadeWeight } from '../onnx/format/weight-origin.js';
import type { CastBfloat16Report, CastFloat16Report } from '../onnx/precision/cast-report.js';
import type { NativeBuildResult } from '../system/native/plan-builder.js';
import type { Flavour } from '../system/nvidia-support.js';

/** A value in a compiled network. */
export interface TensorInfo {
  readonly name: string;
  /** null for a type that no {@link DataType} names. */
  readonly type: DataType | null;
  /** -1 is a dynamic dimension. */
  readonly dims: Dims;
}

/** An engine's input or output. */
export interface EngineTensor extends TensorInfo {
  /** An input's range in each optimization profile. Empty for a static input, and for outputs. */
  readonly profiles: readonly ShapeRange[];
}

/** One layer of the network that was compiled. */
export interface LayerInfo {
  readonly name: string;
  /** TensorRT's term, e.g. 'MATRIX_MULTIPLY'. */
  readonly type: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly TensorInfo[];
}

/** Where an engine comes from. Plain JSON. */
export interface EngineManifest {
  /** What compiled it, and what can run it. */
  readonly library: { readonly flavour: Flavour; readonly version: string };
  /** Version of node-tensorrt. */
  readonly builder: string;
  /** GPUs it was compiled for, e.g. 'sm_89'. */
  readonly targets: readonly string[];
  readonly precision: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
  /** With 'fp16' and 'bf16': what every node became, and why. */
  readonly cast?: CastFloat16Report | CastBfloat16Report;
  /**
   * Where the graph was rewritten before it was compiled: the constants that took the place of weights of the model, each
   * with the weights that it was made from. A weight that isn't named here is in the compiled graph as it was.
   */
  readonly weights?: readonly MadeWeight[];
  /** Empty where every input is static. */
  readonly profiles: readonly Profile[];
  /** How the decoder is driven. Present for a decoder with a KV cache. */
  readonly decoder?: DecoderGraph;
  readonly model: {
    /** The file's name, without its folder; absent if the model was given as bytes. */
    readonly name?: string;
    /** Hexadecimal SHA-256 of the ONNX file. */
    readonly sha256: string;
    /** Hexadecimal SHA-256 of its weights' (the main graph's initializers') names, types, dimensions and elements. */
    readonly weightsSha256: string;
    /** What exported it. */
    readonly producer: string;
  };
  /** The {@link Engine.id} of the engine that this one descends from. */
  readonly parent?: string;
  /** What the builder of the engine chose to say about where it comes from. */
  readonly lineage?: Readonly<Record<string, unknown>>;
  /** Build options that are not defaults. */
  readonly options: Readonly<Record<string, unknown>>;
  /** When it was built, ISO 8601. */
  readonly created: string;
  /** What TensorRT warned of. */
  readonly warnings: readonly string[];
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

/** What a manifest says that has no part in the plan. */
export interface Provenance {
  /** The model file's. */
  readonly name: string | undefined;
  readonly parent: string | undefined;
  readonly lineage: Readonly<Record<string, unknown>> | undefined;
}

/** What an engine file says of its plan. */
export interface EngineContents {
  readonly manifest: EngineManifest;
  readonly layers: readonly LayerInfo[];
}

/** An engine's inputs and outputs. */
export interface Bindings {
  readonly inputs: readonly EngineTensor[];
  readonly outputs: readonly EngineTensor[];
}

/** Inputs and outputs as a manifest has them. */
export function bindingsOf({ inputs, outputs, profiles }: EngineManifest): Bindings {
  return {
    inputs: inputs.map((input) => ({
      ...input,
      profiles: profiles.flatMap((profile) => rangeOf(profile, input.name) ?? []),
    })),
    outputs: outputs.map((output) => ({ ...output, profiles: [] })),
  };
}

/** What the addon says of a tensor, with its type by name. */
export function tensorInfo({ name, type, dims }: NativeBuildResult['inputs'][number]): TensorInfo {
  return { name, type: dataTypeFromOnnx(type) ?? null, dims };
}
