import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { randomBytes } from '../../base/crypto.js';
import { TensorRTError } from '../../base/errors.js';
import { native } from '../native.js';
import { readdir, rm } from './promises.js';

export interface TemporaryDirectory {
  readonly path: string;
  remove(): Promise<void>;
}

/** The end of the name of a folder's lock, after the prefix. */
const lockSuffix = /^[0-9a-f]{16}\.lock$/;

/**
 * Makes a new, empty folder, named `prefix` and random characters. It is removed by `remove()`, or when the process
 * exits or the worker that made it ends, however it ends. After a SIGKILL, the next call with the same prefix removes
 * it. For that, a lock beside the folder is held while it exists.
 * @throws (rejects) the file system's error; TensorRTError ERR_IO if the lock can't be taken
 */
export async function temporaryDirectory(
  prefix = path.join(tmpdir(), 'node-tensorrt-'),
): Promise<TemporaryDirectory> {
  await removeAbandoned(prefix);
  const { ownDirectory, disownDirectory } = native();
  let directory: string;
  // Before we hold the new lock, another process may test it to see whether the folder was abandoned.
  do directory = `${prefix}${randomBytes(8).toString('hex')}`;
  while (!ownDirectory(directory));
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (error) {
    disownDirectory(directory);
    throw error;
  }
  return {
    path: directory,
    async remove() {
      await rm(directory, { recursive: true, force: true });
      disownDirectory(directory);
    },
  };
}

/** Removes the folders whose lock nobody holds. A folder without a lock file has an unknown owner and stays. */
async function removeAbandoned(prefix: string): Promise<void> {
  const { ownDirectory, disownDirectory } = native();
  const parent = path.dirname(prefix);
  const start = path.basename(prefix);
  for (const name of await readdir(parent).catch(() => [])) {
    if (!name.startsWith(start) || !lockSuffix.test(name.slice(start.length))) continue;
    const directory = path.join(parent, name.slice(0, -'.lock'.length));
    try {
      if (!ownDirectory(directory)) continue;
      await rm(directory, { recursive: true, force: true });
      disownDirectory(directory);
    } catch {
      // It belongs to another user or is still being written to. Then it stays ours, and is removed when this process
      // or worker ends.
    }
  }
}

/**
 * Makes a temporary folder for intermediate files.
 * @throws (rejects) TensorRTError ERR_IO, ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED
 */
export async function scratchDirectory(): Promise<TemporaryDirectory> {
  try {
    return await temporaryDirectory();
  } catch (cause) {
    // An addon that can't be loaded says more by itself.
    if (cause instanceof TensorRTError && cause.code !== 'ERR_IO') throw cause;
    throw new TensorRTError(
      'ERR_IO',
      `Could not make a folder in ${tmpdir()}: ${(cause as Error).message.replace(/\.$/, '')}. Set TMPDIR to another folder.`,
      { cause },
    );
  }
}
