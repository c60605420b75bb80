import { Engine } from '../../engine/engine.js';
import { isEngineFile } from '../../engine/engine-file.js';

/**
 * Returns the argument of `InferenceSession.create` for a model's file: the engine that the file holds, or the path of
 * an ONNX file.
 * @throws (rejects) the errors of `Engine.load`
 */
export async function modelSource(file: string): Promise<string | Engine> {
  return isEngineFile(file) ? Engine.load(file) : file;
}
