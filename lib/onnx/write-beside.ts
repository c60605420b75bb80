import { copyFile, link, mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { TensorRTError } from '../errors.js';
import { type ExternalDataOptions, externalData, isExternal } from './initializer.js';
import { type ModelProto, writeModel } from './model.js';

/**
 * Writes a model into a folder where its external data, which lies in another, is found too: ONNX Runtime follows no
 * symbolic link out of the model's folder, so that it is a hard link, or a copy where the folders are on different
 * file systems.
 *
 * @returns the path of the `.onnx` file
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND without its external data, ERR_IO, ERR_MODEL_INVALID
 */
export async function writeBeside(
  model: ModelProto,
  folder: string,
  { directory }: ExternalDataOptions,
): Promise<string> {
  const files = new Set<string>();
  for (const tensor of model.graph.initializer) {
    if (isExternal(tensor)) files.add(externalData(tensor, directory ?? '.')!.path);
  }
  for (const file of files) {
    await linkOrCopy(file, path.join(folder, path.relative(directory ?? '.', file)));
  }
  const file = path.join(folder, 'model.onnx');
  await writeModel(model, file);
  return file;
}

/** @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND where there is no such file, ERR_IO */
export async function linkOrCopy(file: string, target: string): Promise<void> {
  try {
    await mkdir(path.dirname(target), { recursive: true });
    await link(file, target).catch(() => copyFile(file, target));
  } catch (cause) {
    if (await isMissing(file)) {
      const problem = `There is no file ${file}: the model keeps its weights there, beside its .onnx file.`;
      throw new TensorRTError('ERR_MODEL_NOT_FOUND', problem, { cause });
    }
    throw new TensorRTError('ERR_IO', `Could not copy ${file} to ${target}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function isMissing(file: string): Promise<boolean> {
  return stat(file).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
  );
}
