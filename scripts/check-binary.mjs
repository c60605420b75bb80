// Checks a binary of the package with binutils. Used by check-package.mjs.
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';

const { config } = JSON.parse(readFileSync(path.resolve(import.meta.dirname, '../package.json'), 'utf8'));
const glibcFloor = config.glibc.replace('>=', '');
const largest = 3e6;
// The binary may only need these libraries, all of which Node itself needs: none of NVIDIA's, not ONNX Runtime, not
// libstdc++.
const mayNeed = ['libc.so.6', 'libm.so.6', 'libgcc_s.so.1', 'ld-linux-x86-64.so.2'];
const mayExport = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];

const newest = (versions) =>
  versions.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1) ?? '0';

/** Throws an Error that describes the problem; returns a line about the file. */
export function checkBinary(file) {
  const objdump = (...options) => execFileSync('objdump', [...options, file], { encoding: 'utf8' });
  const problems = [];

  const { size } = statSync(file);
  if (size > largest) problems.push(`it has ${size} bytes, more than ${largest}`);

  const needed = [...objdump('-p').matchAll(/NEEDED\s+(\S+)/g)].map(([, name]) => name);
  const foreign = needed.filter((name) => !mayNeed.includes(name));
  if (foreign.length > 0) problems.push(`it is linked against ${foreign.join(', ')}`);

  const symbols = objdump('-T')
    .split('\n')
    .filter((line) => /^[0-9a-f]{16} /.test(line));
  const exported = symbols.filter((line) => !line.includes('*UND*')).map((line) => line.split(/\s+/).at(-1));
  const surplus = exported.filter((name) => !mayExport.includes(name));
  if (surplus.length > 0) problems.push(`it exports ${surplus.join(', ')}`);
  if (!exported.includes(mayExport[0])) problems.push(`it does not export ${mayExport[0]}`);

  const versionOf = (line) => /\(GLIBC_([\d.]+)\)/.exec(line)?.[1];
  const glibc = newest(symbols.map(versionOf).filter(Boolean));
  if (newest([glibc, glibcFloor]) !== glibcFloor) {
    const culprits = symbols.filter((line) => newest([versionOf(line) ?? '0', glibcFloor]) !== glibcFloor);
    const names = culprits.map((line) => `${line.split(/\s+/).at(-1)} (${versionOf(line)})`);
    problems.push(`it needs a glibc newer than ${glibcFloor}, for ${names.join(', ')}`);
  }

  if (/\.(debug_info|symtab)\b/.test(objdump('-h'))) problems.push('it is not stripped');
  if (problems.length > 0) throw new Error(`${file}: ${problems.join('; ')}.`);
  return `${(size / 1e6).toFixed(2)} MB, glibc ${glibc}`;
}
