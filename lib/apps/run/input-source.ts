import { invalidArgValue, TensorRTError } from '../../base/errors.js';
import type { Dims } from '../../base/tensor-like.js';
import type { InputMetadata } from '../../execution/model-metadata.js';
import type { Tensor } from '../../execution/tensor.js';
import { readFile } from '../../system/files/promises.js';
import { parseNpy } from './npy.js';
import { randomTensor } from './random-tensor.js';

/** The source of an input's elements: a `.npy` file, or random numbers in a given shape. */
export type InputSource = { readonly file: string } | { readonly random: Dims };

/** Finds the inputs' sources, once the names of the model's inputs are known. */
export type InputSources = (inputNames: readonly string[]) => ReadonlyMap<string, InputSource>;

/**
 * Checks that the names given with a flag are inputs of the model.
 * @throws RangeError ERR_INVALID_ARG_VALUE
 */
export function checkInputNames(flag: string, names: Iterable<string>, inputNames: readonly string[]): void {
  for (const name of names) {
    if (inputNames.includes(name)) continue;
    throw invalidArgValue(
      flag,
      `names '${name}', which is not an input of this model. Its inputs are ${inputNames.join(', ')}.`,
    );
  }
}

/**
 * Reads an input from its source. Without one, it is random if the model's dimensions are static.
 * @throws (rejects) RangeError ERR_INVALID_ARG_VALUE for dynamic dimensions, random strings and too many elements;
 *   TensorRTError ERR_IO
 */
export async function readInput(input: InputMetadata, source: InputSource | undefined): Promise<Tensor> {
  if (source === undefined) {
    if (input.shape.some((size) => typeof size !== 'number')) throw missingShape(input);
    return randomTensor(input.type, input.shape as Dims);
  }
  if ('random' in source) return randomTensor(input.type, source.random);
  const { file } = source;
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (cause) {
    throw new TensorRTError('ERR_IO', `Could not read ${file}: ${(cause as Error).message}`, { cause });
  }
  return parseNpy(bytes, file);
}

function missingShape({ name, shape }: InputMetadata): RangeError {
  const names = shape.map((size) => size || '?').join('x');
  const example = shape.map((size) => (typeof size === 'number' ? size : 1)).join('x');
  return invalidArgValue(
    '--input',
    `is needed for '${name}', whose dimensions are dynamic: --input ${name}=random:${names} with numbers, ` +
      `such as --input ${shellWord(`${name}=random:${example}`)}`,
  );
}

/** Quotes a word for a shell if necessary. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
