import { tmpdir } from 'node:os';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { createHash } from '../base/crypto.js';
import { type DataType, dataTypeFromOnnx } from '../base/data-type.js';
import { describe, invalidArgType, invalidArgValue, TensorRTError } from '../base/errors.js';
import {
  type Bytes,
  bytesOf,
  checkOptions,
  checkPath,
  checkSignal,
  enumOption,
  integerOption,
  onAbort,
  stringsOption,
} from '../base/options.js';
import {
  checkProfiles,
  completeProfiles,
  type DeclaredInput,
  parseShapes,
  type ShapeRanges,
} from '../base/shapes.js';
import type { TensorLike } from '../base/tensor-like.js';
import { version as builder } from '../base/version.js';
import { writeAtomically } from '../system/files/atomic-file.js';
import { type TemporaryDirectory, temporaryDirectory } from '../system/files/temporary-directory.js';
import {
  type NativeBuildRequest,
  type NativeBuildResult,
  type NativeCuda,
  type NativeGpu,
  type NativeTensorRT,
  native,
} from '../system/native.js';
import { targetNumber } from '../system/nvidia-support.js';
import { hasOnnxRuntime } from '../system/onnxruntime-library.js';
import { readCalibration } from './calibration.js';
import {
  Engine,
  type EngineManifest,
  maxNesting,
  nestsWithin,
  type Provenance,
  type TensorInfo,
} from './engine.js';
import type { ModelDigest } from './model-digest.js';
import type { DecoderLowering } from './prepare-model.js';

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

export const buildOptionNames = [
  'precision',
  'shapes',
  'target',
  'runtime',
  'libraryPath',
  'sparsity',
  'optimizationLevel',
  'workspace',
  'calibration',
  'refit',
  'timingCache',
  'keepFp32',
  'cache',
  'parent',
  'lineage',
  'onProgress',
  'signal',
] as const;
/** Those of a session's options that are a build's too. */
export function pickBuildOptions(options: object): BuildOptions {
  const names: readonly string[] = buildOptionNames;
  return Object.fromEntries(Object.entries(options).filter(([name]) => names.includes(name)));
}

/** The default first. */
export const precisions = ['fp16', 'bf16', 'fp32', 'tf32', 'as-exported'] as const;

const untested = 'is not supported until a GPU has tested it.';
const theirs = "is onnxruntime-node's";
const notLogged = `${theirs}, and has no counterpart: nothing is logged; what matters is an error, or in a manifest's warnings.`;
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
  logId: notLogged,
  logSeverityLevel: notLogged,
  logVerbosityLevel: notLogged,
  enableGraphCapture: `${theirs}. Here it is options.cudaGraph, of InferenceSession.create.`,
  externalData: `${theirs}. Here external data is read from beside the model: give the model's path.`,
  extra: `${theirs}, and has no counterpart: ONNX Runtime's own settings can't be given.`,
} as const;

/** Of our types, those that TensorRT has (NvInfer.h, DataType). */
const tensorrtTypes: ReadonlySet<DataType> = new Set<DataType>([
  ...(['float32', 'float16', 'bfloat16', 'int8', 'uint8', 'int32', 'int64', 'bool'] as const),
]);

/**
 * How long a build that was aborted is waited for, in milliseconds. TensorRT ends it after its current step, which may
 * take seconds: then on its thread, unheard.
 */
const cancelGrace = 1000;

const maxLineageCharacters = 64_000;

/** Weights beyond this are written beside the ONNX file, which ends at 2 GiB. */
export const maxInlineBytes = 1.5 * 2 ** 30;

/**
 * Compiles an ONNX model, a file with its external data beside it or the bytes of one, into a TensorRT engine, or takes
 * it from the cache. All work is done on threads of its own. With `target`, no GPU is needed.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED (names the node and
 *   the reason), ERR_BUILD_FAILED, ERR_NO_GPU, ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED, ERR_OUT_OF_MEMORY,
 *   ERR_IO; TypeError or RangeError for bad arguments; the signal's reason
 */
