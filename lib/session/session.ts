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

// Importing the package doesn't load the code that creates sessions. The first call loads it without waiting, so that
// arguments are read before the call returns.
const creating = () => require('./create-session.js') as typeof import('./create-session.js');

/**
 * A model that is ready to run. Runs execute on native threads, so the event loop is never blocked. The interface is
 * onnxruntime-common's, with more options. By default the same call computes in FP16 on a GPU and in the model's own
 * types on the CPU; `session.precision` tells which.
 *
 * @example
 * ```js
 * import { InferenceSession, Tensor } from 'node-tensorrt';
 *
 * const session = await InferenceSession.create('model.onnx');
 * const x = new Tensor('float32', new Float32Array(2 * 3 * 224 * 224), [2, 3, 224, 224]);
 * const { y } = await session.run({ x });
 * console.log(y.dims, y.data);
 * await session.dispose();
 * ```
 */
export class InferenceSession extends LoadedSession {
  /** Why the session runs on that device, as a sentence. */
  readonly why: string;
  /**
   * The types that runs compute in: on a GPU those that the engine was compiled with, on the CPU those of
   * `options.precision`. undefined for a bare plan, which doesn't tell.
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
   * Loads a model: an ONNX file, whose external data lies beside it; the bytes of one, which are copied; or an
   * {@link Engine}. For a GPU an ONNX model is compiled first, as {@link buildEngine} does it, in FP16 unless
   * `options.precision` says otherwise.
   *
   * @param model a path, the bytes of an ONNX file, or an Engine
   * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED,
   *   ERR_LIBRARY_NOT_FOUND, ERR_OUT_OF_MEMORY; ERR_NO_GPU if an Engine or `options.device` needs a GPU that isn't there;
   *   ERR_ENGINE_INCOMPATIBLE for an Engine of another GPU or version; the errors of `buildEngine`; TypeError or
   *   RangeError for bad arguments; the signal's reason
   */
  static async create(model: string | Bytes | Engine, options?: SessionOptions): Promise<InferenceSession>;
  /** Loads an ONNX model from a part of a buffer: `byteLength` bytes from `byteOffset` on. */
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
    return creating().createSession(source, options, (...parts) => new InferenceSession(...parts));
  }
}

/** A view of a part of a buffer. @throws RangeError ERR_INVALID_ARG_VALUE beyond its ends */
function partOf(buffer: ArrayBufferLike, byteOffset: unknown, byteLength: unknown): Uint8Array {
  checkAttached(buffer, 'buffer');
  const begin = integer(0, 0, buffer.byteLength)(byteOffset, 'byteOffset');
  const rest = buffer.byteLength - begin;
  return new Uint8Array(buffer, begin, integer(rest, 0, rest)(byteLength, 'byteLength'));
}

/** Types by the names that onnxruntime-common gives them. */
export declare namespace InferenceSession {
  /** @see {@link index.SessionOptions} */
  type SessionOptions = import('./session-options.js').SessionOptions;
  /** @see {@link index.RunOptions} */
  type RunOptions = import('../execution/loaded-session.js').RunOptions;
  /** @see {@link index.ValueMetadata} */
  type ValueMetadata = import('../execution/model-metadata.js').ValueMetadata;
  /** @see {@link index.TensorValueMetadata} */
  type TensorValueMetadata = import('../execution/model-metadata.js').TensorValueMetadata;
  /** @see {@link index.NonTensorValueMetadata} */
  type NonTensorValueMetadata = import('../execution/model-metadata.js').NonTensorValueMetadata;
  /** Tensors by name. */
  type OnnxValueMapType = Readonly<Record<string, Tensor>>;
  /** Tensors by name; null stands for a new one. */
  type NullableOnnxValueMapType = Readonly<Record<string, Tensor | null>>;
  /** The tensors to feed, by input name. */
  type FeedsType = OnnxValueMapType;
  /** The outputs to compute. */
  type FetchesType = Fetches;
  /** The outputs of a run, by name. */
  type ReturnType = OnnxValueMapType;
}
