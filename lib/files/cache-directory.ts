import os from 'node:os';
import path from 'node:path';
import { absolutePath } from './working-directory.js';

/**
 * Where what was downloaded is kept: `NODE_TENSORRT_CACHE`, else `$XDG_CACHE_HOME/node-tensorrt`, else
 * `~/.cache/node-tensorrt` (XDG Base Directory Specification).
 */
export function cacheDirectory(): string {
  const { NODE_TENSORRT_CACHE, XDG_CACHE_HOME } = process.env;
  if (NODE_TENSORRT_CACHE) return absolutePath(NODE_TENSORRT_CACHE, 'ERR_IO');
  return path.join(XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'node-tensorrt');
}
