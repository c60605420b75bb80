import { TensorRTError } from '../base/errors.js';
import { isObject } from '../base/json.js';
import type { Dims } from '../base/tensor-like.js';
import { elementCount } from '../execution/check-tensor.js';
import { readSafetensors, safetensorsHeader } from '../onnx/format/safetensors.js';
import { writeAtomically } from '../system/files/atomic-file.js';
import type { MaskEntry, MaskedWeight, MaskSetContents, SkippedWeight } from './mask-set-contents.js';
import { SparseMask } from './sparse-mask.js';

/** The version of the file format. */
const fileVersion = '1';

/** Writes a set of masks as a safetensors file. @throws (rejects) TensorRTError ERR_IO */
export async function writeMasks(path: string, { entries, skipped }: MaskSetContents): Promise<void> {
  const bits = [...entries].map(([name, { mask }]) => ({ name, dtype: 'U8', bytes: mask.bits() }));
  const weights = Object.fromEntries(
    [...entries].map(([name, { mask, weight }]) => [name, { dims: mask.dims, ...weight }]),
  );
  const header = safetensorsHeader(bits, {
    format: 'node-tensorrt masks',
    version: fileVersion,
    weights: JSON.stringify(weights),
    skipped: JSON.stringify(skipped),
  });
  await writeAtomically(path, [header, ...bits.map(({ bytes }) => bytes)], 'masks');
}

/**
 * Reads what {@link writeMasks} wrote.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO
 */
export async function readMasks(path: string): Promise<MaskSetContents> {
  const { tensors, metadata } = await readSafetensors(path);
  const problem = (what: string, cause?: unknown) =>
    new TensorRTError('ERR_MODEL_INVALID', `${path} isn't a valid file of masks: ${what}.`, { cause });
  if (metadata.format !== 'node-tensorrt masks') throw problem("its metadata doesn't say that it is one");
  if (metadata.version !== fileVersion) {
    throw problem(`its version is ${metadata.version}, and this package reads version ${fileVersion}`);
  }
  const weights = parsed(metadata.weights);
  const skipped = parsed(metadata.skipped);
  if (!isObject(weights) || !Array.isArray(skipped) || !skipped.every(isSkipped)) {
    throw problem('its metadata is damaged');
  }
  const entries = new Map<string, MaskEntry>();
  for (const [name, { bytes }] of tensors) {
    const record = weights[name];
    if (!isObject(record)) throw problem(`nothing is recorded about "${name}"`);
    const { dims, ...weight } = record;
    try {
      elementCount(dims, 'dims');
      const mask = SparseMask.fromBits(bytes, dims as Dims);
      entries.set(name, { mask, weight: isMaskedWeight(weight) ? weight : undefined });
    } catch (cause) {
      throw problem(`the mask of "${name}" is damaged`, cause);
    }
  }
  return { entries, skipped };
}

function parsed(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? '');
  } catch {
    return undefined;
  }
}

const isTexts = (value: unknown) => Array.isArray(value) && value.every((each) => typeof each === 'string');

function isMaskedWeight(value: Record<string, unknown>): value is Record<string, unknown> & MaskedWeight {
  const { type, sha256, axis, nodes, operator } = value;
  return (
    typeof type === 'string' &&
    typeof sha256 === 'string' &&
    Number.isSafeInteger(axis) &&
    isTexts(nodes) &&
    typeof operator === 'string'
  );
}

function isSkipped(value: unknown): value is SkippedWeight {
  if (!isObject(value)) return false;
  const { weight, dims, nodes, operator, reason } = value;
  return (
    [weight, operator, reason].every((each) => typeof each === 'string') &&
    isTexts(nodes) &&
    Array.isArray(dims) &&
    dims.every((dim) => Number.isSafeInteger(dim) && dim >= 0)
  );
}
