import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { mlperfOracle, pythonOracle } from '../../scripts/python-oracle.mjs';

/** Runs Python code that may import onnx, numpy and mlperf_logging; returns what it prints. Throws with its traceback. */
export function python(
  code: string,
  args: readonly string[] = [],
  input: string | Uint8Array = '',
  encoding: 'utf8' | 'latin1' = 'utf8',
): string {
  return execFileSync('python3', ['-c', code, ...args], {
    encoding,
    input,
    maxBuffer: 2 ** 30,
    env: { ...process.env, PYTHONPATH: [pythonOracle(), mlperfOracle()].join(path.delimiter) },
  });
}
