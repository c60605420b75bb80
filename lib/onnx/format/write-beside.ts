import path from 'node:path';
import { TensorRTError } from '../../base/errors.js';
import { makeDirectories, realpath, symlink } from '../../system/files/promises.js';
import { type ExternalDataOptions, externalData, isExternal } from './initializer.js';
import type { ModelProto, TensorProto } from './model.js';
import { writeModel } from './model-file.js';
import { WrittenModel } from './written-model.js';

/**
 * Writes a model into a folder. Its external data isn't copied; symbolic links in the folder point to it.
 *
 * @param options.directory the folder that the locations of external data are relative to. Links in it are followed, as
 *   in a hub's cache
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND if external data is missing, ERR_IO, ERR_MODEL_INVALID
 */
export async function writeBeside(
  model: ModelProto,
  folder: string,
  { directory = '.' }: ExternalDataOptions,
): Promise<WrittenModel> {
  const { graph } = model;
  const file = path.join(folder, 'model.onnx');
  const files = new Map<string, string>();
  for (const tensor of graph.initializer) {
    if (!isExternal(tensor)) continue;
    const named = externalData(tensor, directory)!.path;
    if (!files.has(named)) files.set(named, await realFile(named));
  }
  if (files.size === 0) {
    await writeModel(model, file);
    return new WrittenModel(file, undefined);
  }
  let weights = await realFile(directory);
  for (const real of files.values()) while (!isWithin(real, weights)) weights = path.dirname(weights);
  const relocated = (tensor: TensorProto): TensorProto => {
    if (!isExternal(tensor)) return tensor;
    const value = path.relative(weights, files.get(externalData(tensor, directory)!.path)!);
    const entries = tensor.externalData!.map((entry) =>
      entry.key === 'location' ? { ...entry, value } : entry,
    );
    return { ...tensor, externalData: entries };
  };
  try {
    for (const real of new Set(files.values())) {
      const link = path.join(folder, path.relative(weights, real));
      await makeDirectories(path.dirname(link));
      await symlink(real, link);
    }
  } catch (cause) {
    throw new TensorRTError('ERR_IO', `Could not link to a model's weights: ${(cause as Error).message}`, {
      cause,
    });
  }
  await writeModel({ ...model, graph: { ...graph, initializer: graph.initializer.map(relocated) } }, file);
  return new WrittenModel(file, weights);
}

function isWithin(file: string, folder: string): boolean {
  return file.startsWith(folder.endsWith(path.sep) ? folder : folder + path.sep);
}

async function realFile(file: string): Promise<string> {
  try {
    return await realpath(file);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const isMissing = code === 'ENOENT';
    const problem = isMissing
      ? `There is no file ${file}: the model keeps its weights there, beside its .onnx file.`
      : `Could not find the model's weights: ${message}`;
    throw new TensorRTError(isMissing ? 'ERR_MODEL_NOT_FOUND' : 'ERR_IO', problem, { cause });
  }
}
