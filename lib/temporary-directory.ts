import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';

/** What has to be removed when the process exits first. */
const live = new Set<string>();

/**
 * A new, empty folder: `prefix` and random characters. It is removed by `remove()`, or when the process exits.
 * @throws (rejects) the file system's error
 */
export async function temporaryDirectory(
  prefix: string,
): Promise<{ readonly path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(prefix);
  if (live.size === 0) process.on('exit', removeAll);
  live.add(path);
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true });
      live.delete(path);
      if (live.size === 0) process.off('exit', removeAll);
    },
  };
}

function removeAll(): void {
  for (const path of live) rmSync(path, { recursive: true, force: true });
}
