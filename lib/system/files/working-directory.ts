import { realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { type ErrorCode, TensorRTError } from '../../base/errors.js';

/**
 * Makes a path absolute. Only a relative path needs the working directory, which may have been removed.
 * @throws TensorRTError with `code` if the path is relative and the working directory was removed
 */
export function absolutePath(file: string, code: ErrorCode = 'ERR_MODEL_NOT_FOUND'): string {
  try {
    return path.resolve(file);
  } catch (cause) {
    const problem = `${file} is relative to the working directory, which was removed: give an absolute path.`;
    throw new TensorRTError(code, problem, { cause });
  }
}

/** The `require` of a program in the working directory; undefined if the directory was removed. */
export function requireFromWorkingDirectory(): NodeJS.Require | undefined {
  try {
    return createRequire(path.join(process.cwd(), 'package.json'));
  } catch {
    return undefined;
  }
}

/**
 * True if the working directory was removed. Node then can't start workers. (`process.cwd()` may still return a cached
 * path.)
 */
export function isWorkingDirectoryRemoved(): boolean {
  try {
    realpathSync.native('.');
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}
