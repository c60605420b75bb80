import { invalidArgType } from '../base/errors.js';
import { type Bytes, bytesOf, checkPath } from '../base/options.js';
import type { BuildOptions } from './build-options.js';
import type { Engine } from './engine.js';

// Importing the package doesn't load the code that builds. The first call loads it without waiting, so that
// arguments are read before the call returns.
const reading = () => require('./build-options.js') as typeof import('./build-options.js');
const building = () => require('./build-engine-on.js') as typeof import('./build-engine-on.js');

/**
 * Compiles an ONNX model into a TensorRT engine, or takes the engine from the cache. All work is done on threads of its
 * own. With `options.target`, TensorRT-RTX needs no GPU.
 *
 * @param model the path of an ONNX file, whose external data lies beside it, or the bytes of one
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED (names the node and the
 *   reason), ERR_BUILD_FAILED, ERR_NO_GPU, ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED, ERR_OUT_OF_MEMORY, ERR_IO;
 *   TypeError or RangeError for bad arguments; the signal's reason
 * @example
 * ```js
 * import { buildEngine } from 'node-tensorrt';
 *
 * const engine = await buildEngine('model.onnx', {
 *   target: ['sm_86', 'sm_89'],
 *   shapes: { x: { min: [1, 3, 224, 224], opt: [8, 3, 224, 224], max: [16, 3, 224, 224] } },
 * });
 * await engine.save('model.engine');
 * ```
 */
export async function buildEngine(model: string | Bytes, options?: BuildOptions): Promise<Engine> {
  const source = readModelArgument(model, 'a path, a Uint8Array or an ArrayBuffer');
  return building().buildEngineOn(undefined, source, reading().readBuildOptions(options));
}

/**
 * Reads the argument `model`: a path, or the bytes of a model.
 * @param expected the kinds of value that are accepted, for the error's text
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function readModelArgument(model: unknown, expected: string): string | Uint8Array {
  const source = typeof model === 'string' ? model : bytesOf(model, 'model');
  if (source === undefined) throw invalidArgType('model', expected, model);
  if (typeof source === 'string') checkPath(source, 'model');
  return source;
}
