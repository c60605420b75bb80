import { Engine } from '../../engine/engine.js';
import { isEngineFile } from '../../engine/engine-file.js';

/**
 * What `InferenceSession.create` takes for a model's file: the engine that it holds, or the path of an ONNX file.
 * @throws (rejects) what `Engine.load` rejects with
 */
export async function modelSource(file: string): Promise<string | Engine> {
  return isEngineFile(file) ? Engine.load(file) : file;
}
