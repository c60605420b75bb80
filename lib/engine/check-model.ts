import path from 'node:path';
import { TensorRTError } from '../base/errors.js';
import { checkExternalData, externalLocations } from '../onnx/format/initializer.js';
import { parseModel, readModel } from '../onnx/format/model-file.js';
import { sizeOfWeights } from '../system/files/file-range.js';
import { copyForThread, onModelThread, runOnModelThread } from './model-thread.js';

/**
 * Finds the reason why ONNX Runtime could not load a model. Its own messages say little about a damaged file, and call
 * missing weights an invalid model. Resolves if nothing is found.
 * @throws (rejects) TensorRTError ERR_MODEL_INVALID, ERR_MODEL_NOT_FOUND, ERR_IO, ERR_OUT_OF_MEMORY; the signal's
 *   reason
 */
export async function checkModel(model: string | Uint8Array, signal: AbortSignal | undefined): Promise<void> {
  if (typeof model === 'string') return runOnModelThread(__filename, { model }, [], signal);
  const bytes = copyForThread(model);
  return runOnModelThread(__filename, { model: bytes }, [bytes.buffer], signal);
}

/**
 * Refuses external data that a failed download left, such as a web page or a Git LFS pointer. If the model has few
 * enough weights, ONNX Runtime would read that text as weights. {@link checkModel} finds other problems.
 * @param graph the bytes of the ONNX file, in `directory`
 * @throws TensorRTError ERR_MODEL_INVALID
 */
export function refuseFailedDownloads(graph: Uint8Array, directory: string): void {
  let locations: string[];
  try {
    locations = externalLocations(parseModel(graph), directory);
  } catch {
    return;
  }
  for (const location of locations) {
    try {
      sizeOfWeights(path.join(directory, location), 'weights');
    } catch (error) {
      if ((error as TensorRTError).code === 'ERR_MODEL_INVALID') throw error;
    }
  }
}

async function check({ model }: { model: string | Uint8Array }): Promise<void> {
  if (typeof model !== 'string') return checkExternalData(parseModel(model), {});
  const parsed = await readModel(model);
  try {
    checkExternalData(parsed, { directory: path.dirname(model) });
  } catch (error) {
    if (!(error instanceof TensorRTError) || error.code !== 'ERR_MODEL_INVALID') throw error;
    throw new TensorRTError('ERR_MODEL_INVALID', `${model}: ${error.message}`);
  }
}

onModelThread(module, check);
