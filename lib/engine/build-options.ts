import { isDeepStrictEqual } from 'node:util';
import { describe, invalidArgType, invalidArgValue } from '../base/errors.js';
import { refusedLoggingOptions, theirs } from '../base/onnxruntime-options.js';
import {
  abortSignal,
  callback,
  checkPath,
  integer,
  type OptionsOf,
  type OptionTable,
  oneOf,
  pathOption,
  readOptions,
  strings,
} from '../base/options.js';
import { parseShapes, type ShapeRanges } from '../base/shapes.js';
import type { TensorLike } from '../base/tensor-like.js';
import { contentsOf, type MaskSet } from '../masks/mask-set.js';
import type { MaskSetContents } from '../masks/mask-set-contents.js';
import { targetNumber } from '../system/nvidia-support.js';
import { readCalibration } from './calibration.js';
import { Engine } from './engine.js';
import { maxNesting, nestsWithin } from './parse-manifest.js';

/** A step of a build, as `options.onProgress` is told it. */
export interface BuildProgress {
  /** 'Preparing model', then TensorRT's own terms, such as 'Parsing' and 'Building engine'. Phases may nest. */
  readonly phase: string;
  /** Steps of the phase that are done, from 0 to `steps`. */
  readonly step: number;
  /** Steps that the phase has. */
  readonly steps: number;
}

