import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { pythonOracle } from '../../scripts/python-oracle.mjs';

/** The model in `file`, rewritten to run in FP32 and give FP16's numbers: see simulate_float16.py. */
export function simulateFloat16(file: string): Uint8Array {
  return execFileSync('python3', [path.join(import.meta.dirname, 'simulate_float16.py'), file], {
    maxBuffer: 2 ** 30,
    env: { ...process.env, PYTHONPATH: pythonOracle() },
  });
}

/** As {@link simulateFloat16}, of many models at once: paths of files. */
export function simulateEachFloat16(files: readonly string[]): string[] {
  execFileSync('python3', [path.join(import.meta.dirname, 'simulate_float16.py'), '--each', ...files], {
    env: { ...process.env, PYTHONPATH: pythonOracle() },
  });
  return files.map((file) => `${file}.simulated`);
}
