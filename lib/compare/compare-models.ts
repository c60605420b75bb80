import { invalidArgType } from '../base/errors.js';
import { type Bytes, bytesOf, checkPath } from '../base/options.js';
import { type CompareOptions, readCompareOptions } from './compare-options.js';
import type { Comparison } from './comparison.js';

/** A model's cast to 16 bits, by the rules of `castToFloat16` or `castToBfloat16` without measured ranges. */
export interface CastOf {
  /** The type to cast to. */
  precision: 'fp16' | 'bf16';
}

// Importing the package doesn't load the code that compares.
const comparing = () => require('./compare-given.js') as typeof import('./compare-given.js');

/**
 * Compares two ONNX models on the CPU: their outputs, with `layers` the values inside and the node where they part, and
 * with `bisect` the nodes of a that a cast to 16 bits must leave in FP32. Models in FP16 and BF16 are simulated: every
 * value is computed in float32 and rounded, so that overflows show, which ONNX Runtime's own kernels hide.
 *
 * @param a the reference: the path of an ONNX file, or the bytes of a model without external data
 * @param b the other model; or `{ precision: 'fp16' }` or `{ precision: 'bf16' }` for a cast of a by this package
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO,
 *   ERR_LIBRARY_NOT_FOUND, ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY; RangeError ERR_INVALID_ARG_VALUE for models
 *   without common outputs, ERR_SHAPE_MISMATCH for outputs of other dimensions; TypeError ERR_INVALID_ARG_TYPE; the
 *   signal's reason
 * @example
 * ```js
 * import { compareModels } from 'node-tensorrt';
 *
 * const { agree, outputs, parted } = await compareModels('model.onnx', { precision: 'fp16' }, { layers: true });
 * for (const { name, relative, cosine } of outputs) console.log(name, relative, cosine);
 * console.log(agree ? 'they agree' : `they part at ${parted?.node}`);
 * ```
 */
export async function compareModels(
  a: string | Bytes,
  b: string | Bytes | CastOf,
  options: CompareOptions = {},
): Promise<Comparison> {
  const reference = readArgument(a, 'a');
  const other = isCast(b) ? readCast(b) : readArgument(b, 'b');
  const settings = readCompareOptions(options);
  settings.signal?.throwIfAborted();
  return comparing().compareGiven(reference, other, settings);
}

/** Bytes are copied, because the caller may change them once the function has returned. */
function readArgument(model: unknown, name: 'a' | 'b'): string | Uint8Array {
  if (typeof model === 'string') {
    checkPath(model, name);
    return model;
  }
  const bytes = bytesOf(model, name);
  const more = name === 'b' ? " or { precision: 'fp16' }" : '';
  if (bytes === undefined) throw invalidArgType(name, `a path, a Uint8Array, an ArrayBuffer${more}`, model);
  return new Uint8Array(bytes);
}

function isCast(model: unknown): model is CastOf {
  return typeof model === 'object' && model !== null && 'precision' in model;
}

function readCast({ precision }: CastOf): CastOf {
  if (precision !== 'fp16' && precision !== 'bf16') {
    throw invalidArgType('b.precision', "'fp16' or 'bf16'", precision);
  }
  return { precision };
}
