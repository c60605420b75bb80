import { realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { type ErrorCode, TensorRTError } from '../../base/errors.js';

/**
 * A path from the root. Needed of a path alone: the working directory may have been removed, and only what is relative to
 * it needs it.
 * @throws TensorRTError with `code`, of a relative path where the working directory was removed
 */
export function absolutePath(file: string, code: ErrorCode = 'ERR_MODEL_NOT_FOUND'): string {
  try {
    return path.resolve(file);
  } catch (cause) {
    const problem = `${file} is relative to the working directory, which was removed: give an absolute path.`;
    throw new TensorRTError(code, problem, { cause });
  }
}

/** The `require` of a program in the working directory; undefined where that was removed. */
export function requireFromWorkingDirectory(): NodeJS.Require | undefined {
  try {
    return createRequire(path.join(process.cwd(), 'package.json'));
  } catch {
    return undefined;
  }
}

/** True if the working directory was removed: Node then starts no worker. (It may remember the path.) */
export function isWorkingDirectoryRemoved(): boolean {
  try {
    realpathSync.native('.');
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}
