import { Engine } from '../../engine/engine.js';
import { isEngineFile } from '../../engine/engine-file.js';

/**
 * The model in a file, as `InferenceSession.create` accepts it: an engine, or the path of an ONNX file.
 * @throws (rejects) the errors of `Engine.load`
 */
export async function modelSource(file: string): Promise<string | Engine> {
  return isEngineFile(file) ? Engine.load(file) : file;
}
