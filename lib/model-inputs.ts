import { type DataType, dataTypeFromOnnx } from './data-type.js';
import { onModelThread, runOnModelThread } from './model-thread.js';
import { type ModelProto, readModel } from './onnx/model.js';
import type { DeclaredInput } from './shapes.js';

/**
 * The inputs of an ONNX file, read on a thread of its own, which takes the file's memory with it.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO, ERR_OUT_OF_MEMORY
 */
export function modelInputs(model: string): Promise<readonly DeclaredInput[]> {
  return runOnModelThread(__filename, { model }, [], undefined);
}

/** A model's inputs, as far as they are not weights. */
export function declaredInputs(model: ModelProto): DeclaredInput[] {
  const weights = new Set(model.graph.initializer.map((tensor) => tensor.name));
  return model.graph.input
    .filter(({ name }) => !weights.has(name))
    .map(({ name, type }) => {
      const elemType = type?.tensorType?.elemType;
      const dataType: DataType | undefined = elemType === undefined ? undefined : dataTypeFromOnnx(elemType);
      const shape = type?.tensorType?.shape?.dim.map((dim) => dim.dimValue ?? dim.dimParam ?? '') ?? [];
      return { name, type: dataType, shape };
    });
}

onModelThread(module, async ({ model }: { model: string }) => declaredInputs(await readModel(model)));
