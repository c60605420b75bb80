import os from 'node:os';
import path from 'node:path';
import { absolutePath } from './working-directory.js';

/**
 * Where what was downloaded is kept: `NODE_TENSORRT_CACHE`, else `$XDG_CACHE_HOME/node-tensorrt`, else
 * `~/.cache/node-tensorrt` (XDG Base Directory Specification, which passes over a relative path). Without a home it is
 * where there is no file, and can be none.
 * @throws TensorRTError ERR_IO for a relative `NODE_TENSORRT_CACHE` where the working directory was removed
 */
export function cacheDirectory(): string {
  const { NODE_TENSORRT_CACHE, XDG_CACHE_HOME = '' } = process.env;
  if (NODE_TENSORRT_CACHE) return absolutePath(NODE_TENSORRT_CACHE, 'ERR_IO');
  if (path.isAbsolute(XDG_CACHE_HOME)) return path.join(XDG_CACHE_HOME, 'node-tensorrt');
  return path.join(homeDirectory() ?? os.devNull, '.cache', 'node-tensorrt');
}

function homeDirectory(): string | undefined {
  try {
    const home = os.homedir();
    return path.isAbsolute(home) ? home : undefined;
  } catch {
    // Neither HOME nor the system's list of users names a home.
    return undefined;
  }
}
