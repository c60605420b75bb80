import { createHash } from '../base/crypto.js';
import { invalidArgType, invalidArgValue } from '../base/errors.js';
import type { TensorLike } from '../base/tensor-like.js';
import { checkTensor } from '../execution/check-tensor.js';
import type { Feeds } from './measure-ranges.js';

/** Inputs for measuring ranges, copied when they were given. */
export interface Calibration {
  readonly samples: readonly Feeds[];
  /** Hexadecimal SHA-256 of all names, types, dimensions and elements. */
  readonly sha256: string;
}

/**
 * Reads all samples of the option `calibration`.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE; whatever the iterable throws
 */
export function readCalibration(value: unknown, path: string): Calibration | undefined {
  if (value === undefined) return undefined;
  if (!isIterable(value)) throw invalidArgType(path, 'an array or another iterable', value);
  const hash = createHash('sha256');
  const samples: Feeds[] = [];
  for (const sample of value) {
    const label = `${path}[${samples.length}]`;
    if (typeof sample !== 'object' || sample === null) {
      throw invalidArgType(label, 'an object of tensors by input name', sample);
    }
    const names = Object.keys(sample).sort();
    samples.push(
      Object.fromEntries(names.map((name) => [name, copied(sample[name]!, `${label}['${name}']`)])),
    );
    for (const name of names) {
      const { type, dims, data } = samples.at(-1)![name]!;
      const elements = ArrayBuffer.isView(data) ? data : JSON.stringify(data);
      hash.update(JSON.stringify([samples.length, name, type, dims])).update(elements as Uint8Array);
    }
  }
  if (samples.length === 0) throw invalidArgValue(path, 'is empty.');
  return { samples, sha256: hash.digest('hex') };
}

function isIterable(value: unknown): value is Iterable<Feeds> {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as Partial<Iterable<Feeds>>)[Symbol.iterator] === 'function'
  );
}

/** A plain tensor with its own copy of the elements, which can be sent to another thread. */
export function copied(tensor: TensorLike, path: string): TensorLike {
  checkTensor(tensor, path);
  const { type, dims, data } = tensor;
  // A Buffer's own slice() doesn't copy.
  const elements = ArrayBuffer.isView(data) ? Uint8Array.prototype.slice.call(data) : [...data];
  return { type, dims: [...dims], data: elements };
}
