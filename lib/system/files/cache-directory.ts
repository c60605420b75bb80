import os from 'node:os';
import path from 'node:path';
import { absolutePath } from './working-directory.js';

/**
 * The folder for downloads: `NODE_TENSORRT_CACHE`, else `$XDG_CACHE_HOME/node-tensorrt`, else `~/.cache/node-tensorrt`
 * (XDG Base Directory Specification, which ignores a relative path). Without a home folder it is a path where no file
 * exists or can exist.
 * @throws TensorRTError ERR_IO if `NODE_TENSORRT_CACHE` is relative and the working directory was removed
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
    // Neither HOME nor the system's list of users has a home folder.
    return undefined;
  }
}
