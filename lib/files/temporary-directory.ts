import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { native } from '../native.js';

/**
 * A new, empty folder: `prefix` and random characters. It is removed by `remove()`, or when the process exits or the
 * worker that made it ends, however it ends.
 * @throws the file system's error
 */
export function temporaryDirectory(prefix: string): { readonly path: string; remove(): Promise<void> } {
  const { ownDirectory, disownDirectory } = native();
  // Not a moment in between: who is ended there leaves it behind.
  const path = mkdtempSync(prefix);
  ownDirectory(path);
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true });
      disownDirectory(path);
    },
  };
}
