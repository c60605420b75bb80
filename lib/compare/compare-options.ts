import { invalidArgType, invalidArgValue } from '../base/errors.js';
import {
  abortSignal,
  boolean,
  callback,
  integer,
  type OptionsOf,
  type OptionTable,
  readOptions,
  real,
} from '../base/options.js';
import type { TensorLike } from '../base/tensor-like.js';

/** The inputs of one run, by name. */
export type SampleInputs = Readonly<Record<string, TensorLike>>;

/** A step of a comparison, as `options.onProgress` is told it. */
export interface CompareProgress {
  /** 'Comparing outputs', 'Comparing layers', 'Finding the node' or 'Bisecting'. */
  readonly phase: string;
  /** Steps of the phase that are done, from 0 to `steps`. */
  readonly step: number;
  /** Steps that the phase has; for a bisection, as many as it has done. */
  readonly steps: number;
}

/** How to compare two models. */
export interface CompareOptions {
  /**
   * Sample inputs by the names of a, which are read to the end first and held in memory. Defaults to two random ones:
   * see `randomInputs` in node-tensorrt/onnx.
   */
  inputs?: Iterable<SampleInputs> | AsyncIterable<SampleInputs>;
  /** The seed of random inputs. Defaults to 0. */
  seed?: number;
  /** Compares the values inside too, and finds the node where the models part. Defaults to false. */
  layers?: boolean;
  /**
   * The relative difference up to which values count as equal. Defaults to 1e-5; to 2⁻⁶ if one of the models computes
   * in FP16, and to 2⁻³ for BF16.
   */
  tolerance?: number;
  /**
   * Finds a small set of nodes which, kept in FP32, bring the 16-bit model back: every output's largest difference
   * must be at most `tolerance` times the largest magnitude of the output in a. Defaults to none.
   */
  bisect?: { tolerance: number };
  /** Is called as the comparison goes on. */
  onProgress?(progress: CompareProgress): void;
  /** Aborting rejects the comparison with the signal's reason. */
  signal?: AbortSignal;
}

const compareOptions = {
  inputs: samples,
  seed: integer(0, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  layers: boolean(false),
  tolerance: real(undefined, 0, Number.MAX_VALUE),
  bisect: (value: unknown, path: string) => {
    if (value === undefined) return undefined;
    const { tolerance } = readOptions(value, path, { tolerance: real(undefined, 0, Number.MAX_VALUE) });
    if (tolerance === undefined) throw invalidArgType(`${path}.tolerance`, 'a number', tolerance);
    return { tolerance };
  },
  onProgress: callback<NonNullable<CompareOptions['onProgress']>>,
  signal: abortSignal,
} satisfies OptionTable<CompareOptions>;

export type CompareSettings = OptionsOf<typeof compareOptions>;

/** @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE */
export function readCompareOptions(options: unknown): CompareSettings {
  return readOptions(options, 'options', compareOptions);
}

/**
 * Copies all samples.
 * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE; whatever the iterable throws
 */
export async function readSamples(
  given: Iterable<SampleInputs> | AsyncIterable<SampleInputs>,
  copy: (tensor: TensorLike, path: string) => TensorLike,
): Promise<SampleInputs[]> {
  const read: SampleInputs[] = [];
  for await (const sample of given) {
    const label = `options.inputs[${read.length}]`;
    if (typeof sample !== 'object' || sample === null) {
      throw invalidArgType(label, 'an object of tensors by input name', sample);
    }
    read.push(
      Object.fromEntries(
        Object.entries(sample).map(([name, tensor]) => [name, copy(tensor, `${label}['${name}']`)]),
      ),
    );
  }
  if (read.length === 0) throw invalidArgValue('options.inputs', 'is empty.');
  return read;
}

function samples(value: unknown, path: string): CompareOptions['inputs'] {
  if (value === undefined) return undefined;
  const isIterable =
    typeof value === 'object' &&
    value !== null &&
    (Symbol.iterator in value || Symbol.asyncIterator in value);
  if (!isIterable) throw invalidArgType(path, 'an array or another iterable of inputs by name', value);
  return value as CompareOptions['inputs'];
}
