import path from 'node:path';
import { invalidArgValue, TensorRTError } from '../../base/errors.js';
import { type CastOf, compareModels } from '../../compare/compare-models.js';
import type { CompareOptions, SampleInputs } from '../../compare/compare-options.js';
import type { Comparison } from '../../compare/comparison.js';
import type { Tensor } from '../../execution/tensor.js';
import { readModel } from '../../onnx/format/model-file.js';
import { graphInputs } from '../../onnx/graph/declared-values.js';
import { readdir, readFile, stat } from '../../system/files/promises.js';
import { checkInputNames } from '../run/input-source.js';
import { parseNpy } from '../run/npy.js';

/** A comparison of two files. */
export interface FileComparison extends Comparison {
  readonly a: string;
  /** The other file; 'fp16' or 'bf16' for a cast of a. */
  readonly b: string;
}

/**
 * Compares two ONNX files, or one with its cast if `b` is 'fp16' or 'bf16' and there is no such file.
 * @param options.inputs a folder of `.npy` files named after the inputs, or of folders of those, one for each sample
 * @throws (rejects) the errors of `compareModels`; TensorRTError ERR_IO; RangeError ERR_INVALID_ARG_VALUE for a file
 *   that isn't named after an input
 */
export async function compareFiles(
  a: string,
  b: string,
  { inputs, ...options }: Omit<CompareOptions, 'inputs'> & { inputs?: string | undefined },
): Promise<FileComparison> {
  const samples = inputs === undefined ? {} : { inputs: await readInputs(inputs, a) };
  const comparison = await compareModels(a, await otherModel(b), { ...options, ...samples });
  return { a, b, ...comparison };
}

async function otherModel(b: string): Promise<string | CastOf> {
  if (b !== 'fp16' && b !== 'bf16') return b;
  const isFile = await stat(b).then(
    () => true,
    () => false,
  );
  return isFile ? b : { precision: b };
}

async function readInputs(folder: string, model: string): Promise<SampleInputs[]> {
  const { graph } = await readModel(model);
  const names = graphInputs(graph).map(({ name }) => name);
  const entries = await list(folder);
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => path.join(folder, name));
  // sample-2 comes before sample-10.
  folders.sort((x, y) => x.localeCompare(y, 'en', { numeric: true }));
  const samples: SampleInputs[] = [];
  for (const sample of folders.length > 0 ? folders : [folder]) samples.push(await readSample(sample, names));
  return samples;
}

async function readSample(folder: string, names: readonly string[]): Promise<SampleInputs> {
  const files = (await list(folder)).map(({ name }) => name).filter((name) => name.endsWith('.npy'));
  if (files.length === 0)
    throw invalidArgValue('--inputs', `has no .npy files: there are none in ${folder}.`);
  // As `run --output` names the files of outputs.
  const inputs = new Map(names.map((name) => [name.replaceAll(/[^\w.-]/g, '_'), name]));
  const sample: Record<string, Tensor> = {};
  for (const file of files) {
    const base = path.basename(file, '.npy');
    const name = inputs.get(base) ?? base;
    checkInputNames('--inputs', [name], names);
    const full = path.join(folder, file);
    sample[name] = parseNpy(await readFile(full).catch(unreadable(full)), full);
  }
  return sample;
}

function list(folder: string) {
  return readdir(folder, { withFileTypes: true }).catch(unreadable(folder));
}

function unreadable(file: string) {
  return (cause: Error): never => {
    throw new TensorRTError('ERR_IO', `Could not read ${file}: ${cause.message}`, { cause });
  };
}
