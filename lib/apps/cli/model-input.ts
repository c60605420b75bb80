import type { DataType } from '../../base/data-type.js';
import { invalidArgValue, TensorRTError } from '../../base/errors.js';
import type { InputMetadata } from '../../execution/model-metadata.js';
import { Tensor } from '../../execution/tensor.js';
import type { SessionOptions } from '../../session/session-options.js';
import { readFile } from '../../system/files/promises.js';
import { parseNpy } from './npy.js';
import { shellWord, UsageError } from './output.js';

/** The generator's first state; the same inputs every time. */
export const randomSeed = 1;

/** @throws UsageError */
export function parseDevice(device: string): SessionOptions['device'] {
  if (/^(auto|cpu|cuda(:\d+)?)$/.test(device)) return device as SessionOptions['device'];
  throw new UsageError(`--device must be auto, cpu, cuda or cuda:N, not '${device}'.`);
}

/** CUDA's number in `--device`, where it can be a GPU only. @throws UsageError */
export function parseGpu(device: string): number {
  const [, number] = /^cuda:(\d+)$/.exec(device) ?? [];
  if (number !== undefined) return Number(number);
  throw new UsageError(`--device must be cuda:N, a GPU, not '${device}'.`);
}

/** `--input` flags, before the model's names are known. @throws UsageError for one that is no NAME=SOURCE, or comes twice */
export function checkInputFlags(flags: readonly string[]): void {
  const odd = flags.find((text) => text.indexOf('=', 1) < 0);
  if (odd !== undefined) {
    throw new UsageError(`--input must be NAME=FILE.npy or NAME=random:DIMS, not '${odd}'.`);
  }
  // Where there are two, the name may end at either.
  const names = flags
    .map((text) => text.split('='))
    .flatMap(([name, ...rest]) => (rest.length === 1 ? [name] : []));
  if (new Set(names).size < names.length) throw new UsageError('--input gives one input twice.');
}

/**
 * `--input` flags by name: of the model's names the longest that one begins with, before a '='. A name may have that too.
 * @throws RangeError ERR_INVALID_ARG_VALUE for a flag that names no input of the model; UsageError for an input twice
 */
export function parseInputFlags(
  flags: readonly string[],
  inputNames: readonly string[],
): Map<string, string> {
  const sources = new Map<string, string>();
  for (const text of flags) {
    const [known] = inputNames
      .filter((name) => text.startsWith(`${name}=`))
      .sort((a, b) => b.length - a.length);
    const name = known ?? text.slice(0, text.indexOf('=', 1));
    requireInputs('--input', [name], inputNames);
    if (sources.has(name)) throw new UsageError('--input gives one input twice.');
    sources.set(name, text.slice(name.length + 1));
  }
  return sources;
}

/** @throws RangeError ERR_INVALID_ARG_VALUE for a flag that names no input of the model */
export function requireInputs(flag: string, names: Iterable<string>, inputNames: readonly string[]): void {
  for (const name of names) {
    if (inputNames.includes(name)) continue;
    throw invalidArgValue(
      flag,
      `names '${name}', which is not an input of this model. Its inputs are ${inputNames.join(', ')}.`,
    );
  }
}

/** An input from its source: FILE.npy, random:DIMS, or nothing, which is random where the model's dimensions are static. */
export async function readInput(input: InputMetadata, source: string | undefined): Promise<Tensor> {
  if (source === undefined) {
    const dynamic = input.shape.some((size) => typeof size !== 'number');
    if (!dynamic) return randomTensor(input.type, input.shape as number[]);
    const shape = input.shape.map((size) => size || '?').join('x');
    const example = input.shape.map((size) => (typeof size === 'number' ? size : 1)).join('x');
    throw invalidArgValue(
      '--input',
      `is needed for '${input.name}', whose dimensions are dynamic: --input ${input.name}=random:${shape} with numbers, ` +
        `such as --input ${shellWord(`${input.name}=random:${example}`)}`,
    );
  }
  const random = /^random:((?:\d+(?:x\d+)*)?)$/.exec(source);
  if (random) return randomTensor(input.type, random[1] ? random[1].split('x').map(Number) : []);
  if (source.startsWith('random')) {
    throw new UsageError(`--input ${input.name}=${source}: write random:1x3x224x224.`);
  }
  let bytes: Uint8Array;
  try {
    bytes = await readFile(source);
  } catch (cause) {
    throw new TensorRTError('ERR_IO', `Could not read ${source}: ${(cause as Error).message}`, { cause });
  }
  return parseNpy(bytes, source);
}

/** Floats are uniform in [-1, 1), 16-bit ones in [0.5, 1); integers and booleans are 0 or 1: fit for ids and masks. */
export function randomTensor(type: DataType, dims: readonly number[]): Tensor {
  let state = randomSeed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator: the same every time
    return state / 2 ** 32;
  };
  const elements = { length: dims.reduce((product, size) => product * size, 1) };
  if (elements.length > 2 ** 31) throw new UsageError(`random:${dims.join('x')} has too many elements.`);
  switch (type) {
    case 'string':
      throw invalidArgValue('--input', 'cannot be random for an input of strings.');
    case 'float32':
      return new Tensor(
        type,
        Float32Array.from(elements, () => 2 * uniform() - 1),
        dims,
      );
    case 'float64':
      return new Tensor(
        type,
        Float64Array.from(elements, () => 2 * uniform() - 1),
        dims,
      );
    // Exponent bits of 0.5, any mantissa.
    case 'float16':
      return new Tensor(
        type,
        Uint16Array.from(elements, () => 0x3800 | (uniform() * 0x400)),
        dims,
      );
    case 'bfloat16':
      return new Tensor(
        type,
        Uint16Array.from(elements, () => 0x3f00 | (uniform() * 0x80)),
        dims,
      );
    case 'int64':
    case 'uint64':
      return new Tensor(
        type,
        Array.from(elements, () => BigInt(Math.round(uniform()))),
        dims,
      );
    default:
      return new Tensor(
        type,
        Array.from(elements, () => Math.round(uniform())),
        dims,
      );
  }
}
