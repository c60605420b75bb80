import type { DataType } from '../../base/data-type.js';
import { describe, invalidArgType, TensorRTError } from '../../base/errors.js';
import { isObject } from '../../base/json.js';
import { type Bytes, bytesOf, checkPath } from '../../base/options.js';
import { readWhole, readWholeSync } from '../../system/files/file-range.js';
import { dimsText } from './initializer.js';

/** One tensor of a safetensors file. */
export interface SafetensorsTensor {
  /** The tensor's name. */
  readonly name: string;
  /** The file's name for the type, such as `BF16`. */
  readonly dtype: string;
  /** This package's name for the type; undefined for types that only safetensors has (`F8_E4M3` …). */
  readonly type: Exclude<DataType, 'string'> | undefined;
  /** Size of each dimension; empty for a scalar. */
  readonly dims: readonly number[];
  /** The elements, little-endian, row-major: a view of the file's bytes. */
  readonly bytes: Uint8Array;
}

/** The contents of a safetensors file. */
export interface Safetensors {
  /** The tensors by name. */
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
  /** The `__metadata__` entry. */
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * The bits of an element and this package's name for the type, as in `Dtype` of the reference implementation
 * (safetensors/src/tensor.rs).
 */
const dtypes: ReadonlyMap<string, { bits: number; type?: Exclude<DataType, 'string'> }> = new Map([
  ['F64', { bits: 64, type: 'float64' }],
  ['F32', { bits: 32, type: 'float32' }],
  ['F16', { bits: 16, type: 'float16' }],
  ['BF16', { bits: 16, type: 'bfloat16' }],
  ['I64', { bits: 64, type: 'int64' }],
  ['I32', { bits: 32, type: 'int32' }],
  ['I16', { bits: 16, type: 'int16' }],
  ['I8', { bits: 8, type: 'int8' }],
  ['U64', { bits: 64, type: 'uint64' }],
  ['U32', { bits: 32, type: 'uint32' }],
  ['U16', { bits: 16, type: 'uint16' }],
  ['U8', { bits: 8, type: 'uint8' }],
  ['BOOL', { bits: 8, type: 'bool' }],
  ['C64', { bits: 64 }],
  ['F8_E4M3', { bits: 8 }],
  ['F8_E5M2', { bits: 8 }],
  ['F8_E8M0', { bits: 8 }],
  ['F8_E4M3FNUZ', { bits: 8 }],
  ['F8_E5M2FNUZ', { bits: 8 }],
  ['F6_E2M3', { bits: 6 }],
  ['F6_E3M2', { bits: 6 }],
  ['F4', { bits: 4 }],
]);

/** The format's own limit for the header (https://huggingface.co/docs/safetensors). */
const maxHeaderBytes = 100_000_000;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * Reads a safetensors file's bytes. The tensors are views of the bytes, which must not change while the tensors are in
 * use.
 *
 * As in the reference implementation, the tensors must cover the data without a gap or an overlap.
 *
 * @throws TensorRTError ERR_MODEL_INVALID if the file isn't complete and well-formed; TypeError ERR_INVALID_ARG_TYPE
 */
export function parseSafetensors(source: Bytes): Safetensors {
  const bytes = bytesOf(source, 'bytes');
  if (!bytes) throw invalidArgType('bytes', 'a Uint8Array or an ArrayBuffer', source);
  if (bytes.length < 8) throw invalid(`it has ${bytes.length} bytes, and the header's length alone takes 8`);
  const headerBytes = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (headerBytes > maxHeaderBytes) throw invalid(`its header claims ${headerBytes} bytes`);
  const dataStart = 8 + headerBytes;
  if (dataStart > bytes.length) {
    throw invalid(`its header claims ${headerBytes} bytes where ${bytes.length - 8} remain: it is truncated`);
  }
  let header: unknown;
  try {
    header = JSON.parse(utf8.decode(bytes.subarray(8, dataStart)));
  } catch (cause) {
    throw new TensorRTError(
      'ERR_MODEL_INVALID',
      "This isn't a valid safetensors file: its header isn't JSON.",
      {
        cause,
      },
    );
  }
  if (!isObject(header)) throw invalid("its header isn't a JSON object");

  const data = bytes.subarray(dataStart);
  const found: { tensor: SafetensorsTensor; begin: number; end: number }[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') {
      if (!isObject(entry) || !Object.values(entry).every((v) => typeof v === 'string')) {
        throw invalid('its __metadata__ is no map of strings');
      }
      metadata = entry as Record<string, string>;
      continue;
    }
    found.push(readEntry(name, entry, data));
  }
  found.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const { tensor, begin, end } of found) {
    if (begin !== at) {
      throw invalid(
        `tensor "${tensor.name}" starts at ${begin}, where ${at} was expected: tensors overlap or leave a gap`,
      );
    }
    at = end;
  }
  if (at !== data.length) throw invalid(`its tensors end at byte ${at} of ${data.length}`);
  // The tensors are in the order of their data, which is the best order to read them in.
  return { tensors: new Map(found.map(({ tensor }) => [tensor.name, tensor])), metadata };
}

