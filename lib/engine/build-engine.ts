import { invalidArgType } from '../base/errors.js';
import { type Bytes, bytesOf, checkPath } from '../base/options.js';
import type { BuildOptions } from './build-options.js';
import type { Engine } from './engine.js';

/**
 * Compiles an ONNX model, a file with its external data beside it or the bytes of one, into a TensorRT engine, or takes
 * it from the cache. All work is done on threads of its own. With `target`, no GPU is needed.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED (names the node and
 *   the reason), ERR_BUILD_FAILED, ERR_NO_GPU, ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED, ERR_OUT_OF_MEMORY,
 *   ERR_IO; TypeError or RangeError for bad arguments; the signal's reason
 */
export async function buildEngine(model: string | Bytes, options?: BuildOptions): Promise<Engine> {
  const source = readModelArgument(model, 'a path, a Uint8Array or an ArrayBuffer');
  // Only who builds pays for loading what builds.
  const { readBuildOptions } = await import('./build-options.js');
  const { buildEngineOn } = await import('./build-engine-on.js');
  return buildEngineOn(undefined, source, readBuildOptions(options));
}

/** A model as it was given: a path, or its bytes. */
export function readModelArgument(model: unknown, expected: string): string | Uint8Array {
  const source = typeof model === 'string' ? model : bytesOf(model, 'model');
  if (source === undefined) throw invalidArgType('model', expected, model);
  if (typeof source === 'string') checkPath(source, 'model');
  return source;
}
