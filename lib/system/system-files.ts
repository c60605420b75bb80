import { readdirSync, readFileSync, realpathSync } from 'node:fs';

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

/** The version that a shared library's file is named after: '580.65.06' of a link to libcuda.so.580.65.06. */
export function fileVersion(library: string): string | undefined {
  try {
    return /\.so\.(\d+(?:\.\d+)+)$/.exec(realpathSync(library))?.[1];
  } catch {
    return undefined;
  }
}
