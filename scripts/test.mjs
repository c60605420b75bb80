// Runs every test: native unit tests with ctest, then vitest. Builds nothing: `npm test` does that first. `--full`,
// which `npm run test:full` passes, runs the long versions of tests that have one; other arguments go to vitest.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { minilmDirectory } from './minilm.mjs';
import { nativeLibraries } from './native-libraries.mjs';
import { mlperfOracle, pythonOracle } from './python-oracle.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
// Downloads what the tests need now, so that it doesn't count against a test's time limit.
pythonOracle();
mlperfOracle();
await minilmDirectory();
const libraries = nativeLibraries();

let failed = false;
function run(command, args, env = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  failed ||= result.error !== undefined || result.status !== 0;
}

// If CI is set, the build requires GoogleTest.
if (existsSync(path.join(root, 'build/addon-tests/native_tests'))) {
  run('ctest', ['--test-dir', 'build/addon-tests', '--output-on-failure'], libraries);
} else {
  console.warn('Skipped: the native unit tests, for GoogleTest is not installed (Debian: libgtest-dev).');
}
const args = process.argv.slice(2);
run(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...args.filter((arg) => arg !== '--full')], {
  NODE_TENSORRT_TEST_FULL: args.includes('--full') ? '1' : '',
});
process.exit(failed ? 1 : 0);
