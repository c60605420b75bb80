import { execFileSync } from 'node:child_process';
import { pythonOracle } from '../../scripts/python-oracle.mjs';

/** Runs Python code that may import onnx and numpy; returns what it prints. Throws with its traceback. */
export function python(code: string, ...args: string[]): string {
  return execFileSync('python3', ['-c', code, ...args], {
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
    env: { ...process.env, PYTHONPATH: pythonOracle() },
  });
}
