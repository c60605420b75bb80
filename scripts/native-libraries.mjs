// The real libraries for the native tests, as environment variables; installs TensorRT-RTX if it is missing.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

export function nativeLibraries() {
  const args = [path.join(root, 'dist/apps/cli/main.js'), 'libs', 'install', 'rtx', '--json'];
  const installed = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (installed.status !== 0) process.exit(1);
  return {
    NODE_TENSORRT_ONNXRUNTIME: path.join(
      root,
      'node_modules/onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1',
    ),
    NODE_TENSORRT_RTX: path.join(JSON.parse(installed.stdout).directory, 'libtensorrt_rtx.so.1'),
  };
}
