// Runs every test: native unit tests under ctest, then vitest. Builds nothing: `npm test` does that first.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { minilmDirectory } from './minilm.mjs';
import { pythonOracle } from './python-oracle.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
// What tests need from elsewhere: now, rather than within some test's time limit.
pythonOracle();
await minilmDirectory();
const libs = spawnSync(
  process.execPath,
  [path.join(root, 'dist/cli/main.js'), 'libs', 'install', 'rtx', '--json'],
  {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  },
);
if (libs.status !== 0) process.exit(1);

let failed = false;
function run(command, args, env = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  failed ||= result.error !== undefined || result.status !== 0;
}

// The native tests run on ONNX Runtime and TensorRT-RTX themselves.
const onnxruntime = path.join(
  root,
  'node_modules/onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1',
);
run('ctest', ['--test-dir', 'build/addon-tests', '--output-on-failure'], {
  NODE_TENSORRT_ONNXRUNTIME: onnxruntime,
  NODE_TENSORRT_RTX: path.join(JSON.parse(libs.stdout).directory, 'libtensorrt_rtx.so.1'),
});
run(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...process.argv.slice(2)]);
process.exit(failed ? 1 : 0);
