import { constants } from 'node:buffer';
import { TensorRTError } from '../../base/errors.js';

/**
 * Bytes outside the JavaScript heap, of any length: in native memory, or a part of a file, which is read when they are
 * used. Where the file was changed meanwhile, what reads all of them fails with ERR_IO. After `release()` everything
 * throws ERR_DISPOSED.
 */
export interface NativeBytes {
  readonly byteLength: number;
  /** Fills `into` with those from `from` on. Blocks. Throws ERR_INVALID_ARG_VALUE where there are fewer, ERR_IO. */
  read(from: number, into: Uint8Array): void;
  /** SHA-256 of `before` and all of them, computed on a thread. Rejects with ERR_IO. */
  sha256(before: Uint8Array): Promise<Uint8Array>;
  /** The same, blocking. Throws ERR_IO. */
  sha256Sync(before: Uint8Array): Uint8Array;
  /** Writes them where the file's position is, on a thread. Rejects with ERR_IO. */
  writeTo(descriptor: number): Promise<void>;
  /** Sets the time of the last access to their file, and to nothing else of it; where it can't, it doesn't. */
  markUsed(): void;
  /** Another handle on the same bytes. */
  share(): NativeBytes;
  /** The bytes themselves, where the host allows it, else a copy. Nothing else may use them; this releases them. */
  handOver(): ArrayBuffer;
  /** Lets go of them: they are freed when no other handle and no thread has them. */
  release(): void;
}

/**
 * Refuses bytes of which there are too many for a Uint8Array.
 * @param what they are, as the beginning of a sentence
 * @param instead what writes them to a file
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
