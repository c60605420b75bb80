import path from 'node:path';
import { createHash } from '../base/crypto.js';
import type { DataType } from '../base/data-type.js';
import { TensorRTError } from '../base/errors.js';
import { onAbort } from '../base/options.js';
import { checkProfiles, completeProfiles, type DeclaredInput } from '../base/shapes.js';
import { version as builder } from '../base/version.js';
import type { MaskSetContents } from '../masks/mask-set-contents.js';
import type { SparseMask } from '../masks/sparse-mask.js';
import { writeAtomically } from '../system/files/atomic-file.js';
import { scratchDirectory } from '../system/files/temporary-directory.js';
import { numberOf } from '../system/gpu.js';
import type { NativeCuda } from '../system/native/cuda.js';
import type { NativeBuildRequest, NativeBuildResult } from '../system/native/plan-builder.js';
import type { NativeTensorRT } from '../system/native/tensorrt.js';
import { native } from '../system/native.js';
import { hasOnnxRuntime } from '../system/onnxruntime-library.js';
import { type BuildOptions, type BuildSettings, compilerOptions, recordedOptions } from './build-options.js';
import { Engine } from './engine.js';
import { type EngineManifest, type MaskRecord, type Provenance, tensorInfo } from './manifest.js';
import type { ModelDigest } from './model-digest.js';
import type { DecoderLowering } from './prepare-model.js';

/** The element types that TensorRT also has (NvInfer.h, DataType). */
const tensorrtTypes: ReadonlySet<DataType> = new Set<DataType>([
  ...(['float32', 'float16', 'bfloat16', 'int8', 'uint8', 'int32', 'int64', 'bool'] as const),
]);

/**
 * How long to wait for a build that was aborted, in milliseconds. TensorRT stops after its current step, which may take
 * seconds. After this time the build continues on its thread, and its result is discarded.
 */
const cancelGrace = 1000;

/** Weights larger than this in total, in bytes, are written beside the ONNX file, whose limit is 2 GiB. */
export const maxInlineBytes = 1.5 * 2 ** 30;

/**
 * Does what `buildEngine` does, on the GPU that CUDA numbers `ordinal`. If that is undefined, takes the first GPU that
 * matches the first of `options.target`, or else GPU 0.
 */
