import os from 'node:os';
import path from 'node:path';

/**
 * Where what was downloaded is kept: `NODE_TENSORRT_CACHE`, else `$XDG_CACHE_HOME/node-tensorrt`, else
 * `~/.cache/node-tensorrt` (XDG Base Directory Specification).
 */
export function cacheDirectory(): string {
  const { NODE_TENSORRT_CACHE, XDG_CACHE_HOME } = process.env;
  if (NODE_TENSORRT_CACHE) return path.resolve(NODE_TENSORRT_CACHE);
  return path.join(XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'node-tensorrt');
}
