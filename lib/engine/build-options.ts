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
import { targetNumber } from '../system/nvidia-support.js';
import { readCalibration } from './calibration.js';
import { Engine } from './engine.js';
import { maxNesting, nestsWithin } from './parse-manifest.js';

export interface BuildProgress {
  /** 'Preparing model', then TensorRT's own terms, e.g. 'Parsing', 'Building engine'. Phases may nest. */
  readonly phase: string;
  /** Steps done: 0 to `steps`. */
  readonly step: number;
  readonly steps: number;
}

export interface BuildOptions {
  /**
   * 'fp16' (default) casts the graph first, by the rules of {@link castToFloat16}: matrix products, convolutions and
   * what is computed element by element in FP16 where values are small enough; softmax, normalisation, reductions,
   * powers, exponentials and the graph's inputs and outputs in FP32. 'bf16' does so with BF16, whatever the values.
   * 'fp32' and 'as-exported' compile the types that the model has, and FP32 is FP32, also where 'fp16' and 'bf16' leave it:
   * TF32, which rounds the factors of products to 11 bits, is used with 'tf32' alone, which is 'fp32' otherwise.
   */
  precision?: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
  /**
   * Shapes to compile for, by input name: `{ min, opt, max }`, or one shape. An array is several optimization
   * profiles. An input that is left out gets ranges that the names of its dimensions suggest: batch 1 to 16 and
   * sequence 1 to 512, say; the engine's manifest has them. They are binding.
   */
  shapes?: ShapeRanges | readonly ShapeRanges[];
  /**
   * GPUs to compile for, e.g. 'sm_89'. With TensorRT-RTX they need not be here; TensorRT compiles for this machine's
   * alone, of several for the first that is named. Default: this machine's, of several the first.
   */
  target?: string | readonly string[];
  /**
   * 'tensorrt' is TensorRT 10.11 or later or 11, 'tensorrt-rtx' TensorRT-RTX 1.5 or later. 'auto' (default):
   * TensorRT-RTX for a `target` that isn't this machine's GPU; for this machine's, TensorRT-RTX where it is found and
   * runs on it (sm_75, 86, 89, 120, 121; sm_80 where there is nothing else), else TensorRT 11, else TensorRT 10.
   */
  runtime?: 'auto' | 'tensorrt' | 'tensorrt-rtx';
  /** The core library, or its folder. Default: `NODE_TENSORRT_TENSORRT_PATH`, else where it is usually found. */
  libraryPath?: string;
  /** 'auto': let TensorRT use 2:4 sparse weights where it finds them. Default 'off'. */
  sparsity?: 'off' | 'auto';
  /** How long TensorRT may look for a faster plan: 0 to 5. Default: its own, 3. */
  optimizationLevel?: 0 | 1 | 2 | 3 | 4 | 5;
  /** Device memory in bytes that a layer's kernel may use beside its inputs and outputs. Default: the GPU's. */
  workspace?: number;
  /**
   * With 'fp16': inputs as the model will get them, on which the CPU measures how large values become; what may be too
   * large stays in FP32. Read to the end before anything else. Default: random ones; `engine.manifest.cast.ranges`
   * says which.
   */
  calibration?: Iterable<Readonly<Record<string, TensorLike>>>;
  /**
   * Makes weights replaceable: all, which costs speed (fewer layers are fused), or the named initializers. Default: none.
   * TensorRT-RTX needs a GPU for it: ERR_NO_GPU.
   */
  refit?: boolean | readonly string[];
  /**
   * A file in which TensorRT keeps what it measures, for later builds on the same GPU. It is read and rewritten, with
   * what other processes add meanwhile; a damaged or foreign one is replaced, with a warning. TensorRT-RTX measures
   * nothing: ERR_LIBRARY_UNSUPPORTED.
   */
  timingCache?: string;
  /**
   * With 'fp16' and 'bf16': nodes to leave in FP32, by name or operator type; `*` stands for any characters. After a
   * `!`, nodes to cast though a range would keep them; the last pattern that fits decides.
   */
  keepFp32?: readonly string[];
  /**
   * Engines that were built are kept, and a build whose result is there takes as long as reading it: `fromCache`. The
   * key is the SHA-256 of the model with its external data, the options, TensorRT's version and this package's, and
   * the targets. A string is the folder; true (default) is `engines` in `NODE_TENSORRT_CACHE`, else in
   * `~/.cache/node-tensorrt`; of more than 20 GB, what was not used for longest is removed. Where the variable
   * `NODE_TENSORRT_ENGINE_CACHE` is 'off', the default is false.
   */
  cache?: boolean | string;
  /** The engine that this one descends from, or its {@link Engine.id}: recorded in the manifest. */
  parent?: Engine | string;
  /** What else there is to say about where the engine comes from, for the manifest: JSON, at most 64,000 characters of it. */
  lineage?: Readonly<Record<string, unknown>>;
  onProgress?(progress: BuildProgress): void;
  /** Aborting stops the build at TensorRT's next step; it rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** The default first. */
export const precisions = ['fp16', 'bf16', 'fp32', 'tf32', 'as-exported'] as const;

/** The readers of {@link BuildOptions}. What each option means is what they return. */
export const buildOptions = {
  precision: oneOf(precisions),
  shapes: parseShapes,
  target: targetOption,
  runtime: oneOf(['auto', 'tensorrt', 'tensorrt-rtx']),
  libraryPath: pathOption,
  sparsity: oneOf(['off', 'auto']),
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

/** {@link BuildOptions}, read. */
export type BuildSettings = OptionsOf<typeof buildOptions>;

const untested = 'is not supported until a GPU has tested it.';
const whereTimeGoes = `${theirs}, and has no counterpart: session.stats() and a run's onTiming say where time goes.`;
const oneAfterTheOther = `${theirs}, and has no counterpart: a run's operators run one after the other.`;
const asItIs = `${theirs}, and has no counterpart: on the CPU it is always on.`;

/** Why an option is refused that isn't one: what TensorRT can do, and what onnxruntime-node calls something else. */
export const refusedBuildOptions = {
  masks: 'is not supported in this version.',
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

/** @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE */
export function readBuildOptions(options: BuildOptions = {}): BuildSettings {
  return readOptions(options, 'options', buildOptions, refusedBuildOptions);
}

/** What TensorRT's compiler is told. */
export function compilerOptions(settings: BuildSettings) {
  const { sparsity, precision, timingCache } = settings;
  return {
    ...givenOptions(settings),
    sparsity: sparsity === 'auto',
    tf32: precision === 'tf32',
    ...(timingCache === undefined ? {} : { timingCache }),
  };
}

/** What the manifest records: options that aren't the default. */
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

/** False for no weights. */
function refitOption(refit: unknown, path: string): boolean | readonly string[] {
  if (refit === undefined || typeof refit === 'boolean') return refit ?? false;
  if (!Array.isArray(refit)) throw invalidArgType(path, 'a boolean or the names of weights', refit);
  return refit.length > 0 && strings(refit, path);
}

/** The cache's folder, undefined for the default one; false for none. */
function cacheOption(cache: unknown, path: string): string | undefined | false {
  if (cache === undefined && process.env.NODE_TENSORRT_ENGINE_CACHE === 'off') return false;
  if (cache === undefined || cache === true) return undefined;
  if (cache === false) return false;
  if (typeof cache !== 'string') throw invalidArgType(path, "a boolean or a folder's path", cache);
  checkPath(cache, path);
  return cache;
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

/** A copy: what the caller does with theirs afterwards changes nothing. */
function lineageOption(lineage: unknown, option: string): Readonly<Record<string, unknown>> | undefined {
  if (lineage === undefined) return undefined;
  if (typeof lineage !== 'object' || lineage === null || Array.isArray(lineage)) {
    throw invalidArgType(option, 'an object', lineage);
  }
  // As a part of the manifest, one level down. What holds itself nests without end.
  if (!nestsWithin(maxNesting - 1, lineage)) {
    throw invalidArgValue(
      option,
      `nests deeper than the ${maxNesting - 1} levels that a manifest has for it.`,
    );
  }
  const text = JSON.stringify(lineage, (_, value) => (typeof value === 'bigint' ? undefined : value));
  const copy = JSON.parse(text);
  if (!isDeepStrictEqual(copy, lineage)) {
    throw invalidArgValue(option, 'is no plain JSON: it would not come back from a file as it is.');
  }
  if (text.length > maxLineageCharacters) {
    throw invalidArgValue(
      option,
      `has ${text.length} characters of JSON; ${maxLineageCharacters} are allowed.`,
    );
  }
  return copy;
}

/** 'sm_89' → 89; undefined for this machine's GPU. */
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
