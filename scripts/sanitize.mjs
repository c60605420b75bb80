// Builds with sanitizers and runs the native tests and the suites that use the addon on that build:
// `node scripts/sanitize.mjs address,undefined` or `thread`. Needs the TypeScript built (`npm run build`).
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { nativeLibraries } from './native-libraries.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const sanitizers = process.argv[2];
if (sanitizers !== 'address,undefined' && sanitizers !== 'thread') {
  console.error('Usage: node scripts/sanitize.mjs address,undefined | thread');
  process.exit(2);
}
const variant = sanitizers.replaceAll(',', '-');

function run(command, args, env = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (result.error) throw result.error;
  if (result.status !== 0) process.exit(result.status ?? 1);
}

run(process.execPath, ['scripts/build.mjs', '--tests', '--sanitize', sanitizers]);

// ONNX Runtime and Node aren't instrumented, so their leaks and synchronisation can't be judged here. An allocation
// that fails returns null, as without a sanitizer.
const options = {
  ASAN_OPTIONS: 'detect_leaks=0:allocator_may_return_null=1',
  UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1',
  TSAN_OPTIONS: 'ignore_noninstrumented_modules=1:allocator_may_return_null=1',
};
run('ctest', ['--test-dir', `build/${variant}`, '--output-on-failure'], {
  ...options,
  ...nativeLibraries(),
  NODE_TENSORRT_TEST_FULL: '1',
});

const library = sanitizers === 'thread' ? 'libtsan.so' : 'libasan.so';
const preload = spawnSync('g++', [`-print-file-name=${library}`], { encoding: 'utf8' }).stdout.trim();
run(
  process.execPath,
  [
    'node_modules/vitest/vitest.mjs',
    'run',
    'test/unit/session/session.test.ts',
    'test/unit/execution/tensor.test.ts',
    'test/unit/engine/build-engine.test.ts',
    'test/e2e/gpu-session.test.ts',
    'test/e2e/generation.test.ts',
  ],
  {
    ...options,
    LD_PRELOAD: preload,
    NODE_TENSORRT_STAND_IN: path.join(root, `build/${variant}/stand_in`),
    NODE_TENSORRT_BINARY: path.join(root, `build/${variant}/Release/node_tensorrt.node`),
  },
);
