import { open, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { TensorRTError } from '../errors.js';

/**
 * Writes a file that appears whole or not at all: it is written beside its place, then renamed. What is no ordinary
 * file, a pipe or a device, is written to; of a symbolic link, what it leads to.
 * @param what 'engine', 'model': for the error's text
 * @throws (rejects) TensorRTError ERR_IO with the cause
 */
export async function writeAtomically(
  file: string,
  pieces: readonly Uint8Array[],
  what: string,
): Promise<void> {
  let temporary: string | undefined;
  try {
    const existing = await stat(file).catch(() => undefined);
    if (existing && !existing.isFile()) return await write(file, 'w', pieces);
    // Another process may have removed it meanwhile.
    const target = await realpath(file).catch(() => file);
    temporary = join(dirname(target), `.${basename(target)}.${Math.random().toString(36).slice(2)}.tmp`);
    await write(temporary, 'wx', pieces);
    await rename(temporary, target);
  } catch (cause) {
    if (temporary) await rm(temporary, { force: true }).catch(() => undefined);
    throw new TensorRTError('ERR_IO', `Can't write the ${what} ${file}: ${(cause as Error).message}.`, {
      cause,
    });
  }
}

async function write(file: string, flags: 'w' | 'wx', pieces: readonly Uint8Array[]): Promise<void> {
  const handle = await open(file, flags);
  try {
    for (const piece of pieces) await handle.writeFile(piece);
    if (flags === 'wx') await handle.sync();
  } finally {
    await handle.close();
  }
}
