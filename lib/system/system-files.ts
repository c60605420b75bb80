import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';

// Any of the system's files may be missing or unreadable. These functions then return an empty value.

export function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

export function isFile(file: string): boolean {
  try {
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/**
 * The reason why a folder can't be read, as ' (…)', for the list of folders that were searched; '' if it is readable or
 * doesn't exist.
 */
export function closedTo(folder: string): string {
  try {
    readdirSync(folder);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') return ` (${message.split(',')[0]})`;
  }
  return '';
}

/** The version in a shared library's file name: '580.65.06' for a link to libcuda.so.580.65.06. */
export function fileVersion(library: string): string | undefined {
  try {
    return /\.so\.(\d+(?:\.\d+)+)$/.exec(realpathSync(library))?.[1];
  } catch {
    return undefined;
  }
}
