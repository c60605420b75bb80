import { readdirSync, readFileSync } from 'node:fs';

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
