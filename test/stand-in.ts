// Runs JavaScript on GPUs and TensorRT libraries simulated by stand-ins (test/native/stand_in).
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe } from 'vitest';

const root = path.join(import.meta.dirname, '..');
/** The folder that contains the stand-ins' folders. */
export const standIn = process.env.NODE_TENSORRT_STAND_IN ?? path.join(root, 'build/addon-tests/stand_in');
// They aren't built without GoogleTest; `npm test` reports that.
export const onStandIn = existsSync(path.join(standIn, 'cuda/libcuda.so.1')) ? describe : describe.skip;
export const flavours = ['trt10', 'trt11', 'rtx'] as const;
export type Flavour = (typeof flavours)[number];

/** The tools of a scenario. It runs in its own process, and sees nothing of the test's file. */
export interface Tools {
  readonly trt: typeof import('node-tensorrt');
  readonly onnx: typeof import('node-tensorrt/onnx');
  readonly fixture: (name: string) => string;
  /** `[rows, columns]` of sines. */
  readonly sines: (rows: number, columns: number) => import('node-tensorrt').Tensor;
  /** The rejection as `code: message`, or 'no error'. */
  readonly failure: (promise: Promise<unknown>) => Promise<string>;
}

/**
 * Runs `scenario` on a stand-in and returns its result, through JSON. The process must end by itself, and its
 * JavaScript thread must not call the driver.
 * @param env with the variables in the stand-ins' README.md
 * @param timeout in milliseconds
 */
export async function run<T>(
  flavour: Flavour,
  scenario: (tools: Tools) => Promise<T>,
  env: Record<string, string> = {},
  timeout = 50_000,
): Promise<T> {
  const script = `
    import path from 'node:path';
    import * as trt from 'node-tensorrt';
    import * as onnx from 'node-tensorrt/onnx';
    const fixture = (name) => path.resolve('test/fixtures/session', name);
    const sines = (rows, columns) =>
      new trt.Tensor('float32', Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i)), [rows, columns]);
    const failure = (promise) => promise.then(() => 'no error', (error) => (error.code ?? error.name) + ': ' + error.message);
    const result = await (${scenario})({ trt, onnx, fixture, sines, failure });
    console.log(JSON.stringify(result ?? null));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    cwd: root,
    timeout,
    env: {
      ...process.env,
      LD_LIBRARY_PATH: path.join(standIn, 'cuda'),
      NODE_TENSORRT_TENSORRT_PATH: path.join(standIn, flavour),
      STAND_IN_JAVASCRIPT: 'main',
      ...env,
    },
  });
  return JSON.parse(stdout);
}
