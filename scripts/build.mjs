// Builds what is stale: the TypeScript, then the native addon (CMake through cmake-js). `--tests` also builds the
// native unit tests if GoogleTest is installed. `--sanitize address,undefined` or `thread` builds the addon and the
// tests into build/<sanitizer>/ instead. `--addon FILE`, which binding.gyp uses, only builds the addon into FILE, for
// the CUDA major version in NODE_TENSORRT_CUDA (12 or 13).
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { provideTensorRTHeaders } from './tensorrt-headers.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: {
    tests: { type: 'boolean', default: false },
    sanitize: { type: 'string' },
    addon: { type: 'string' },
  },
});

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  if (result.error || result.status !== 0) {
    process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? ''}`);
    process.stderr.write(
      `\n${command} ${args.join(' ')} failed${result.error ? `: ${result.error.message}` : ''}\n`,
    );
    process.exit(1);
  }
}

console.error('Building the TypeScript (dist) …');
// `npm run types` and the test run check types. Skipping them here makes a build take a fifth of the time.
const unchecked = values.tests ? [] : ['--noCheck'];
run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.', ...unchecked]);
// TypeScript leaves import() in CommonJS modules, where code in another context may not call it: above all Jest's
// tests, unless Node is started with a flag. Nothing that is loaded late here needs import().
const dist = path.join(root, 'dist');
for (const name of readdirSync(dist, { recursive: true })) {
  if (!name.endsWith('.js')) continue;
  const file = path.join(dist, name);
  const code = readFileSync(file, 'utf8');
  const required = code.replace(/\bimport\(('[^']+')\)/g, 'Promise.resolve().then(() => require($1))');
  if (required !== code) writeFileSync(file, required);
}

// If the addon can't be loaded on this platform, it can't be built either, and the message is the same.
const { platformProblems } = createRequire(import.meta.url)('../dist/system/binary.js');
const problems = platformProblems();
if (problems.length > 0) {
  process.stderr.write(
    `Could not build the native addon of node-tensorrt on ${process.platform}-${process.arch}.\n` +
      `Possible solutions:\n${problems.map((problem) => `- ${problem}\n`).join('')}`,
  );
  process.exit(1);
}

try {
  provideTensorRTHeaders();
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}

function buildAddon(out, ...options) {
  console.error(`Building the native addon (${out}) …`);
  run(process.execPath, ['node_modules/cmake-js/bin/cmake-js', 'compile', '--out', out, ...options]);
}

if (values.addon) {
  const cuda = process.env.NODE_TENSORRT_CUDA || '13';
  if (cuda !== '12' && cuda !== '13') {
    process.stderr.write(`NODE_TENSORRT_CUDA must be 12 or 13, not ${cuda}.\n`);
    process.exit(2);
  }
  buildAddon('build/addon', '--target', `node_tensorrt_cuda${cuda}`);
  const built = path.join(root, 'build/addon/Release', cuda === '12' ? 'cuda12' : '', 'node_tensorrt.node');
  const file = path.resolve(values.addon);
  mkdirSync(path.dirname(file), { recursive: true });
  copyFileSync(built, file);
  process.exit(0);
}

// One folder per set of definitions, since CMake doesn't rebuild everything when a definition changes.
if (values.sanitize) {
  // Compiles the addon and the tests together, so that their shared sources are compiled once: with sanitizers, that
  // takes minutes.
  const definitions = [`--CDNODE_TENSORRT_SANITIZE=${values.sanitize}`];
  if (values.tests) definitions.push('--CDNODE_TENSORRT_TESTS=ON');
  buildAddon(`build/${values.sanitize.replaceAll(',', '-')}`, ...definitions);
} else {
  buildAddon('build/addon');
  if (values.tests) {
    const out = 'build/addon-tests';
    console.error(`Building the native tests (${out}) …`);
    run('cmake', ['-S', '.', '-B', out, '-DNODE_TENSORRT_ADDON=OFF', '-DNODE_TENSORRT_TESTS=ON']);
    run('cmake', ['--build', out, '--parallel', '2']);
  }
}
