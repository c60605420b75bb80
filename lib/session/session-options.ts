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
 * How to load a model and where to run it. The options that it shares with {@link BuildOptions} apply when the model is
 * to run on a GPU, because the model is compiled for it first, or taken from the cache. An {@link Engine} is compiled
 * already and refuses them.
 *
 * @example
 * ```js
 * import { InferenceSession } from 'node-tensorrt';
 *
 * const session = await InferenceSession.create('model.onnx', { device: 'auto', threads: 2, concurrency: 2 });
 * console.log(session.device, session.why);
 * await session.dispose();
 * ```
 */
export interface SessionOptions extends Omit<BuildOptions, 'target' | 'parent' | 'lineage' | 'masks'> {
  /**
   * Where to run: the CPU, the first GPU ('cuda'), or the GPU that CUDA numbers so ('cuda:1'). 'auto' takes the first GPU
   * if there is one and a TensorRT library that can compile the model, else the CPU; `session.device` and `session.why`
   * tell which, and why. An Engine needs a GPU. Defaults to 'auto'.
   */
  device?: 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;
  /** CPU threads that one run may use. Defaults to one per physical core. */
  threads?: number;
  /**
   * How many runs execute at the same time, each on a thread of its own. On a GPU each has its own stream and its own
   * memory for activations. Defaults to 1.
   */
  concurrency?: number;
  /**
   * Records GPU work in CUDA graphs: the second run of a shape records what it launches, and later runs of that shape
   * launch the recording at once. Each thread keeps up to 8 shapes. Results don't change, and shapes that can't be
   * recorded run without a graph. Defaults to true.
   */
  cudaGraph?: boolean;
  /**
   * Where outputs are left. 'cuda' leaves the outputs of a session on a GPU there, as tensors to feed to another run or to
   * download with `getData()`. A session on the CPU ignores it. Defaults to 'cpu'.
   */
  preferredOutputLocation?: 'cpu' | 'cuda';
  /** How many runs may wait; one more is refused with ERR_QUEUE_FULL. Defaults to 1024. */
  maxQueue?: number;
  /**
   * The types to compute in. On a GPU as in {@link BuildOptions}, where it defaults to 'fp16'. On the CPU it defaults to
   * 'as-exported', and 'as-exported', 'fp32' and 'tf32' all run the model in its own types; 'fp16' and 'bf16' run the
   * model that the GPU would get, as far as ONNX Runtime has the operators: it computes FP16 in FP32 inside, and refuses
   * most of BF16.
   */
  precision?: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
  /**
   * Shapes that runs may have, by input name; other shapes are refused with ERR_SHAPE_MISMATCH. Defaults to any shape on
   * the CPU, and on a GPU to the shapes that {@link BuildOptions} derives or that the engine was compiled for.
   */
  shapes?: ShapeRanges | readonly ShapeRanges[];
  /** Aborting abandons the creation, which rejects with the signal's reason. */
  signal?: AbortSignal;
}

const { target: _target, parent: _parent, lineage: _lineage, masks: _masks, ...ofBuild } = buildOptions;

/** Reads {@link SessionOptions}: one reader per option. */
export const sessionOptions = {
  ...ofBuild,
  /** undefined stands for the build's default on a GPU, and for the model's own types on the CPU. */
  precision: optional(oneOf(['as-exported', 'fp32', 'tf32', 'fp16', 'bf16'])),
  device: deviceOption,
  /** 0 stands for one per physical core. */
  threads: integer(0, 1, 1024),
  concurrency: integer(1, 1, 4 * availableParallelism()),
  maxQueue: integer(1024, 1, 2 ** 31 - 1),
  cudaGraph: boolean(true),
  preferredOutputLocation: oneOf(['cpu', 'cuda']),
} satisfies OptionTable<SessionOptions>;

/** {@link SessionOptions} once checked, with defaults filled in. */
export type SessionSettings = OptionsOf<typeof sessionOptions>;

/** The settings with which a session's model is compiled for a GPU. */
export function buildSettings(settings: Pick<SessionSettings, keyof typeof ofBuild>): BuildSettings {
  const precision = settings.precision ?? precisions[0];
  return {
    ...settings,
    precision,
    target: undefined,
    parent: undefined,
    lineage: undefined,
    masks: undefined,
  };
}

/** Options that a session refuses by name, each with the reason. */
export const refusedSessionOptions: Readonly<Record<string, string>> = {
  ...refusedBuildOptions,
  batching: 'is not supported in this version.',
  masks:
    'is not an option of a session: pruneModel() writes the pruned model, and buildEngine() compiles it.',
  target: 'is not an option of a session, which compiles for the GPU that it runs on: options.device.',
  executionProviders: `${theirs}. Here options.device says where to run: 'cpu', 'cuda', 'cuda:1' …, or 'auto'.`,
  intraOpNumThreads: `${theirs}. Here it is options.threads.`,
  enableGraphCapture: `${theirs}. Here it is options.cudaGraph, which is true by default.`,
};

/** Build options that still apply to an Engine: the others were decided when it was compiled. */
const ofEngine: ReadonlySet<string> = new Set(['libraryPath', 'signal', 'onProgress', 'cache']);

/**
 * Refuses build options beside an Engine, instead of ignoring them.
 * @throws RangeError ERR_INVALID_ARG_VALUE
 */
export function refuseBuildOptions(options: object): void {
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || ofEngine.has(name) || !Object.hasOwn(ofBuild, name)) continue;
    throw invalidArgValue(
      `options.${name}`,
      'is for compiling a model, and an Engine is compiled already: give it to buildEngine.',
    );
  }
}
