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

/** The part after the prefix in the name of a folder's lock. */
const lockSuffix = /^[0-9a-f]{16}\.lock$/;

/**
 * A new, empty folder: `prefix` and random characters. It is removed by `remove()`, or when the process exits or the
 * worker that made it ends, however it ends; after a SIGKILL by the next call with this prefix. For that, a lock beside
 * it is held while it exists.
 * @throws (rejects) the file system's error; TensorRTError ERR_IO where no lock can be had
 */
export async function temporaryDirectory(
  prefix = path.join(tmpdir(), 'node-tensorrt-'),
): Promise<TemporaryDirectory> {
  await removeAbandoned(prefix);
  const { ownDirectory, disownDirectory } = native();
  let directory: string;
  // Another process may look at the lock of a name just made, to see whether it was abandoned, before we hold it.
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

/** Removes the folders whose lock nobody holds. Without the lock's file it is not known whose they are: they stay. */
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
      // Another user's, or still written to: then it stays ours, and is removed when this process or worker ends.
    }
  }
}

/** A temporary folder for what is written on the way. @throws (rejects) TensorRTError ERR_IO */
export async function scratchDirectory(): Promise<TemporaryDirectory> {
  try {
    return await temporaryDirectory();
  } catch (cause) {
    throw new TensorRTError(
      'ERR_IO',
      `Could not make a folder in ${tmpdir()}: ${(cause as Error).message.replace(/\.$/, '')}. TMPDIR names another.`,
      { cause },
    );
  }
}
