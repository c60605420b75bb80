import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';

// Any of the system's files may be missing or closed to us. A file that can't be read is empty here.

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
 * Returns ' (…)' with the reason if a folder is there, or may be, and is closed to us: for the list of folders that
 * were searched.
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

/** The version that a shared library's file is named after: '580.65.06' of a link to libcuda.so.580.65.06. */
export function fileVersion(library: string): string | undefined {
  try {
    return /\.so\.(\d+(?:\.\d+)+)$/.exec(realpathSync(library))?.[1];
  } catch {
    return undefined;
  }
}