export async function buildEngine(model: string | Bytes, options: BuildOptions = {}): Promise<Engine> {
  return buildEngineOn(
    undefined,
    readModelArgument(model, 'a path, a Uint8Array or an ArrayBuffer'),
    options,
  );
}

/** A model as it was given: a path, or its bytes. */
export function readModelArgument(model: unknown, expected: string): string | Uint8Array {
  const source = typeof model === 'string' ? model : bytesOf(model, 'model');
  if (source === undefined) throw invalidArgType('model', expected, model);
  if (typeof source === 'string') checkPath(source, 'model');
  return source;
}

/**
 * {@link buildEngine}, on the GPU with CUDA's number `ordinal`; undefined for the first one that `options.target` names,
 * else the first of all.
 */
export async function buildEngineOn(
  ordinal: number | undefined,
  model: string | Uint8Array,
  options: BuildOptions,
  /** What the model is, if it is a decoder to be lowered: see `buildDecoder`. */
  decoder?: Omit<DecoderLowering, 'attention'>,
): Promise<Engine> {
  const settings = readOptions(options);
  const { onProgress, signal } = settings;
  signal?.throwIfAborted();

  // Only who builds pays for loading what builds.
  const { findTensorRT } = await import('../system/tensorrt-library.js');
  const { libraryPath, runtime, computeCapabilities } = settings;
  const cuda = await native().probeCuda();
  const named = cuda.gpus.findIndex((gpu) => numberOf(gpu) === computeCapabilities?.[0]);
  const device = ordinal ?? Math.max(named, 0);
  const gpu = cuda.gpus[device];
  const here = gpu && numberOf(gpu);
  const targets = computeCapabilities ?? [here ?? throwNoGpu(cuda)];
  // Ahead of time, a plan is no machine's.
  const tunedFor = (library: NativeTensorRT) =>
    gpu && !(computeCapabilities && library.capabilities.aheadOfTime)
      ? { device, name: gpu.name }
      : undefined;
  const wanted = { libraryPath, runtime, targets, gpu: here };
  if (settings.cache === false) {
    const library = await findTensorRT(wanted);
    return compile(model, settings, library, targets, tunedFor(library)?.device, undefined, decoder);
  }

  const { EngineCache } = await import('./engine-cache.js');
  const { LibraryMemo } = await import('./library-memo.js');
  const { digestModel } = await import('./model-digest.js');
  const cache = new EngineCache(settings.cache);
  const libraries = await LibraryMemo.read(cache.memo('libraries'));
  const library = await findTensorRT({ ...wanted, open: libraries.open });
  await libraries.save();
  const tuned = tunedFor(library);
  const models = cache.memo('models');
  const digest = await digestModel(model, models, signal);
  const key = cacheKey({ digest, settings, library, targets, gpu: tuned?.name, decoder });
  const build = async () => {
    const engine = await compile(model, settings, library, targets, tuned?.device, models, decoder);
    // Kept under this key, another model's engine would be taken for this one's.
    const { sha256 } = engine.manifest.model;
    const now = typeof model === 'string' ? await digestModel(model, models, signal) : { ...digest, sha256 };
    if (sha256 === digest.sha256 && JSON.stringify(now) === JSON.stringify(digest)) return engine;
    const name = typeof model === 'string' ? ` ${model}` : '';
    throw new TensorRTError('ERR_IO', `The model${name} changed while it was compiled. Build it again.`);
  };
  const onWait = onProgress && (() => onProgress({ phase: 'Waiting for another build', step: 0, steps: 1 }));
  const engine = await cache.loadOrBuild(key, build, { signal, onWait });
  signal?.throwIfAborted();
  return engine.withProvenance(provenance(model, settings));
}

/**
 * The name of what decides the plan. Profiles count as given: what they lack follows from the model. What only the
 * manifest says does not count: see {@link Engine.withProvenance}.
 */
