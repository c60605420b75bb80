import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

// The functions of `node:fs/promises` that this package uses, written with `node:fs`. If a worker ends, with the
// process or terminated, while it enters a function of `node:fs/promises`, Node aborts the process (seen with 20.20):
// "Assertion failed: (req_wrap_async) != nullptr". Files are plain descriptors here; Node closes the ones that a worker
// has open when it ends.

const close = promisify(fs.close);
export const fstat = promisify(fs.fstat);
export const fsync = promisify(fs.fsync);
const mkdir = promisify(fs.mkdir);
const open = promisify(fs.open);
export const read = promisify(fs.read);
export const readdir = promisify(fs.readdir);
export const readFile = promisify(fs.readFile);
export const realpath = promisify(fs.realpath.native);
export const rename = promisify(fs.rename);
export const rm = promisify(fs.rm);
export const stat = promisify(fs.stat);
export const symlink = promisify(fs.symlink);
export const write = promisify(fs.write);

/** Makes a folder in an existing one. */
export async function makeDirectory(directory: string, mode = 0o777): Promise<void> {
  await mkdir(directory, { mode });
}

/**
 * Makes a folder and its missing parents, trying each once. Node's recursive mkdir can't be used: it never returns for
 * a path where no folder can be created although a parent exists, as in /proc (seen with 20.20).
 */
export async function makeDirectories(directory: string, mode = 0o777): Promise<void> {
  try {
    await makeDirectory(directory, mode);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && (await stat(directory)).isDirectory()) return;
    const parent = path.dirname(directory);
    if (code !== 'ENOENT' || parent === directory) throw error;
    await makeDirectories(parent, mode);
    await makeDirectory(directory, mode).catch((again: NodeJS.ErrnoException) => {
      // Another process made it first.
      if (again.code !== 'EEXIST') throw again;
    });
  }
}

/** On Linux, one call of read or write moves less than 2 GiB. Pieces of this size stay below the limit everywhere. */
export const mostBytes = 2 ** 30;

/** Opens a file, calls `use` with its descriptor, and closes the file when `use` has finished. */
export async function withDescriptor<Value>(
  file: string,
  flags: string | number,
  use: (descriptor: number) => Promise<Value>,
): Promise<Value> {
  const descriptor = await open(file, flags);
  try {
    return await use(descriptor);
  } finally {
    await close(descriptor);
  }
}
