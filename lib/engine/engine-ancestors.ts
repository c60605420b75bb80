import path from 'node:path';
import { read, readdir, withDescriptor } from '../system/files/promises.js';
import { Engine } from './engine.js';
import { engineIdOf } from './engine-file.js';
import type { EngineManifest } from './manifest.js';

/** An engine that another one descends from. */
export interface Ancestor {
  /** Its {@link Engine.id}, as its descendant's manifest gives it. */
  readonly id: string;
  /** The file in which it was found, with its checksum verified; absent if it was not found. */
  readonly file?: string;
  readonly manifest?: EngineManifest;
}

/** Longer than any real chain, so that a file that names thousands of ancestors doesn't cause thousands of reads. */
const maxAncestors = 100;

/**
 * Finds the engines that an engine descends from, the nearest first, among the engine files in some folders. Each must
 * be complete and match its checksum. The last one has no parent, or its parent's file was not found.
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
    // An engine can't descend from itself, whatever its file claims.
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

/** Engine files by the ids that their headers claim. */
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
