import { availableParallelism } from 'node:os';
import { invalidArgValue } from '../base/errors.js';
import { theirs } from '../base/onnxruntime-options.js';
import { boolean, integer, type OptionsOf, type OptionTable, oneOf, optional } from '../base/options.js';
import type { ShapeRanges } from '../base/shapes.js';
import {
  type BuildOptions,
  type BuildSettings,
  buildOptions,
  precisions,
  refusedBuildOptions,
} from '../engine/build-options.js';
import { deviceOption } from '../execution/device.js';

/**
 * The options of a build are for a model that is to run on a GPU, which is compiled first, or taken from the cache;
 * an {@link Engine} is compiled already.
 */
export interface SessionOptions extends Omit<BuildOptions, 'target' | 'parent' | 'lineage'> {
  /**
   * Where to run: the CPU, the first GPU ('cuda'), or the one with CUDA's number ('cuda:1'). 'auto' (default) takes the
   * first GPU if there is one and a TensorRT library that can compile the model, else the CPU; `session.device` and
   * `session.why` say which and why. An Engine needs a GPU.
   */
  device?: 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;
  /** CPU threads one run may use. Default: one per physical core. */
  threads?: number;
  /**
   * Runs executed at the same time, each on a thread of its own; on a GPU each with a stream and memory for activations
   * of its own. Default 1.
   */
  concurrency?: number;
  /**
   * On a GPU: the second run of a shape records what it launches in a CUDA graph, which later runs of that shape launch
   * at once. Up to 8 shapes per thread keep theirs. Default true: it never changes results, and shapes that can't be
   * recorded run without.
   */
  cudaGraph?: boolean;
  /** Where outputs are left: 'cuda' are tensors on the GPU, to feed to another run or to download with getData(). Default 'cpu'. */
  preferredOutputLocation?: 'cpu' | 'cuda';
  /** Runs that may wait; one more is refused with ERR_QUEUE_FULL. Default 1024. */
  maxQueue?: number;
  /**
   * On a GPU as in {@link BuildOptions}. On the CPU 'as-exported' (default), 'fp32' and 'tf32' run a model in the types that
   * it has, FP32 as FP32; 'fp16' and 'bf16' run what the GPU would get, as far as ONNX Runtime has the operators: it computes FP16 in
   * FP32 inside, and most of BF16 not at all.
   */
  precision?: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
  /**
   * Shapes that runs may have, by input name; a run outside them is refused with ERR_SHAPE_MISMATCH. Default: any on
   * the CPU; on a GPU what {@link BuildOptions} derives, or what the engine was compiled for.
   */
  shapes?: ShapeRanges | readonly ShapeRanges[];
  /** Abandons creation: it rejects with the signal's reason. */
  signal?: AbortSignal;
}

const { target: _target, parent: _parent, lineage: _lineage, ...ofBuild } = buildOptions;

/** The readers of {@link SessionOptions}. What each option means is what they return. */
export const sessionOptions = {
  ...ofBuild,
  /** undefined: the build's default on a GPU, the model's own types on the CPU. */
  precision: optional(oneOf(['as-exported', 'fp32', 'tf32', 'fp16', 'bf16'])),
  device: deviceOption,
  /** 0: one per physical core. */
  threads: integer(0, 1, 1024),
  concurrency: integer(1, 1, 4 * availableParallelism()),
  maxQueue: integer(1024, 1, 2 ** 31 - 1),
  cudaGraph: boolean(true),
  preferredOutputLocation: oneOf(['cpu', 'cuda']),
} satisfies OptionTable<SessionOptions>;

/** {@link SessionOptions}, read. */
export type SessionSettings = OptionsOf<typeof sessionOptions>;

/** How to compile a session's model for a GPU. */
export function buildSettings(settings: Pick<SessionSettings, keyof typeof ofBuild>): BuildSettings {
  const precision = settings.precision ?? precisions[0];
  return { ...settings, precision, target: undefined, parent: undefined, lineage: undefined };
}

/** As {@link refusedBuildOptions}, for a session. */
export const refusedSessionOptions: Readonly<Record<string, string>> = {
  ...refusedBuildOptions,
  batching: 'is not supported in this version.',
  target: 'is not an option of a session, which compiles for the GPU that it runs on: options.device.',
  executionProviders: `${theirs}. Here options.device says where to run: 'cpu', 'cuda', 'cuda:1' …, or 'auto'.`,
  intraOpNumThreads: `${theirs}. Here it is options.threads.`,
  enableGraphCapture: `${theirs}. Here it is options.cudaGraph, which is true by default.`,
};

/** What an Engine leaves to be said: the rest was decided when it was compiled. */
const ofEngine: ReadonlySet<string> = new Set(['libraryPath', 'signal', 'onProgress', 'cache']);

/** Refuses options that an engine has decided otherwise, rather than pass them over. */
export function refuseBuildOptions(options: object): void {
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || ofEngine.has(name) || !Object.hasOwn(ofBuild, name)) continue;
    throw invalidArgValue(
      `options.${name}`,
      'is for compiling a model, and an Engine is compiled already: give it to buildEngine.',
    );
  }
}