function cacheKey({
  digest,
  settings: { precision, profiles, recorded },
  library: { flavour, version },
  targets,
  gpu,
  decoder,
}: {
  digest: ModelDigest;
  settings: Settings;
  library: NativeTensorRT;
  targets: readonly number[];
  /** The name of the GPU here that the plan is tuned for. */
  gpu: string | undefined;
  decoder: Omit<DecoderLowering, 'attention'> | undefined;
}): string {
  // Without ONNX Runtime, FP16 is decided by the weights alone.
  const measured = precision === 'fp16' ? hasOnnxRuntime() : undefined;
  const options = { precision, profiles, measured, recorded };
  const parts = { builder, flavour, version, targets, gpu, options, digest, decoder };
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

function provenance(model: string | Uint8Array, { parent, lineage }: Settings): Provenance {
  return { name: typeof model === 'string' ? path.basename(model) : undefined, parent, lineage };
}

/** A build, whatever the cache has. */
async function compile(
  model: string | Uint8Array,
  settings: Settings,
  library: NativeTensorRT,
  targets: readonly number[],
  /** CUDA's number of the GPU that the plan is tuned for. */
  device: number | undefined,
  /** The file that remembers hashes of models. */
  memo: string | undefined,
  decoder: Omit<DecoderLowering, 'attention'> | undefined,
): Promise<Engine> {
  const { onProgress, signal, precision, calibration, keepFp32 } = settings;
  signal?.throwIfAborted();
  const { prepareModel } = await import('./prepare-model.js');
  const directory = await buildDirectory();
  try {
    onProgress?.({ phase: 'Preparing model', step: 0, steps: 1 });
    const prepared = await prepareModel(
      {
        model,
        precision: precision === 'fp16' || precision === 'bf16' ? precision : undefined,
        calibration: calibration?.samples,
        keepFp32,
        runtime: 'tensorrt',
        memo,
        directory: directory.path,
        maxInlineBytes,
        ...(decoder ? { decoder: { ...decoder, attention: attentionOf(library) } } : {}),
      },
      signal,
    );
    onProgress?.({ phase: 'Preparing model', step: 1, steps: 1 });
    checkTypes(prepared.inputs);
    checkProfiles(settings.profiles, prepared.inputs);
    const profiles = completeProfiles(settings.profiles, prepared.inputs);
    signal?.throwIfAborted();

    const result = await buildPlan(
      {
        library: library.path,
        model: prepared.file,
        modelPath: prepared.modelPath,
        profiles,
        // Empty for the GPU present, for which TensorRT asks it for more than its number.
        computeCapabilities: settings.computeCapabilities ?? [],
        ...(device === undefined ? {} : { device }),
        ...settings.compiler,
        detailed: decoder?.detailed === true,
      },
      onProgress,
      signal,
    ).catch((error) => {
      if (typeof model === 'string' || !(error instanceof TensorRTError)) throw error;
      // The file is ours, and gone when the caller reads this.
      const message = error.message.replaceAll(prepared.modelPath, 'given as bytes');
      throw new TensorRTError(error.code, message, { cause: error });
    });

    const { timingCache } = settings.compiler;
    if (timingCache !== undefined && result.timingCache) {
      try {
        await writeAtomically(timingCache, [new Uint8Array(result.timingCache.bytes)], 'timing cache');
      } finally {
        result.timingCache.release();
      }
    }
    const { name, ...line } = provenance(model, settings);
    const { sha256, weightsSha256, producer } = prepared;
    const manifest: EngineManifest = {
      library: { flavour: library.flavour, version: library.version },
      builder,
      targets: targets.map((number) => `sm_${number}`),
      precision,
      ...(prepared.cast ? { cast: prepared.cast } : {}),
      profiles,
      ...(prepared.decoder ? { decoder: prepared.decoder } : {}),
      model: { name, sha256, weightsSha256, producer },
      ...line,
      options: settings.recorded,
      created: new Date().toISOString(),
      warnings: result.warnings,
      inputs: result.inputs.map(withTypeName),
      outputs: result.outputs.map(withTypeName),
    };
    const layers = result.layers.map((layer) => ({ ...layer, outputs: layer.outputs.map(withTypeName) }));
    return Engine.assemble(manifest, layers, result.plan);
  } finally {
    await directory.remove();
  }
}

/**
 * Options of a build, where nothing may come to be built: a model that runs on the CPU here is compiled elsewhere.
 * Samples to calibrate with are not looked at: they may be there only once.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function checkBuildOptions(options: object): void {
  readOptions({ ...pickBuildOptions(options), calibration: undefined });
}

/** What a library has for attention to a KV cache. @throws TensorRTError ERR_LIBRARY_UNSUPPORTED for nothing */
function attentionOf({ version, capabilities }: NativeTensorRT): DecoderLowering['attention'] {
  if (!capabilities.kvCache) {
    throw new TensorRTError(
      'ERR_LIBRARY_UNSUPPORTED',
      `TensorRT ${version} has no KV cache: 10.15 or later has, and TensorRT-RTX.`,
    );
  }
  return capabilities.keyValueLengths ? 'lengths' : 'mask';
}

type Settings = ReturnType<typeof readOptions>;

/** Checks the options. `compiler` goes to TensorRT, `recorded` into the manifest: what is not a default. */
function readOptions(options: BuildOptions) {
  checkOptions(options, 'options', buildOptionNames, refusedBuildOptions);
  const { libraryPath, onProgress, signal } = options;
  const runtime = enumOption(options.runtime, 'options.runtime', ['auto', 'tensorrt', 'tensorrt-rtx']);
  if (libraryPath !== undefined) checkPath(libraryPath, 'options.libraryPath');
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw invalidArgType('options.onProgress', 'a function', onProgress);
  }
  checkSignal(signal, 'options.signal');
  const optimization = 'options.optimizationLevel';
  const optimizationLevel = integerOption(options.optimizationLevel, optimization, undefined, 0, 5);
  const most = Number.MAX_SAFE_INTEGER;
  const workspace = integerOption(options.workspace, 'options.workspace', undefined, 0, most);
  const precision = enumOption(options.precision, 'options.precision', precisions);
  const sparsity = enumOption(options.sparsity, 'options.sparsity', ['off', 'auto']);
  const keepFp32 = stringsOption(options.keepFp32, 'options.keepFp32');
  const calibration = readCalibration(options.calibration, 'options.calibration');
  const refit = refitOption(options.refit);
  const { timingCache } = options;
  if (timingCache !== undefined) checkPath(timingCache, 'options.timingCache');
  const given = {
    ...(refit === false ? {} : { refit }),
    ...(optimizationLevel === undefined ? {} : { optimizationLevel }),
    ...(workspace === undefined ? {} : { workspace }),
  };
  return {
    onProgress,
    signal,
    libraryPath,
    runtime,
    keepFp32,
    cache: cacheOption(options.cache),
    parent: parentOption(options.parent),
    lineage: lineageOption(options.lineage),
    calibration,
    precision,
    profiles: parseShapes(options.shapes),
    computeCapabilities: parseTargets(options.target),
    compiler: {
      ...given,
      sparsity: sparsity === 'auto',
      tf32: precision === 'tf32',
      ...(timingCache ? { timingCache } : {}),
    },
    recorded: {
      ...given,
      ...(sparsity === 'auto' ? { sparsity } : {}),
      ...(keepFp32.length > 0 ? { keepFp32 } : {}),
      ...(calibration
        ? { calibration: { samples: calibration.samples.length, sha256: calibration.sha256 } }
        : {}),
    },
  };
}

