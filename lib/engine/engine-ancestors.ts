import path from 'node:path';
import { read, readdir, withDescriptor } from '../system/files/promises.js';
import { Engine } from './engine.js';
import { engineIdOf } from './engine-file.js';
import type { EngineManifest } from './manifest.js';

/** An engine that another one descends from. */
export interface Ancestor {
  /** Its {@link Engine.id}, as its descendant's manifest says it. */
  readonly id: string;
  /** The file in which it was found, its checksum verified; absent if it wasn't found. */
  readonly file?: string;
  readonly manifest?: EngineManifest;
}

/** A longer chain than anyone's: a file that names thousands is no reason to read thousands. */
const maxAncestors = 100;

/**
 * The engines that an engine descends from, the nearest first, as far as they are found: engine files in some folders,
 * whole and by their own checksums. The last one has no parent, or no file.
 */
export async function findAncestors(engine: Engine, directories: readonly string[]): Promise<Ancestor[]> {
  const ancestors: Ancestor[] = [];
  const seen = new Set([engine.id]);
  let { parent } = engine.manifest;
  const files = parent === undefined ? new Map() : await engineFiles(directories);
  while (parent !== undefined && ancestors.length < maxAncestors) {
    const found: { file: string; manifest: EngineManifest } | undefined = await load(
      parent,
      files.get(parent),
    );
    ancestors.push({ id: parent, ...found });
    // No engine descends from itself, whatever its file claims.
    parent = found && !seen.has(parent) ? found.manifest.parent : undefined;
    seen.add(ancestors.at(-1)!.id);
  }
  return ancestors;
}

async function load(
  id: string,
  file: string | undefined,
): Promise<{ file: string; manifest: EngineManifest } | undefined> {
  if (file === undefined) return undefined;
  try {
    using engine = await Engine.load(file);
    return engine.id === id ? { file, manifest: engine.manifest } : undefined;
  } catch {
    return undefined;
  }
}

/** Lists engine files by the ids that their headers claim. */
async function engineFiles(directories: readonly string[]): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const directory of directories) {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isFile()) continue;
      const file = path.join(directory, entry.name);
      const id = await claimedId(file);
      if (id !== undefined && !files.has(id)) files.set(id, file);
    }
  }
  return files;
}

async function claimedId(file: string): Promise<string | undefined> {
  const head = Buffer.alloc(128);
  try {
    const { bytesRead } = await withDescriptor(file, 'r', (descriptor) =>
      read(descriptor, head, 0, head.length, 0),
    );
    return engineIdOf(head.subarray(0, bytesRead));
  } catch {
    return undefined;
  }
}
