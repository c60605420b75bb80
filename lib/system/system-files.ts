import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';

// Of the system's files, any may be missing or closed to us: what can't be read is empty.

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

/** For the list of folders that were looked in: ' (…)' with the reason where one is there, or may be, and is closed to us. */
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
