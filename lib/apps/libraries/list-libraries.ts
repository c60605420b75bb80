import { listTensorRT, type TensorRTLibrary } from '../../system/tensorrt-library.js';
import { type TensorRTPackage, tensorrtPackage } from '../../system/tensorrt-package.js';

/** A TensorRT library on this machine, with the facts about its package. */
export type ListedLibrary = TensorRTLibrary & TensorRTPackage;

/** Every TensorRT library found. Each is opened; the first without an `error` compiles engines. */
export async function listLibraries(): Promise<ListedLibrary[]> {
  const libraries = await listTensorRT();
  return libraries.map((library) => ({ ...library, ...tensorrtPackage(library.path) }));
}
