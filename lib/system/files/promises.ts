import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

// These replace the functions of `node:fs/promises` that this package uses, and are made of `node:fs`. Node (seen with
// 20.20) aborts the process if a worker ends, with the process or terminated, while it enters a function of
// `node:fs/promises`: "Assertion failed: (req_wrap_async) != nullptr". Files are descriptors here; Node closes those
// that a worker has open when it ends.

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

/** Makes a folder in one that is there. */
export async function makeDirectory(directory: string, mode = 0o777): Promise<void> {
  await mkdir(directory, { mode });
}

/**
 * Makes a folder, and those that it is to be in, where they are not there yet. Not Node's recursive mkdir, which never
 * ends where there can be no folder though there is one above, as in /proc (seen with 20.20): each is tried once.
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
      // Another was faster.
      if (again.code !== 'EEXIST') throw again;
    });
  }
}

/** A call of read or write moves less than 2 GiB on Linux; pieces of this size stay below everyone's limit. */
export const mostBytes = 2 ** 30;

/** Opens a file for as long as `use` takes. */
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
