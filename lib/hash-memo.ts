import type { BigIntStats } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { writeAtomically } from './atomic-file.js';

/** What is known of a file that has not changed since. */
export interface FileHash {
  /** Hexadecimal, of the whole file. */
  readonly sha256: string;
  /** Of an ONNX file, the paths of its external data, relative to its folder. */
  readonly external?: readonly string[];
}

interface Entry extends FileHash {
  readonly stamp: string;
}

/** Entries of about 200 bytes: the file stays small enough to read at every build. */
const maxEntries = 1000;

/**
 * Hashes of files by device, inode, size, time of modification and time of change, as git's index has them: a file of
 * which all five are as they were need not be read again. It lies in one file of JSON; what can't be read or written
 * is only forgotten.
 */
export class HashMemo {
  readonly #file: string;
  /** The most recent last. */
  readonly #entries: Map<string, Entry>;
  #changed = false;

  private constructor(file: string, entries: Map<string, Entry>) {
    this.#file = file;
    this.#entries = entries;
  }

  static async read(file: string): Promise<HashMemo> {
    const entries = new Map<string, Entry>();
    try {
      const parsed: unknown = JSON.parse(await readFile(file, 'utf8'));
      for (const [key, entry] of Object.entries(parsed as object))
        if (isEntry(entry)) entries.set(key, entry);
    } catch {
      // None yet, or a damaged one: it is written anew.
    }
    return new HashMemo(file, entries);
  }

  get(stats: BigIntStats): FileHash | undefined {
    const entry = this.#entries.get(fileKey(stats));
    return entry?.stamp === stamp(stats) ? entry : undefined;
  }

  /**
   * Keeps a hash, unless the file was so new when it was read that a later change could have the same time.
   * @param stats as they were before the file was read, and after
   * @param began when reading began, in milliseconds since 1970
   */
  set(stats: BigIntStats, began: number, { sha256, external }: FileHash): void {
    const newest = Number((stats.mtimeNs > stats.ctimeNs ? stats.mtimeNs : stats.ctimeNs) / 1_000_000n);
    if (newest + timestampStep(stats) >= began) return;
    const key = fileKey(stats);
    this.#entries.delete(key);
    this.#entries.set(key, { stamp: stamp(stats), sha256, ...(external?.length ? { external } : {}) });
    this.#changed = true;
  }

  /** Writes what was added. */
  async save(): Promise<void> {
    if (!this.#changed) return;
    const text = JSON.stringify(Object.fromEntries([...this.#entries].slice(-maxEntries)));
    try {
      await mkdir(path.dirname(this.#file), { recursive: true, mode: 0o700 });
      await writeAtomically(this.#file, [Buffer.from(text)], 'hashes of models');
    } catch {
      // Then they are made again.
    }
  }
}

function fileKey({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`;
}

function stamp({ size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${size}:${mtimeNs}:${ctimeNs}`;
}

/** Milliseconds within which two changes may have the same time: ticks of Linux's clock (at most 10), or seconds. */
function timestampStep({ mtimeNs, ctimeNs }: BigIntStats): number {
  const wholeSeconds = mtimeNs % 1_000_000_000n === 0n && ctimeNs % 1_000_000_000n === 0n;
  return wholeSeconds ? 2000 : 50;
}

function isEntry(value: unknown): value is Entry {
  if (typeof value !== 'object' || value === null) return false;
  const { stamp, sha256, external = [] } = value as Record<string, unknown>;
  return (
    typeof stamp === 'string' &&
    typeof sha256 === 'string' &&
    Array.isArray(external) &&
    external.every((location) => typeof location === 'string')
  );
}
