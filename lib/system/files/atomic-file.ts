import { basename, dirname, join } from 'node:path';
import { TensorRTError } from '../../base/errors.js';
import type { NativeBytes } from '../native/bytes.js';
import { fsync, mostBytes, realpath, rename, rm, stat, withDescriptor, write } from './promises.js';

export type Piece = Uint8Array | Pick<NativeBytes, 'writeTo'>;

/**
 * Writes a file that appears whole or not at all: writes it beside its destination, then renames it. Writes directly to
 * anything that isn't an ordinary file, such as a pipe or a device. Follows a symbolic link to its target.
 * @param what 'engine', 'model': for the error's text
 * @throws (rejects) TensorRTError ERR_IO with the cause
 */
export async function writeAtomically(file: string, pieces: readonly Piece[], what: string): Promise<void> {
  let temporary: string | undefined;
  try {
    const existing = await stat(file).catch(() => undefined);
    if (existing && !existing.isFile()) return await writePieces(file, 'w', pieces);
    // Another process may have removed the file meanwhile.
    const target = await realpath(file).catch(() => file);
    temporary = join(dirname(target), `.${basename(target)}.${Math.random().toString(36).slice(2)}.tmp`);
    await writePieces(temporary, 'wx', pieces, { sync: true });
    await rename(temporary, target);
  } catch (cause) {
    if (temporary) await rm(temporary, { force: true }).catch(() => undefined);
    throw new TensorRTError(
      'ERR_IO',
      `Can't write the ${what} ${file}: ${(cause as Error).message.replace(/\.$/, '')}.`,
      {
        cause,
      },
    );
  }
}

/**
 * Writes a file directly, without the rename.
 * @param flags 'wx': the file must not exist
 * @param options.sync true to flush the file to disk at the end
 * @throws (rejects) the file system's error
 */
export async function writePieces(
  file: string,
  flags: 'w' | 'wx',
  pieces: readonly Piece[],
  { sync = false } = {},
): Promise<void> {
  await withDescriptor(file, flags, async (descriptor) => {
    for (const piece of pieces) {
      if (!(piece instanceof Uint8Array)) {
        await piece.writeTo(descriptor);
        continue;
      }
      for (let at = 0; at < piece.length; ) {
        const part = Math.min(piece.length - at, mostBytes);
        at += (await write(descriptor, piece, at, part)).bytesWritten;
      }
    }
    if (sync) await fsync(descriptor);
  });
}
