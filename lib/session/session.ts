import { types } from 'node:util';
import { type Bytes, checkAttached, integer } from '../base/options.js';
import type { Engine } from '../engine/engine.js';
import type { EngineManifest } from '../engine/manifest.js';
import { LoadedSession } from '../execution/loaded-session.js';
import type { Fetches } from '../execution/run-request.js';
import type { Tensor } from '../execution/tensor.js';
import type { NativeLoadedModel } from '../system/native/loaded-model.js';
import type { NativeSession } from '../system/native/session.js';
import type { Placed } from './create-session.js';
import type { SessionOptions, SessionSettings } from './session-options.js';

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
    const source = isPart ? partOf(model, second, byteLength) : model;
    const options = isPart ? fourth : (second as SessionOptions | undefined);
    // Only who creates a session pays for loading what does.
    const { createSession } = await import('./create-session.js');
    return createSession(source, options, (...parts) => new InferenceSession(...parts));
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