/** False for no weights. */
function refitOption(refit: unknown): boolean | readonly string[] {
  if (refit === undefined || typeof refit === 'boolean') return refit ?? false;
  if (!Array.isArray(refit))
    throw invalidArgType('options.refit', 'a boolean or the names of weights', refit);
  return refit.length > 0 && stringsOption(refit, 'options.refit');
}

/** The cache's folder, undefined for the default one; false for none. */
function cacheOption(cache: unknown): string | undefined | false {
  if (cache === undefined && process.env.NODE_TENSORRT_ENGINE_CACHE === 'off') return false;
  if (cache === undefined || cache === true) return undefined;
  if (cache === false) return false;
  if (typeof cache !== 'string') throw invalidArgType('options.cache', "a boolean or a folder's path", cache);
  checkPath(cache, 'options.cache');
  return cache;
}

function parentOption(parent: unknown): string | undefined {
  if (parent === undefined) return undefined;
  if (parent instanceof Engine) return parent.id;
  if (typeof parent !== 'string')
    throw invalidArgType('options.parent', "an Engine or an engine's id", parent);
  if (!/^[0-9a-f]{64}$/.test(parent)) {
    throw invalidArgValue('options.parent', `must be an engine's id, a SHA-256, not ${describe(parent)}.`);
  }
  return parent;
}