export async function buildEngineOn(
  ordinal: number | undefined,
  model: string | Uint8Array,
  settings: BuildSettings,
  /** The model's decoder description, if it is a decoder to be lowered: see `buildDecoder`. */
  decoder?: Omit<DecoderLowering, 'attention'>,
): Promise<Engine> {
  const { onProgress, signal, masks } = settings;
  signal?.throwIfAborted();
  if (masks) return buildMasked(ordinal, model, { ...settings, masks }, decoder);

  // Loaded here, so that a program that doesn't build doesn't load it.
  const { findTensorRT } = await import('../system/tensorrt-library.js');
  const { libraryPath, runtime, target } = settings;
  const cuda = await native().probeCuda();
  const named = cuda.gpus.findIndex((gpu) => numberOf(gpu) === target?.[0]);
  const device = ordinal ?? Math.max(named, 0);
  const gpu = cuda.gpus[device];
  const here = gpu && numberOf(gpu);
  const targets = target ?? [here ?? throwNoGpu(cuda)];
  // A plan built ahead of time isn't tuned for a particular machine.
  const tunedFor = (library: NativeTensorRT) =>
    gpu && !(target && library.capabilities.aheadOfTime) ? { device, name: gpu.name } : undefined;
  const wanted = { libraryPath, runtime, targets, gpu: here };
  if (settings.cache === false) {
    const library = await findTensorRT(wanted);
    return compile(model, settings, library, targets, tunedFor(library)?.device, undefined, decoder);
  }

  const { EngineCache } = await import('./engine-cache.js');
  const { LibraryMemo } = await import('../system/tensorrt-library-memo.js');
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
    // If it were cached under this key, another model's engine would be taken for this model's.
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
 * Prunes the model, then builds the result. The same model and masks always give the same file, so the engine cache finds
 * an earlier build.
 */
async function buildMasked(
  ordinal: number | undefined,
  model: string | Uint8Array,
  { masks, ...settings }: BuildSettings & { masks: MaskSetContents },
  decoder: Omit<DecoderLowering, 'attention'> | undefined,
): Promise<Engine> {
  const { onProgress, signal } = settings;
  const { writePruned } = await import('../masks/write-pruned.js');
  const directory = await scratchDirectory();
  const [given, pruned] = ['given.onnx', 'model.onnx'].map((name) => path.join(directory.path, name));
  try {
    onProgress?.({ phase: 'Masking weights', step: 0, steps: 1 });
    if (typeof model !== 'string') await writeAtomically(given!, [model], 'model');
    const source = typeof model === 'string' ? model : given!;
    const sha256 = await writePruned(source, masks, pruned!, { signal });
    onProgress?.({ phase: 'Masking weights', step: 1, steps: 1 });
    const engine = await buildEngineOn(ordinal, pruned!, { ...settings, masks: undefined }, decoder);
    const record = {
      model: sha256,
      weights: [...masks.entries].map(([name, { mask }]) => maskRecord(name, mask)),
    };
    return engine.withProvenance({ ...provenance(model, settings), masks: record });
  } catch (error) {
    if (error instanceof Error)
      error.message = error.message.replaceAll(pruned!, nameOf(model)).replaceAll(given!, nameOf(model));
    throw error;
  } finally {
    await directory.remove();
  }
}

const nameOf = (model: string | Uint8Array) => (typeof model === 'string' ? model : 'given as bytes');

function maskRecord(weight: string, mask: SparseMask): MaskRecord['weights'][number] {
  const sha256 = createHash('sha256').update(mask.bits()).digest('hex');
  return { weight, size: mask.size, kept: mask.kept, sha256 };
}

/**
 * The cache key: a hash of everything that decides the plan. Profiles count as given, since the missing parts follow
 * from the model. Options that only appear in the manifest don't count: see {@link Engine.withProvenance}.
 */
function cacheKey({
  digest,
  settings,
  library: { flavour, version },
  targets,
  gpu,
  decoder,
}: {
  digest: ModelDigest;
  settings: BuildSettings;
  library: NativeTensorRT;
  targets: readonly number[];
  /** The name of this machine's GPU if the plan is tuned for it. */
  gpu: string | undefined;
  decoder: Omit<DecoderLowering, 'attention'> | undefined;
}): string {
  const { precision, shapes: profiles } = settings;
  // Without ONNX Runtime, the weights alone decide about FP16.
  const measured = precision === 'fp16' ? hasOnnxRuntime() : undefined;
  const options = { precision, profiles, measured, recorded: recordedOptions(settings) };
  const parts = { builder, flavour, version, targets, gpu, options, digest, decoder };
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

function provenance(
  model: string | Uint8Array,
  { parent, lineage }: Pick<BuildSettings, 'parent' | 'lineage'>,
): Provenance {
  return { name: typeof model === 'string' ? path.basename(model) : undefined, parent, lineage };
}

/** Builds an engine without asking the cache. */
async function compile(
  model: string | Uint8Array,
  settings: BuildSettings,
  library: NativeTensorRT,
  targets: readonly number[],
  /** CUDA's number of the GPU that the plan is tuned for. */
  device: number | undefined,
  /** The file that remembers the hashes of models. */
  memo: string | undefined,
  decoder: Omit<DecoderLowering, 'attention'> | undefined,
): Promise<Engine> {
  const { onProgress, signal, precision, calibration, keepFp32 } = settings;
  signal?.throwIfAborted();
  const { prepareModel } = await import('./prepare-model.js');
  const directory = await scratchDirectory();
  try {
    onProgress?.({ phase: 'Preparing model', step: 0, steps: 1 });
    const prepared = await prepareModel(
      {
        model,
        precision: precision === 'fp16' || precision === 'bf16' ? precision : undefined,
        calibration: calibration?.samples,
        keepFp32,
        sparsity: settings.sparsity === 'auto',
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
    checkProfiles(settings.shapes, prepared.inputs);
    const profiles = completeProfiles(settings.shapes, prepared.inputs);
    signal?.throwIfAborted();

    const result = await buildPlan(
      {
        library: library.path,
        model: prepared.file,
        modelPath: prepared.modelPath,
        profiles,
        // Left empty to build for this machine's GPU, about which TensorRT asks more than its compute capability.
        computeCapabilities: settings.target ?? [],
        ...(device === undefined ? {} : { device }),
        ...compilerOptions(settings),
        detailed: decoder?.detailed === true,
      },
      onProgress,
      signal,
    ).catch((error) => {
      if (typeof model === 'string' || !(error instanceof TensorRTError)) throw error;
      // The file is temporary, and gone by the time the caller reads this.
      const message = error.message.replaceAll(prepared.modelPath, 'given as bytes');
      throw new TensorRTError(error.code, message, { cause: error });
    });

    const { timingCache } = settings;
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
      ...(prepared.madeWeights ? { weights: prepared.madeWeights } : {}),
      ...(prepared.sparse
        ? { sparsity: { eligible: prepared.sparse, chosen: chosenBy(library, result) } }
        : {}),
      profiles,
      ...(prepared.decoder ? { decoder: prepared.decoder } : {}),
      model: { name, sha256, weightsSha256, producer },
      ...line,
      options: recordedOptions(settings),
      created: new Date().toISOString(),
      warnings: result.warnings,
      inputs: result.inputs.map(tensorInfo),
      outputs: result.outputs.map(tensorInfo),
    };
    const layers = result.layers.map((layer) => ({ ...layer, outputs: layer.outputs.map(tensorInfo) }));
    return Engine.assemble(manifest, layers, result.plan);
  } finally {
    await directory.remove();
  }
}

/**
 * Reads how many layers use a sparse kernel in TensorRT's log: "(Sparsity) Chose 12 layer(s) using sparse tactics", once in
 * a build. TensorRT-RTX chooses when it loads a plan.
 */
function chosenBy({ flavour }: NativeTensorRT, { sparsity }: NativeBuildResult): number | 'unknown' {
  const [, count] = sparsity.map((line) => /\bChose (\d+) layer/.exec(line)).find((found) => found) ?? [];
  return flavour === 'rtx' || count === undefined ? 'unknown' : Number(count);
}

/**
 * The form of attention over a KV cache that a library supports.
 * @throws TensorRTError ERR_LIBRARY_UNSUPPORTED if there is none
 */
function attentionOf({ version, capabilities }: NativeTensorRT): DecoderLowering['attention'] {
  if (!capabilities.kvCache) {
    throw new TensorRTError(
      'ERR_LIBRARY_UNSUPPORTED',
      `TensorRT ${version} has no KV cache: use 10.15 or later, or TensorRT-RTX.`,
    );
  }
  return capabilities.keyValueLengths ? 'lengths' : 'mask';
}

/** Runs native's build, which the signal can stop. */
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
  const ignore = onAbort(signal, cancel);
  try {
    const result = await Promise.race([build.result, abandoned]);
    signal?.throwIfAborted();
    if (!result) throw new TensorRTError('ERR_BUILD_FAILED', 'The build was stopped.');
    return result;
  } catch (error) {
    // A result that arrives too late must be released, or it would keep the timing cache locked.
    build.result.then(
      (late) => late?.timingCache?.release(),
      () => {},
    );
    throw error;
  } finally {
    clearTimeout(grace);
    ignore();
  }
}

/** TensorRT would also refuse these, with a less clear message. */
function checkTypes(inputs: readonly DeclaredInput[]): void {
  const odd = inputs.filter(({ type }) => type !== undefined && !tensorrtTypes.has(type));
  if (odd.length === 0) return;
  const list = odd.map(({ name, type }) => `"${name}" (${type})`).join(', ');
  throw new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `TensorRT does not support the model: it has no counterpart for the type of the input ${list}.`,
  );
}

function throwNoGpu({ error }: NativeCuda): never {
  throw new TensorRTError(
    'ERR_NO_GPU',
    `There is no GPU here to compile for: ${error} ` +
      "TensorRT-RTX can compile for other GPUs: name them in options.target, e.g. 'sm_89'.",
  );
}
