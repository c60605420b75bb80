// Checks formatting and lint rules of TypeScript and JavaScript (Biome) and of C++ (clang-format, from PyPI, pinned),
// the includes of C++ sources (check-includes.mjs), and the imports between rooms of lib/ (dependency-cruiser,
// .dependency-cruiser.mjs). `--write` corrects what it can.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const write = process.argv.includes('--write');
const clangFormatVersion = '20.1.8';

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (result.error) throw result.error;
  return result.status === 0;
}

const tools = path.join(root, 'build/clang-format', clangFormatVersion);
const clangFormat = path.join(tools, 'clang_format/data/bin/clang-format');
if (!existsSync(clangFormat)) {
  const installed = run('python3', [
    '-m',
    'pip',
    'install',
    '--quiet',
    '--no-deps',
    '--target',
    tools,
    `clang-format==${clangFormatVersion}`,
  ]);
  if (!installed) process.exit(1);
}
const sources = ['native', 'test/native'].flatMap((folder) =>
  readdirSync(path.join(root, folder), { recursive: true })
    .filter((file) => /\.(h|cc)$/.test(file))
    .map((file) => path.join(folder, file)),
);
const biomeOk = run(process.execPath, [
  'node_modules/@biomejs/biome/bin/biome',
  'check',
  ...(write ? ['--write'] : ['--error-on-warnings']),
  '.',
]);
const clangOk = run(clangFormat, [...(write ? ['-i'] : ['--dry-run', '--Werror']), ...sources]);
const includesOk = run(process.execPath, ['scripts/check-includes.mjs']);
const roomsOk = run(process.execPath, [
  'node_modules/dependency-cruiser/bin/dependency-cruise.mjs',
  ...['lib', '--config', '.dependency-cruiser.mjs', '--output-type', 'err-long'],
]);
process.exit(biomeOk && clangOk && includesOk && roomsOk ? 0 : 1);