/** A copy: what the caller does with theirs afterwards changes nothing. */
function lineageOption(lineage: unknown): Readonly<Record<string, unknown>> | undefined {
  if (lineage === undefined) return undefined;
  const option = 'options.lineage';
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

/** Native's build, which the signal stops. */
async function buildPlan(
  request: NativeBuildRequest,
  onProgress: BuildOptions['onProgress'],
  signal: AbortSignal | undefined,
): Promise<NativeBuildResult> {
  const build = native().buildPlan(
    request,
    onProgress && ((phase, step, steps) => onProgress({ phase, step, steps })),
  );
  let grace: NodeJS.Timeout | undefined;
  let cancel = () => {};
  const abandoned = new Promise<undefined>((resolve) => {
    cancel = () => {
      build.cancel();
      grace = setTimeout(() => resolve(undefined), cancelGrace);
    };
  });
  const unhear = onAbort(signal, cancel);
  try {
    const result = await Promise.race([build.result, abandoned]);
    signal?.throwIfAborted();
    if (!result) throw new TensorRTError('ERR_BUILD_FAILED', 'The build was stopped.');
    return result;
  } catch (error) {
    // What comes too late would keep the timing cache locked.
    build.result.then(
      (late) => late?.timingCache?.release(),
      () => {},
    );
    throw error;
  } finally {
    clearTimeout(grace);
    unhear();
  }
}

/** TensorRT would say so too, less clearly. */
function checkTypes(inputs: readonly DeclaredInput[]): void {
  const odd = inputs.filter(({ type }) => type !== undefined && !tensorrtTypes.has(type));
  if (odd.length === 0) return;
  const list = odd.map(({ name, type }) => `"${name}" (${type})`).join(', ');
  throw new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `TensorRT does not support the model: it has no equal of the type of the input ${list}.`,
  );
}

export function withTypeName({ name, type, dims }: NativeBuildResult['inputs'][number]): TensorInfo {
  return { name, type: dataTypeFromOnnx(type) ?? null, dims };
}

/** 'sm_89' → 89; undefined for this machine's GPU. */
function parseTargets(target: unknown): number[] | undefined {
  if (target === undefined) return undefined;
  const names = Array.isArray(target) ? target : [target];
  if (names.length === 0) throw invalidArgValue('options.target', 'is an empty list.');
  const numbers = names.map((name, i) => {
    const option = Array.isArray(target) ? `options.target[${i}]` : 'options.target';
    if (typeof name !== 'string') throw invalidArgType(option, "a string such as 'sm_89'", name);
    const number = targetNumber(name);
    if (number === undefined)
      throw invalidArgValue(option, `must be a compute capability such as 'sm_89', not ${describe(name)}.`);
    return number;
  });
  return [...new Set(numbers)];
}

/** 89 for sm_89. */
export function numberOf({ computeCapability: [major, minor] }: NativeGpu): number {
  return major * 10 + minor;
}

function throwNoGpu({ error }: NativeCuda): never {
  throw new TensorRTError(
    'ERR_NO_GPU',
    `There is no GPU here to compile for: ${error} ` +
      "TensorRT-RTX compiles for one elsewhere: name it in options.target, 'sm_89', or a list.",
  );
}

/** A folder for what is written on the way. */
export async function buildDirectory(): Promise<TemporaryDirectory> {
  try {
    return await temporaryDirectory();
  } catch (cause) {
    throw new TensorRTError(
      'ERR_IO',
      `Could not make a folder in ${tmpdir()}: ${(cause as Error).message.replace(/\.$/, '')}. TMPDIR names another.`,
      { cause },
    );
  }
}
