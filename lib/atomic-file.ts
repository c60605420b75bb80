import { open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { TensorRTError } from './errors.js';

/**
 * Writes a file that appears whole or not at all: it is written beside its place, then renamed.
 * @param what 'engine', 'model': for the error's text
 * @throws (rejects) TensorRTError ERR_IO with the cause
 */
export async function writeAtomically(
  file: string,
  pieces: readonly Uint8Array[],
  what: string,
): Promise<void> {
  const temporary = join(dirname(file), `.${basename(file)}.${Math.random().toString(36).slice(2)}.tmp`);
  try {
    const handle = await open(temporary, 'wx');
    try {
      for (const piece of pieces) await handle.writeFile(piece);
      await handle.sync();
    } finally {
      await handle.close();
    }
    // Renaming onto an empty folder would succeed on some systems.
    const existing = await stat(file).catch(() => undefined);
    if (existing?.isDirectory()) throw Object.assign(new Error('EISDIR: it is a folder'), { code: 'EISDIR' });
    await rename(temporary, file);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw new TensorRTError('ERR_IO', `Can't write the ${what} ${file}: ${(cause as Error).message}.`, {
      cause,
    });
  }
}
