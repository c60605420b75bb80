import { constants } from 'node:buffer';
import { TensorRTError } from '../../base/errors.js';

/**
 * Bytes outside the JavaScript heap, of any length: either in native memory, or a part of a file that is read on use.
 * If the file was changed meanwhile, a call that reads all bytes fails with ERR_IO. After `release()` every method
 * throws ERR_DISPOSED.
 */
export interface NativeBytes {
  readonly byteLength: number;
  /** Fills `into` with the bytes from `from` on. Blocks. Throws ERR_INVALID_ARG_VALUE if there are too few, ERR_IO. */
  read(from: number, into: Uint8Array): void;
  /** SHA-256 of `before` followed by all the bytes, computed on a thread. Rejects with ERR_IO. */
  sha256(before: Uint8Array): Promise<Uint8Array>;
  /** The blocking form of `sha256()`. Throws ERR_IO. */
  sha256Sync(before: Uint8Array): Uint8Array;
  /** Writes the bytes at the file's current position, on a thread. Rejects with ERR_IO. */
  writeTo(descriptor: number): Promise<void>;
  /** Sets the file's access time, and leaves its other times alone. Does nothing where that isn't possible. */
  markUsed(): void;
  /** Another handle on the same bytes. */
  share(): NativeBytes;
  /**
   * Returns the bytes without a copy if the host allows it, else a copy. Nothing else may use them; this releases them.
   */
  handOver(): ArrayBuffer;
  /** Releases this handle. The bytes are freed once no other handle and no thread uses them. */
  release(): void;
}

/**
 * Refuses more bytes than fit into a Uint8Array.
 * @param what names the bytes, at the beginning of the sentence
 * @param instead names the call that writes them to a file
 * @throws TensorRTError ERR_BUFFER_TOO_LARGE
 */
export function requireArrayLength(
  { byteLength }: Pick<NativeBytes, 'byteLength'>,
  what: string,
  instead: string,
): void {
  if (byteLength <= constants.MAX_LENGTH) return;
  throw new TensorRTError(
    'ERR_BUFFER_TOO_LARGE',
    `${what} has ${byteLength} bytes; a Uint8Array holds at most ${constants.MAX_LENGTH} here. ${instead} writes it to a file.`,
  );
}
