import path from 'node:path';
import { TensorRTError } from '../base/errors.js';
import { type Bytes, checkAttached, readOptions } from '../base/options.js';
import { readModelArgument } from '../engine/build-engine.js';
import { buildEngineOn, maxInlineBytes } from '../engine/build-engine-on.js';
import { Engine, isDescribed } from '../engine/engine.js';
import { loadEngine } from '../engine/load-engine.js';
import type { EngineManifest } from '../engine/manifest.js';
import { placeOnGpu } from '../execution/device.js';
import { loadNative } from '../execution/load-native.js';
import { cpuLoadRequest } from '../execution/load-on-cpu.js';
import { readFile, stat } from '../system/files/promises.js';
import { scratchDirectory } from '../system/files/temporary-directory.js';
import type { NativeLoadedModel } from '../system/native/loaded-model.js';
import type { NativeSession } from '../system/native/session.js';
import { native } from '../system/native.js';
import {
  buildSettings,
  refuseBuildOptions,
  refusedSessionOptions,
  type SessionOptions,
  type SessionSettings,
  sessionOptions,
} from './session-options.js';

/** The place where a session runs, the reason for it, and the types it computes in. */
export interface Placed {
  readonly device: string;
  readonly why: string;
  readonly precision: EngineManifest['precision'] | undefined;
}

/** Makes a session from a loaded model. */
export type MakeSession<Session> = (
  session: NativeSession,
  loaded: NativeLoadedModel,
  settings: SessionSettings,
  placed: Placed,
) => Session;

/** Implements `InferenceSession.create`. `make` constructs the class. */
export async function createSession<Session>(
  given: string | Bytes | Engine,
  options: SessionOptions = {},
  make: MakeSession<Session>,
): Promise<Session> {
  const model =
    given instanceof Engine
      ? given
      : readModelArgument(given, 'a path, a Uint8Array, an ArrayBuffer or an Engine');
  const settings = readOptions(options, 'options', sessionOptions, refusedSessionOptions);
  if (model instanceof Engine) refuseBuildOptions(options);
  const { signal } = settings;
  signal?.throwIfAborted();

  const place = await placeOnGpu(settings.device, signal, async ({ ordinal }) =>
    model instanceof Engine ? model : buildEngineOn(ordinal, model, buildSettings(settings)),
  );
  signal?.throwIfAborted();
  if (place.made) {
    const { made: engine, gpu, why } = place;
    const precision = isDescribed(engine) ? engine.manifest.precision : undefined;
    const { libraryPath, cudaGraph } = settings;
    const deviceOutputs = settings.preferredOutputLocation === 'cuda';
    const request = { engine, gpu, libraryPath, cudaGraph, deviceOutputs };
    try {
      return await loadSession(settings, { why, device: gpu.device, precision }, make, (session) =>
        loadEngine(session, request),
      );
    } finally {
      if (engine !== model) engine.dispose();
    }
  }
  if (model instanceof Engine) {
    const asked = "An engine runs on an NVIDIA GPU, and options.device is 'cpu'.";
    throw place.error ?? new TensorRTError('ERR_NO_GPU', asked);
  }
  // The bytes may have been transferred while a GPU was looked for.
  if (typeof model !== 'string') checkAttached(model.buffer, 'model');
  return createOnCpu(model, settings, place.why, make);
}

async function createOnCpu<Session>(
  model: string | Uint8Array,
  settings: SessionSettings,
  why: string,
  make: MakeSession<Session>,
): Promise<Session> {
  const { signal, threads } = settings;
  const precision = precisionOnCpu(settings);
  const load = (source: string | Uint8Array, weights: string | undefined) =>
    loadSession(settings, { why, device: 'cpu', precision }, make, async (session) =>
      session.load(cpuLoadRequest({ model: source, weights, threads })),
    );
  try {
    const graph = typeof model === 'string' ? await smallGraph(model) : undefined;
    // Only a graph that contains this word has external data.
    if (graph?.includes('location')) {
      const { refuseFailedDownloads } = await import('../engine/check-model.js');
      refuseFailedDownloads(graph, path.dirname(model as string));
    }
    return precision === 'as-exported'
      ? await load(model, undefined)
      : await castForCpu(model, precision, settings, load);
  } catch (error) {
    const isInvalid = error instanceof TensorRTError && error.code === 'ERR_MODEL_INVALID';
    if (!isInvalid || signal?.aborted) throw error;
    const { checkModel } = await import('../engine/check-model.js');
    await checkModel(model, signal);
    throw error;
  }
}

async function loadSession<Session>(
  settings: SessionSettings,
  placed: Placed,
  make: MakeSession<Session>,
  load: (session: NativeSession) => Promise<NativeLoadedModel | undefined>,
): Promise<Session> {
  const { concurrency, maxQueue, signal } = settings;
  const session = new (native().NativeSession)({ concurrency, maxQueue });
  return loadNative(session, signal, load, (loaded) => make(session, loaded, settings, placed));
}

/** FP32 needs no cast: the CPU already runs such a model in FP32. */
function precisionOnCpu({ precision }: SessionSettings): 'as-exported' | 'fp16' | 'bf16' {
  return precision === 'fp16' || precision === 'bf16' ? precision : 'as-exported';
}

/**
 * The bytes of an ONNX file, if it is so small that a failed download could stand in for its external data. Undefined
 * for a larger file and for one that can't be read.
 */
async function smallGraph(file: string): Promise<Buffer | undefined> {
  try {
    return (await stat(file)).size < 2 ** 20 ? await readFile(file) : undefined;
  } catch {
    return undefined;
  }
}

/** Casts a model as for a GPU, and loads the result on the CPU. */
async function castForCpu<Session>(
  model: string | Uint8Array,
  precision: 'fp16' | 'bf16',
  { keepFp32, calibration, signal }: SessionSettings,
  load: (model: string, weights: string | undefined) => Promise<Session>,
): Promise<Session> {
  const { prepareModel } = await import('../engine/prepare-model.js');
  const directory = await scratchDirectory();
  const samples = calibration?.samples;
  const request = {
    model,
    precision,
    calibration: samples,
    keepFp32,
    directory: directory.path,
    maxInlineBytes,
  };
  try {
    const { file, weights } = await prepareModel({ ...request, runtime: 'onnxruntime' }, signal);
    return await load(file, weights).catch((error) => {
      if (precision !== 'bf16' || !(error instanceof TensorRTError) || signal?.aborted) throw error;
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `ONNX Runtime can't run the model in BF16 on the CPU: ${error.message} Use options.precision 'fp16' or 'fp32' there.`,
        { cause: error },
      );
    });
  } finally {
    await directory.remove();
  }
}
