import { spawn } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { pythonOracle } from '../../scripts/python-oracle.mjs';

// Mutated models that our parser accepts go on to TensorRT's, in processes of their own: errors must be ours. Where
// TensorRT ends the process, or never ends, that is said, and is TensorRT's to mend; each was looked at once.

const full = process.env.NODE_TENSORRT_TEST_FULL === '1';
const cases = full ? 4_000 : 60;
const seed = '1';
const build = path.join(import.meta.dirname, 'build.mjs');

let directory: string;
let corpus: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'fuzz-builds-'));
  corpus = path.join(directory, 'corpus');
  await mkdir(corpus);
  const data = path.join(pythonOracle(), 'onnx/backend/test/data/node');
  for (const name of (await readdir(data)).sort()) {
    const file = path.join(data, name, 'model.onnx');
    if ((await stat(file)).size < 8192) await copyFile(file, path.join(corpus, name));
  }
});
afterAll(() => rm(directory, { recursive: true }));

test(`${cases} mutated models`, { timeout: full ? 6 * 3_600_000 : 300_000 }, async () => {
  const findings: unknown[] = [];
  const crashes: string[] = [];
  for (let from = 0; from < cases; ) {
    const child = spawn(process.execPath, [build, seed, String(from), String(cases - from), corpus], {
      cwd: directory,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data) => {
      stdout += data;
    });
    child.stderr.on('data', (data) => {
      stderr = (stderr + data).slice(-2000);
    });
    const status = await new Promise((resolve) =>
      child.on('close', (code, signal) => resolve(signal ?? code)),
    );
    for (const line of stdout.split('\n')) if (line.startsWith('{"case"')) findings.push(JSON.parse(line));
    if (status === 0) break;
    const at = Number(await readFile(path.join(directory, 'progress.txt'), 'utf8'));
    crashes.push(`case ${at}: ${status}`);
    // What JavaScript or Node.js ends is ours.
    if (/JavaScript|FATAL ERROR|Error: /.test(stderr)) findings.push({ case: at, problem: stderr });
    from = at + 1;
  }
  if (crashes.length > 0)
    console.warn(`TensorRT ended the process ${crashes.length} times: ${crashes.join(', ')}`);
  expect(findings).toEqual([]);
});
