import fs from 'node:fs';
import { promisify } from 'node:util';

// What this package uses of `node:fs/promises`, made of `node:fs`. Node (seen with 20.20) aborts the process where a
// worker ends, with the process or terminated, while it enters a function of `node:fs/promises`: "Assertion failed:
// (req_wrap_async) != nullptr". Files are descriptors here; Node closes those that a worker has open when it ends.

const close = promisify(fs.close);
export const fstat = promisify(fs.fstat);
export const fsync = promisify(fs.fsync);
export const mkdir = promisify(fs.mkdir);
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
