import path from 'node:path';
import { types } from 'node:util';
import { TensorRTError } from '../base/errors.js';
import { type Bytes, checkAttached, integer, readOptions } from '../base/options.js';
import { buildDirectory, buildEngineOn, maxInlineBytes, readModelArgument } from '../engine/build-engine.js';
import { Engine, isDescribed } from '../engine/engine.js';
import { loadEngine } from '../engine/load-engine.js';
import type { EngineManifest } from '../engine/manifest.js';
import { placeOnGpu } from '../execution/device.js';
import { loadNative } from '../execution/load-native.js';
import { cpuLoadRequest, LoadedSession } from '../execution/loaded-session.js';
import type { Fetches } from '../execution/run-request.js';
import type { Tensor } from '../execution/tensor.js';
import { readFile, stat } from '../system/files/promises.js';
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

/**
 * Runs a model on native threads of its own; the event loop is never blocked. Named as onnxruntime-common's. By default
 * the same call computes in FP16 on a GPU, and on the CPU in the types that the model was exported with: `precision`
 * says which it became.
 */
export class InferenceSession extends LoadedSession {
  /** Why that device was chosen. */
  readonly why: string;
  /**
   * What runs compute in, which `options.precision` decides: on a GPU what the engine was compiled with, 'fp16' by
   * default; on the CPU 'as-exported' by default. undefined for a bare plan, which doesn't say.
   */
  readonly precision: EngineManifest['precision'] | undefined;

  private constructor(
    session: NativeSession,
    loaded: NativeLoadedModel,
    { concurrency, shapes: profiles }: SessionSettings,
    { device, why, precision }: Placed,
  ) {
    super(session, loaded, { device, concurrency, profiles });
    this.why = why;
    this.precision = precision;
  }

  /**
   * Loads an ONNX model from a file, whose external data lies beside it, or from its bytes, which are copied; for a
   * GPU, {@link buildEngine} compiles it first, in FP16 unless `options.precision` says otherwise. Or loads an Engine.
   * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_LIBRARY_NOT_FOUND;
   *   ERR_NO_GPU where an Engine, or options.device, needs one; ERR_ENGINE_INCOMPATIBLE for an Engine of another GPU or
   *   version; ERR_OUT_OF_MEMORY; what buildEngine throws; TypeError or RangeError for bad arguments; the signal's reason
   */
  static async create(model: string | Bytes | Engine, options?: SessionOptions): Promise<InferenceSession>;
  /** Loads an ONNX model from a part of a buffer. */
  static async create(
    buffer: ArrayBufferLike,
    byteOffset: number,
    byteLength?: number,
    options?: SessionOptions,
  ): Promise<InferenceSession>;
  static async create(
    model: string | Bytes | Engine,
    second?: SessionOptions | number,
    byteLength?: number,
    fourth?: SessionOptions,
  ): Promise<InferenceSession> {
    const isPart = types.isAnyArrayBuffer(model) && (typeof second === 'number' || fourth !== undefined);
    if (isPart) return InferenceSession.#create(partOf(model, second, byteLength), fourth);
    return InferenceSession.#create(model, second as SessionOptions | undefined);
  }

  static async #create(
    given: string | Bytes | Engine,
    options: SessionOptions = {},
  ): Promise<InferenceSession> {
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
        return await InferenceSession.#load(settings, { why, device: gpu.device, precision }, (session) =>
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
    // They may have been transferred while a GPU was looked for.
    if (typeof model !== 'string') checkAttached(model.buffer, 'model');
    return InferenceSession.#createOnCpu(model, settings, place.why);
  }

  static async #createOnCpu(
    model: string | Uint8Array,
    settings: SessionSettings,
    why: string,
  ): Promise<InferenceSession> {
    const { signal, threads } = settings;
    const precision = precisionOnCpu(settings);
    const load = (source: string | Uint8Array, weights: string | undefined) =>
      InferenceSession.#load(settings, { why, device: 'cpu', precision }, async (session) =>
        session.load(cpuLoadRequest({ model: source, weights, threads })),
      );
    try {
      const graph = typeof model === 'string' ? await smallGraph(model) : undefined;
      // Only a graph that names other files has any.
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

  static async #load(
    settings: SessionSettings,
    placed: Placed,
    load: (session: NativeSession) => Promise<NativeLoadedModel | undefined>,
  ): Promise<InferenceSession> {
    const { concurrency, maxQueue, signal } = settings;
    const session = new (native().NativeSession)({ concurrency, maxQueue });
    return loadNative(
      session,
      signal,
      load,
      (loaded) => new InferenceSession(session, loaded, settings, placed),
    );
  }
}

interface Placed {
  readonly device: string;
  readonly why: string;
  readonly precision: EngineManifest['precision'] | undefined;
}

/** FP32 is what the CPU runs a model in that has it: nothing is cast. */
function precisionOnCpu({ precision }: SessionSettings): 'as-exported' | 'fp16' | 'bf16' {
  return precision === 'fp16' || precision === 'bf16' ? precision : 'as-exported';
}

/**
 * The bytes of an ONNX file that is small enough to have so few weights in other files as a failed download leaves instead
 * of them. undefined for a larger one, and for one that can't be read.
 */
async function smallGraph(file: string): Promise<Buffer | undefined> {
  try {
    return (await stat(file)).size < 2 ** 20 ? await readFile(file) : undefined;
  } catch {
    return undefined;
  }
}

/** Casts a model as it would be for a GPU, and loads what it became. */
async function castForCpu(
  model: string | Uint8Array,
  precision: 'fp16' | 'bf16',
  { keepFp32, calibration, signal }: SessionSettings,
  load: (model: string, weights: string | undefined) => Promise<InferenceSession>,
): Promise<InferenceSession> {
  const { prepareModel } = await import('../engine/prepare-model.js');
  const directory = await buildDirectory();
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

/** The bytes of a part of a buffer, within its ends. */
function partOf(buffer: ArrayBufferLike, byteOffset: unknown, byteLength: unknown): Uint8Array {
  checkAttached(buffer, 'buffer');
  const begin = integer(0, 0, buffer.byteLength)(byteOffset, 'byteOffset');
  const rest = buffer.byteLength - begin;
  return new Uint8Array(buffer, begin, integer(rest, 0, rest)(byteLength, 'byteLength'));
}

/** onnxruntime-common's names of types. */
export declare namespace InferenceSession {
  type SessionOptions = import('./session-options.js').SessionOptions;
  type RunOptions = import('../execution/loaded-session.js').RunOptions;
  type ValueMetadata = import('../execution/model-metadata.js').ValueMetadata;
  type TensorValueMetadata = import('../execution/model-metadata.js').TensorValueMetadata;
  type NonTensorValueMetadata = import('../execution/model-metadata.js').NonTensorValueMetadata;
  type OnnxValueMapType = Readonly<Record<string, Tensor>>;
  type NullableOnnxValueMapType = Readonly<Record<string, Tensor | null>>;
  type FeedsType = OnnxValueMapType;
  type FetchesType = Fetches;
  type ReturnType = OnnxValueMapType;
}
