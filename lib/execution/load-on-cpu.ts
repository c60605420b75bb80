import type { NativeLoadRequest } from '../system/native/loaded-model.js';
import { native } from '../system/native.js';
import { findOnnxRuntime } from '../system/onnxruntime-library.js';
import { loadNative } from './load-native.js';
import { LoadedSession } from './loaded-session.js';

/** A model for ONNX Runtime to load on the CPU. */
export interface CpuModel {
  /** The ONNX file, or the bytes of one. */
  readonly model: string | Uint8Array;
  /** The folder relative to which external data is found; undefined: the model's own. */
  readonly weights?: string | undefined;
  /** Threads one run may use; 0 for one per physical core. */
  readonly threads?: number;
}

/**
 * The request that native needs to load a model on the CPU.
 * @throws TensorRTError ERR_LIBRARY_NOT_FOUND
 */
export function cpuLoadRequest({ model, weights, threads = 0 }: CpuModel): NativeLoadRequest {
  return { library: findOnnxRuntime(), model, weights, threads };
}

/**
 * Loads a model on the CPU for this package's own use, where runs follow one another.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_LIBRARY_NOT_FOUND,
 *   ERR_OUT_OF_MEMORY
 */
export function loadOnCpu(model: CpuModel): Promise<LoadedSession> {
  const session = new (native().NativeSession)({ concurrency: 1, maxQueue: 1024 });
  return loadNative(
    session,
    undefined,
    () => session.load(cpuLoadRequest(model)),
    (loaded) => new LoadedSession(session, loaded, { device: 'cpu', concurrency: 1, profiles: [] }),
  );
}