/** How to compile a model into an engine. */
export interface BuildOptions {
  /**
   * The types to compute in. Defaults to 'fp16'.
   *
   * - 'fp16' casts the graph first, by the rules of `castToFloat16` in node-tensorrt/onnx: matrix products, convolutions
   *   and element-wise operators compute in FP16 if their values are small enough; softmax, normalisation, reductions,
   *   powers, exponentials and the graph's inputs and outputs stay in FP32.
   * - 'bf16' does the same in BF16, whatever the values.
   * - 'fp32' and 'as-exported' compile the types that the model has.
   * - 'tf32' is 'fp32' with TF32, which rounds the factors of products to 11 bits. No other precision uses TF32.
   */
  precision?: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
  /**
   * Shapes to compile for, by input name: `{ min, opt, max }`, or one shape. An array of such objects gives several
   * optimization profiles. Runs are bound to these shapes. An input that is left out defaults to ranges that the names of
   * its dimensions suggest, such as batch 1 to 16 and sequence 1 to 512; `engine.manifest.profiles` has them.
   */
  shapes?: ShapeRanges | readonly ShapeRanges[];
  /**
   * GPUs to compile for, such as 'sm_89'. TensorRT-RTX compiles for GPUs that aren't here; TensorRT compiles for a GPU of
   * this machine only, the first one that is named. Defaults to this machine's first GPU.
   */
  target?: string | readonly string[];
  /**
   * The compiler: 'tensorrt' is TensorRT 11, or 10.11 and later; 'tensorrt-rtx' is TensorRT-RTX 1.5 and later. 'auto'
   * takes TensorRT-RTX for a `target` that isn't this machine's GPU. For this machine's GPU it takes TensorRT-RTX if it
   * is found and runs there (sm_75, 86, 89, 120 and 121; sm_80 if there is nothing else), then TensorRT 11, then 10.
   * Defaults to 'auto'.
   */
  runtime?: 'auto' | 'tensorrt' | 'tensorrt-rtx';
  /**
   * The core library's file, or its folder. Defaults to `NODE_TENSORRT_TENSORRT_PATH`, then to the places where it is
   * usually installed.
   */
  libraryPath?: string;
  /** 'auto' lets TensorRT use 2:4 sparse weights if the model has any. Defaults to 'off'. */
  sparsity?: 'off' | 'auto';
  /**
   * Masks for the model's weights, which are pruned before they are compiled. TensorRT makes use of zeros only with
   * `sparsity: 'auto'` and masks of 2:4. Defaults to none.
   */
  masks?: MaskSet;
  /** How long TensorRT may look for a faster plan, from 0 to 5. Defaults to TensorRT's own default, 3. */
  optimizationLevel?: 0 | 1 | 2 | 3 | 4 | 5;
  /** Bytes of device memory that a layer's kernel may use beside its inputs and outputs. Defaults to all of the GPU's. */
  workspace?: number;
  /**
   * Sample inputs for 'fp16': the CPU runs the model on them and measures how large values become; what may become too
   * large stays in FP32. They are read to the end before anything else happens. Defaults to random inputs;
   * `engine.manifest.cast.ranges` tells which were used.
   */
  calibration?: Iterable<Readonly<Record<string, TensorLike>>>;
  /**
   * Makes weights replaceable: `true` for all of them, which costs speed because fewer layers are fused, or the names of
   * initializers. TensorRT-RTX needs a GPU for it, else ERR_NO_GPU. Defaults to none.
   */
  refit?: boolean | readonly string[];
  /**
   * A file in which TensorRT keeps its measurements for later builds on the same GPU. It is read and rewritten, together
   * with what other processes added meanwhile. A damaged or foreign file is replaced, with a warning. TensorRT-RTX
   * measures nothing and refuses it with ERR_LIBRARY_UNSUPPORTED. Defaults to none.
   */
  timingCache?: string;
  /**
   * Nodes that stay in FP32 with 'fp16' and 'bf16', by name or operator type; `*` stands for any characters. A pattern
   * that begins with `!` names nodes to cast although a range would keep them. The last pattern that fits decides.
   * Defaults to none.
   */
  keepFp32?: readonly string[];
  /**
   * Keeps engines, so that the same build later takes as long as reading its result (`engine.fromCache`). The key is
   * the SHA-256 of the model with its external data, the options, the targets, and the versions of TensorRT and of this
   * package. A string names the folder. `true` stands for the folder `engines` in `NODE_TENSORRT_CACHE`, else in
   * `~/.cache/node-tensorrt`; beyond 20 GB the engines that weren't used for longest are removed. Defaults to true, or to
   * false if the variable `NODE_TENSORRT_ENGINE_CACHE` is 'off'.
   */
  cache?: boolean | string;
  /** The engine that this one descends from, or its {@link Engine.id}. The manifest records it. Defaults to none. */
  parent?: Engine | string;
  /** More about where the engine comes from, recorded in the manifest: an object of at most 64,000 characters of JSON. */
  lineage?: Readonly<Record<string, unknown>>;
  /** Is called with each step of the build. */
  onProgress?: (progress: BuildProgress) => void;
  /** Aborting stops the build at TensorRT's next step; the build then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** The values of `options.precision`, the default first. */
export const precisions = ['fp16', 'bf16', 'fp32', 'tf32', 'as-exported'] as const;

/** Reads {@link BuildOptions}: one reader per option. */
export const buildOptions = {
  precision: oneOf(precisions),
  shapes: parseShapes,
  target: targetOption,
  runtime: oneOf(['auto', 'tensorrt', 'tensorrt-rtx']),
  libraryPath: pathOption,
  sparsity: oneOf(['off', 'auto']),
  masks: masksOption,
  optimizationLevel: integer(undefined, 0, 5),
  workspace: integer(undefined, 0, Number.MAX_SAFE_INTEGER),
  calibration: readCalibration,
  refit: refitOption,
  timingCache: pathOption,
  keepFp32: strings,
  cache: cacheOption,
  parent: parentOption,
  lineage: lineageOption,
  onProgress: callback<NonNullable<BuildOptions['onProgress']>>,
  signal: abortSignal,
} satisfies OptionTable<BuildOptions>;

/** {@link BuildOptions} once checked, with defaults filled in. */
export type BuildSettings = OptionsOf<typeof buildOptions>;

const untested = 'is not supported until a GPU has tested it.';
const whereTimeGoes = `${theirs}, and has no counterpart: session.stats() and a run's onTiming say where time goes.`;
const oneAfterTheOther = `${theirs}, and has no counterpart: a run's operators run one after the other.`;
const asItIs = `${theirs}, and has no counterpart: on the CPU it is always on.`;

/**
 * Options that are refused by name, each with the reason: what TensorRT can do and this package can't yet, and what
 * onnxruntime-node calls something else.
 */
export const refusedBuildOptions = {
  weightStreaming: untested,
  versionCompatible: untested,
  hardwareCompatibility: untested,
  executionProviders: `${theirs}. Here options.target names the GPUs to compile for, and options.runtime what compiles.`,
  intraOpNumThreads: `${theirs}. Here it is options.threads, of InferenceSession.create.`,
  interOpNumThreads: oneAfterTheOther,
  executionMode: oneAfterTheOther,
  freeDimensionOverrides: `${theirs}. Here options.shapes says which shapes inputs have, by input: { x: [1, 3, 224, 224] }.`,
  graphOptimizationLevel: `${theirs}. On the CPU every optimization is on; for a GPU it is options.optimizationLevel, from 0 to 5.`,
  enableCpuMemArena: asItIs,
  enableMemPattern: asItIs,
  optimizedModelFilePath: `${theirs}. Here the engine cache keeps what was compiled for a GPU (options.cache), or Engine.save().`,
  enableProfiling: whereTimeGoes,
  profileFilePrefix: whereTimeGoes,
  ...refusedLoggingOptions,
  enableGraphCapture: `${theirs}. Here it is options.cudaGraph, of InferenceSession.create.`,
  externalData: `${theirs}. Here external data is read from beside the model: give the model's path.`,
} as const;

/** Checks build options and fills in defaults. @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE */
export function readBuildOptions(options: BuildOptions = {}): BuildSettings {
  return readOptions(options, 'options', buildOptions, refusedBuildOptions);
}

/** The options that TensorRT's compiler gets. */
export function compilerOptions(settings: BuildSettings) {
  const { sparsity, precision, timingCache } = settings;
  return {
    ...givenOptions(settings),
    sparsity: sparsity === 'auto',
    tf32: precision === 'tf32',
    ...(timingCache === undefined ? {} : { timingCache }),
  };
}

/** The options that the manifest records: those that aren't the default. */
export function recordedOptions(settings: BuildSettings) {
  const { sparsity, keepFp32, calibration } = settings;
  return {
    ...givenOptions(settings),
    ...(sparsity === 'auto' ? { sparsity } : {}),
    ...(keepFp32.length > 0 ? { keepFp32 } : {}),
    ...(calibration
      ? { calibration: { samples: calibration.samples.length, sha256: calibration.sha256 } }
      : {}),
  };
}

function givenOptions({ refit, optimizationLevel, workspace }: BuildSettings) {
  return {
    ...(refit === false ? {} : { refit }),
    ...(optimizationLevel === undefined ? {} : { optimizationLevel }),
    ...(workspace === undefined ? {} : { workspace }),
  };
}

/** Reads `options.refit`; false stands for no weights. */
function refitOption(refit: unknown, path: string): boolean | readonly string[] {
  if (refit === undefined || typeof refit === 'boolean') return refit ?? false;
  if (!Array.isArray(refit)) throw invalidArgType(path, 'a boolean or the names of weights', refit);
  return refit.length > 0 && strings(refit, path);
}

/** Reads `options.cache`: a folder, undefined for the default one, or false for no cache. */
function cacheOption(cache: unknown, path: string): string | undefined | false {
  if (cache === undefined && process.env.NODE_TENSORRT_ENGINE_CACHE === 'off') return false;
  if (cache === undefined || cache === true) return undefined;
  if (cache === false) return false;
  if (typeof cache !== 'string') throw invalidArgType(path, "a boolean or a folder's path", cache);
  checkPath(cache, path);
  return cache;
}

function masksOption(masks: unknown, path: string): MaskSetContents | undefined {
  if (masks === undefined) return undefined;
  // A copy, since the caller may change the set afterwards.
  const { entries, skipped } = contentsOf(masks as MaskSet, path);
  return { entries: new Map(entries), skipped };
}

function parentOption(parent: unknown, path: string): string | undefined {
  if (parent === undefined) return undefined;
  if (parent instanceof Engine) return parent.id;
  if (typeof parent !== 'string') throw invalidArgType(path, "an Engine or an engine's id", parent);
  if (!/^[0-9a-f]{64}$/.test(parent)) {
    throw invalidArgValue(path, `must be an engine's id, a SHA-256, not ${describe(parent)}.`);
  }
  return parent;
}

const maxLineageCharacters = 64_000;

/** Reads `options.lineage` into a copy, so that the caller may change theirs afterwards. */
function lineageOption(lineage: unknown, option: string): Readonly<Record<string, unknown>> | undefined {
  if (lineage === undefined) return undefined;
  if (typeof lineage !== 'object' || lineage === null || Array.isArray(lineage)) {
    throw invalidArgType(option, 'an object', lineage);
  }
  // It will be one level down in the manifest. An object that holds itself nests without end.
  if (!nestsWithin(maxNesting - 1, lineage)) {
    throw invalidArgValue(
      option,
      `nests deeper than the ${maxNesting - 1} levels that a manifest has for it.`,
    );
  }
  const text = JSON.stringify(lineage, (_, value) => (typeof value === 'bigint' ? undefined : value));
  const copy = JSON.parse(text);
  if (!isDeepStrictEqual(copy, lineage)) {
    throw invalidArgValue(option, "isn't plain JSON: it would come back from a file otherwise than it is.");
  }
  if (text.length > maxLineageCharacters) {
    throw invalidArgValue(
      option,
      `has ${text.length} characters of JSON; ${maxLineageCharacters} are allowed.`,
    );
  }
  return copy;
}

/** Reads `options.target`: 'sm_89' becomes 89; undefined stands for this machine's GPU. */
function targetOption(target: unknown, path: string): number[] | undefined {
  if (target === undefined) return undefined;
  const names = Array.isArray(target) ? target : [target];
  if (names.length === 0) throw invalidArgValue(path, 'is an empty list.');
  const numbers = names.map((name, i) => {
    const option = Array.isArray(target) ? `${path}[${i}]` : path;
    if (typeof name !== 'string') throw invalidArgType(option, "a string such as 'sm_89'", name);
    const number = targetNumber(name);
    if (number === undefined)
      throw invalidArgValue(option, `must be a compute capability such as 'sm_89', not ${describe(name)}.`);
    return number;
  });
  return [...new Set(numbers)];
}