function readEntry(
  name: string,
  entry: unknown,
  data: Uint8Array,
): { tensor: SafetensorsTensor; begin: number; end: number } {
  if (!isObject(entry)) throw invalid(`tensor "${name}" is no JSON object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  const info = typeof dtype === 'string' ? dtypes.get(dtype) : undefined;
  if (typeof dtype !== 'string' || info === undefined) {
    throw invalid(`tensor "${name}" has the unknown type ${describe(dtype)}`);
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) throw invalid(`tensor "${name}" has no valid shape`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw invalid(`tensor "${name}" has no valid data_offsets`);
  }
  const dims = shape as number[];
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > data.length) {
    throw invalid(`tensor "${name}" claims bytes ${begin} to ${end} of ${data.length}`);
  }
  const bits = dims.reduce((n, d) => n * d, info.bits);
  if (bits !== (end - begin) * 8) {
    throw invalid(`tensor "${name}" has ${end - begin} bytes; ${dtype} ${dimsText(dims)} needs ${bits / 8}`);
  }
  return { tensor: { name, dtype, type: info.type, dims, bytes: data.subarray(begin, end) }, begin, end };
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function invalid(problem: string): TensorRTError {
  return new TensorRTError('ERR_MODEL_INVALID', `This isn't a valid safetensors file: ${problem}.`);
}

/**
 * Reads a safetensors file into memory.
 *
 * @throws TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, or ERR_IO with the cause.
 */
export async function readSafetensors(path: string): Promise<Safetensors> {
  checkPath(path, 'path');
  return named(path, await readWhole(path, 'safetensors weights'));
}

/** Does the same as {@link readSafetensors}, but blocks. */
export function readSafetensorsSync(path: string): Safetensors {
  checkPath(path, 'path');
  return named(path, readWholeSync(path, 'safetensors weights'));
}

function named(path: string, bytes: Uint8Array): Safetensors {
  try {
    return parseSafetensors(bytes);
  } catch (error) {
    if (!(error instanceof TensorRTError)) throw error;
    throw new TensorRTError('ERR_MODEL_INVALID', `${path}: ${error.message}`, { cause: error });
  }
}

/**
 * Makes the beginning of a safetensors file, which the tensors' bytes follow in the same order.
 *
 * @param tensors the tensors, each of one dimension
 */
export function safetensorsHeader(
  tensors: readonly { name: string; dtype: string; bytes: Uint8Array }[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  let end = 0;
  const entries = tensors.map(({ name, dtype, bytes }) => {
    const begin = end;
    end += bytes.length;
    const shape = [(bytes.length * 8) / dtypes.get(dtype)!.bits];
    return [name, { dtype, shape, data_offsets: [begin, end] }] as const;
  });
  const json = JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) });
  // Spaces pad the header to a multiple of 8 bytes, as in the reference implementation.
  const text = new TextEncoder().encode(json);
  const header = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(text, 8);
  return header;
}
