import { listTensorRT, type TensorRTLibrary } from '../../system/tensorrt-library.js';
import { type TensorRTPackage, tensorrtPackage } from '../../system/tensorrt-package.js';

/** A TensorRT library of this machine, and what its package says of it. */
export type ListedLibrary = TensorRTLibrary & TensorRTPackage;

/** Every TensorRT library found; the first without an `error` compiles engines. Each is opened. */
export async function listLibraries(): Promise<ListedLibrary[]> {
  const libraries = await listTensorRT();
  return libraries.map((library) => ({ ...library, ...tensorrtPackage(library.path) }));
}
