import type { ExternalDataOptions } from '../onnx/format/initializer.js';
import type { ModelProto } from '../onnx/format/model.js';
import { writeBeside } from '../onnx/format/write-beside.js';
import { temporaryDirectory } from '../system/files/temporary-directory.js';
import { loadOnCpu } from './load-on-cpu.js';
import type { LoadedSession } from './loaded-session.js';

/**
 * Loads a model that is in memory on the CPU, its external data from the folder where it is.
 * @throws (rejects) what `writeBeside` and `loadOnCpu` reject with
 */
export async function loadGraph(
  model: ModelProto,
  { threads, ...options }: ExternalDataOptions & { readonly threads?: number },
): Promise<LoadedSession> {
  const temporary = await temporaryDirectory();
  try {
    const { file, weights } = await writeBeside(model, temporary.path, options);
    return await loadOnCpu({ model: file, weights, threads });
  } finally {
    await temporary.remove();
  }
}
