import { existsSync } from 'node:fs';
import path from 'node:path';
import { TensorRTError } from '../base/errors.js';
import { requireFromWorkingDirectory } from './files/working-directory.js';

/** True if {@link findOnnxRuntime} finds the library. */
export function hasOnnxRuntime(): boolean {
  try {
    findOnnxRuntime();
    return true;
  } catch {
    return false;
  }
}

/**
 * The path of ONNX Runtime's shared library, which runs models on the CPU: `NODE_TENSORRT_ONNXRUNTIME` (a file),
 * else the one inside the `onnxruntime-node` package, found from this package and then from the working directory.
 * @throws TensorRTError ERR_LIBRARY_NOT_FOUND
 */
export function findOnnxRuntime(): string {
  const named = process.env.NODE_TENSORRT_ONNXRUNTIME;
  if (named) {
    if (existsSync(named)) return named;
    throw new TensorRTError(
      'ERR_LIBRARY_NOT_FOUND',
      `NODE_TENSORRT_ONNXRUNTIME names ${named}, which does not exist.`,
    );
  }
  for (const load of [require, requireFromWorkingDirectory()]) {
    let manifest: string | undefined;
    try {
      manifest = load?.resolve('onnxruntime-node/package.json');
    } catch {
      continue;
    }
    if (manifest === undefined) continue;
    const library = path.join(
      path.dirname(manifest),
      `bin/napi-v6/${process.platform}/${process.arch}/libonnxruntime.so.1`,
    );
    if (existsSync(library)) return library;
  }
  throw new TensorRTError(
    'ERR_LIBRARY_NOT_FOUND',
    'ONNX Runtime, which runs models on the CPU, was not found. Possible solutions: `npm install ' +
      'onnxruntime-node` (set ONNXRUNTIME_NODE_INSTALL=skip if its download of CUDA parts fails), or point ' +
      'NODE_TENSORRT_ONNXRUNTIME at a libonnxruntime.so.1.',
  );
}
