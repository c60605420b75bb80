import path from 'node:path';
import type { DataType } from '../../base/data-type.js';
import { TensorRTError } from '../../base/errors.js';
import type { Dims } from '../../base/tensor-like.js';
import type { Tensor } from '../../execution/tensor.js';
import { InferenceSession } from '../../session/session.js';
import type { SessionOptions } from '../../session/session-options.js';
import { writeAtomically } from '../../system/files/atomic-file.js';
import { makeDirectories } from '../../system/files/promises.js';
import { type InputSources, readInput } from './input-source.js';
import { modelSource } from './model-source.js';
import { serializeNpy } from './npy.js';

/** The smallest, mean and largest element; null if there are no numbers. */
type Statistics = Readonly<Record<'min' | 'mean' | 'max', number | null>>;

export interface RunReport extends Pick<InferenceSession, 'device' | 'why' | 'runtime'> {
  readonly model: string;
  /** Milliseconds that loading took. */
  readonly loadMs: number;
  /** Milliseconds that the run took. */
  readonly runMs: number;
  readonly inputs: readonly { readonly name: string; readonly type: DataType; readonly dims: Dims }[];
  readonly outputs: readonly (Statistics & {
    readonly name: string;
    readonly type: DataType;
    readonly dims: Dims;
    /** The `.npy` file that the output was written to. */
    readonly file?: string;
  })[];
}

/**
 * Loads an ONNX or engine file, runs it once, and describes the outputs.
 * @param options.output a folder for a `.npy` file of each output, created if it doesn't exist
 * @throws (rejects) the errors of `Engine.load`, `InferenceSession.create` and runs; those of {@link readInput}; ERR_IO
 */
export async function runModel(
  model: string,
  { device, inputs, output }: Pick<SessionOptions, 'device'> & { inputs: InputSources; output?: string },
): Promise<RunReport> {
  const started = performance.now();
  const session = await InferenceSession.create(await modelSource(model), { device });
  try {
    const loadMs = performance.now() - started;
    const sources = inputs(session.inputNames);
    const files = output === undefined ? undefined : outputFiles(output, session.outputNames);
    const feeds: Record<string, Tensor> = {};
    for (const input of session.inputMetadata) {
      feeds[input.name] = await readInput(input, sources.get(input.name));
    }
    const before = performance.now();
    const outputs = await session.run(feeds);
    const runMs = performance.now() - before;
    const { why, runtime } = session;
    return {
      model,
      device: session.device,
      why,
      runtime,
      loadMs,
      runMs,
      inputs: Object.entries(feeds).map(([name, { type, dims }]) => ({ name, type, dims })),
      outputs: await Promise.all(
        Object.entries(outputs).map(async ([name, tensor]) => {
          const { type, dims } = tensor;
          const file = files?.get(name);
          if (file !== undefined) await writeOutput(file, tensor);
          return { name, type, dims, ...statistics(tensor), ...(file === undefined ? {} : { file }) };
        }),
      ),
    };
  } finally {
    await session.dispose();
  }
}

/** A file for each output. If two names would yield the same file, a number is added. */
function outputFiles(directory: string, names: readonly string[]): Map<string, string> {
  const files = new Map<string, string>();
  for (const name of names) {
    const base = path.join(directory, name.replaceAll(/[^\w.-]/g, '_'));
    const taken = new Set(files.values());
    let file = `${base}.npy`;
    for (let i = 1; taken.has(file); i++) file = `${base}.${i}.npy`;
    files.set(name, file);
  }
  return files;
}

async function writeOutput(file: string, tensor: Tensor): Promise<void> {
  try {
    await makeDirectories(path.dirname(file));
    await writeAtomically(file, [serializeNpy(tensor)], 'output');
  } catch (cause) {
    if (cause instanceof TensorRTError) throw cause;
    throw new TensorRTError('ERR_IO', `Could not write ${file}: ${(cause as Error).message}`, { cause });
  }
}

/** null if there are no numbers: for strings, an empty tensor, and 16-bit patterns if Node has no Float16Array. */
function statistics(tensor: Tensor): Statistics {
  const isBits = /float16/.test(tensor.type) && tensor.data instanceof Uint16Array;
  if (tensor.type === 'string' || tensor.size === 0 || isBits) return { min: null, mean: null, max: null };
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  let sum = 0;
  for (const element of tensor.data as unknown as Iterable<number | bigint>) {
    const value = Number(element);
    min = Math.min(min, value);
    max = Math.max(max, value);
    sum += value;
  }
  return { min, mean: sum / tensor.size, max };
}
