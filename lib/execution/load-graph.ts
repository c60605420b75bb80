import type { ExternalDataOptions } from '../onnx/format/initializer.js';
import type { ModelProto } from '../onnx/format/model.js';
import { writeBeside } from '../onnx/format/write-beside.js';
import { temporaryDirectory } from '../system/files/temporary-directory.js';
import { loadOnCpu } from './load-on-cpu.js';
import type { LoadedSession } from './loaded-session.js';

/**
 * Loads a model in memory onto the CPU, with external data from its folder.
 * @throws (rejects) the errors of `writeBeside` and `loadOnCpu`
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
