import type { DeclaredInput } from '../../base/shapes.js';
import { onModelThread, runOnModelThread } from '../../engine/model-thread.js';
import { readModel } from '../../onnx/format/model-file.js';
import { declaredInputs } from '../../onnx/graph/declared-values.js';

/**
 * The inputs of an ONNX file, read on another thread, whose memory is freed when it ends.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO, ERR_OUT_OF_MEMORY
 */
export function modelInputs(model: string): Promise<readonly DeclaredInput[]> {
  return runOnModelThread(__filename, { model }, [], undefined);
}

onModelThread(module, async ({ model }: { model: string }) => declaredInputs(await readModel(model)));
