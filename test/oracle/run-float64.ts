import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { pythonOracle } from '../../scripts/python-oracle.mjs';

/** Runs each of these float32 models in float64: see run_float64.py. Paths of the files of their outputs. */
export function runEachFloat64(files: readonly string[]): string[] {
  execFileSync('python3', [path.join(import.meta.dirname, 'run_float64.py'), ...files], {
    env: { ...process.env, PYTHONPATH: pythonOracle() },
  });
  return files.map((file) => `${file}.float64`);
}
