import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { TensorRTError } from '../../base/errors.js';
import { failedDownload, seenBytes } from './file-format.js';
import { fstat, mostBytes, read, withDescriptor } from './promises.js';

/** The size of the pieces in which a file is read while the previous piece is in use. Bytes. */
const streamedBytes = 2 ** 21;

/**
 * Opens a file, calls `use` with its descriptor and size, and closes the file when `use` has finished.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND if the file doesn't exist, else ERR_IO with the cause; whatever
 *   `use` throws
 */
export async function withOpenFile<T>(
  path: string,
  what: string,
  use: (descriptor: number, size: number) => Promise<T>,
): Promise<T> {
  try {
    return await withDescriptor(path, constants.O_RDONLY | constants.O_NONBLOCK, async (descriptor) => {
      const stats = await fstat(descriptor);
      if (!stats.isFile()) throw Object.assign(new Error('it is not a file'), { code: 'EISDIR' });
      return await use(descriptor, stats.size);
    });
  } catch (cause) {
    throw readError(path, what, cause);
  }
}

/** Reads the first `length` bytes of an open file, even beyond the 2 GiB that one call reads. See {@link readWhole}. */
export async function readStart(
  descriptor: number,
  length: number,
  use?: (piece: Uint8Array, at: number) => void,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let used = 0;
  let at = 0;
  while (at < length) {
    const piece = Math.min(use ? streamedBytes : mostBytes, length - at);
    const reading = read(descriptor, bytes, at, piece, at);
    if (use && at > used) use(bytes.subarray(used, at), used);
    used = at;
    const { bytesRead } = await reading;
    if (bytesRead === 0) throw new Error('the file got shorter while it was read');
    at += bytesRead;
  }
  if (use && at > used) use(bytes.subarray(used, at), used);
  return bytes;
}

/**
 * Reads a whole file, even beyond the 2 GiB that `fs.readFile` can read.
 * @param use called with each piece, in order, while the next is being read
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND if the file doesn't exist, else ERR_IO with the cause
 */
export function readWhole(
  path: string,
  what: string,
  use?: (piece: Uint8Array, at: number) => void,
): Promise<Uint8Array> {
  return withOpenFile(path, what, (descriptor, size) => readStart(descriptor, size, use));
}

/** The blocking form of {@link readWhole}. */
export function readWholeSync(path: string, what: string): Uint8Array {
  return withFile(path, what, (descriptor, size) => {
    const bytes = new Uint8Array(size);
    fill(descriptor, bytes, 0);
    return bytes;
  });
}

/**
 * Reads `[offset, offset + length)` of a file in pieces, blocking, and calls `use` with each; the piece's memory is
 * reused. Without a length, reads to the end of the file.
 *
 * @throws TensorRTError ERR_MODEL_INVALID if the file is too short, ERR_MODEL_NOT_FOUND, ERR_IO.
 */
export function readRange(
  path: string,
  what: string,
  range: { readonly offset: number; readonly length: number | undefined },
  chunkBytes: number,
  use: (chunk: Uint8Array, at: number) => void,
): void {
  withFile(path, what, (descriptor, size) => {
    const length = rangeLength(path, what, range, size);
    const chunk = new Uint8Array(Math.min(chunkBytes, length));
    for (let at = 0; at < length; at += chunk.length) {
      const part = chunk.subarray(0, Math.min(chunk.length, length - at));
      fill(descriptor, part, range.offset + at);
      use(part, at);
    }
  });
}

/** Reads a range into one array. See {@link readRange}. */
export function readRangeWhole(
  path: string,
  what: string,
  range: { readonly offset: number; readonly length: number | undefined },
): Uint8Array {
  return withFile(path, what, (descriptor, size) => {
    // The length comes from the model, so it is checked against the file before memory is allocated.
    const bytes = new Uint8Array(rangeLength(path, what, range, size));
    fill(descriptor, bytes, range.offset);
    return bytes;
  });
}

/**
 * The size in bytes of a file of weights. Opens the file to check that it can be read.
 *
 * @throws TensorRTError ERR_MODEL_NOT_FOUND, ERR_IO; ERR_MODEL_INVALID if a failed download left something else.
 */
export function sizeOfWeights(path: string, what: string): number {
  try {
    return withFile(path, what, (_, size) => size);
  } catch (error) {
    if (!(error instanceof TensorRTError) || error.code !== 'ERR_MODEL_NOT_FOUND') throw error;
    throw new TensorRTError(
      'ERR_MODEL_NOT_FOUND',
      `There is no file ${path}: the model keeps its weights there, beside its .onnx file (${what}).`,
      { cause: error },
    );
  }
}

/**
 * The length of a range in bytes.
 *
 * @throws TensorRTError ERR_MODEL_INVALID if it ends after the file's `size`.
 */
export function rangeLength(
  path: string,
  what: string,
  range: { readonly offset: number; readonly length: number | undefined },
  size: number,
): number {
  const length = range.length ?? size - range.offset;
  if (length < 0 || range.offset + length > size) {
    throw new TensorRTError(
      'ERR_MODEL_INVALID',
      `${what} should be bytes ${range.offset} to ${range.offset + Math.max(length, 0)} of ${path}, which has ${size}.`,
    );
  }
  return length;
}

function withFile<T>(path: string, what: string, use: (descriptor: number, size: number) => T): T {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) throw Object.assign(new Error('it is not a file'), { code: 'EISDIR' });
    const start = new Uint8Array(Math.min(stats.size, seenBytes));
    fill(descriptor, start, 0);
    const other = failedDownload(start);
    if (other) throw new TensorRTError('ERR_MODEL_INVALID', `${path} (${what}) is ${other}`);
    return use(descriptor, stats.size);
  } catch (cause) {
    throw readError(path, what, cause);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function fill(descriptor: number, bytes: Uint8Array, position: number): void {
  let at = 0;
  while (at < bytes.length) {
    const read = readSync(descriptor, bytes, at, Math.min(mostBytes, bytes.length - at), position + at);
    if (read === 0) throw new Error('the file got shorter while it was read');
    at += read;
  }
}

function readError(path: string, what: string, cause: unknown): unknown {
  if (cause instanceof TensorRTError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new TensorRTError('ERR_MODEL_NOT_FOUND', `There is no file ${path} (${what}).`, { cause });
  }
  return new TensorRTError('ERR_IO', `Can't read ${path} (${what}): ${message}.`, { cause });
}
