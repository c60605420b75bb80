import type { BigIntStats } from 'node:fs';
import path from 'node:path';
import { writeAtomically } from './atomic-file.js';
import { makeDirectories, readFile, stat } from './promises.js';

interface Entry<Value> {
  /** The file's {@link stamp} when the value was computed. */
  readonly stamp: string;
  readonly value: Value;
}

/** An entry takes a few hundred bytes, so the memo stays small enough to read at every build. */
const maxEntries = 1000;

/**
 * Remembers facts about files, so that they needn't be computed again for an unchanged file. A file is recognised as
 * git's index does it: by device, inode, size, time of modification and time of change. The memo is one JSON file. If
 * it can't be read or written, the facts are only computed again.
 */
export class FileMemo<Value> {
  readonly #file: string;
  readonly #isValue: (value: unknown) => value is Value;
  /** The most recent entry is last. */
  readonly #entries: Map<string, Entry<Value>>;
  #changed = false;

  private constructor(
    file: string,
    isValue: (value: unknown) => value is Value,
    entries: Map<string, Entry<Value>>,
  ) {
    this.#file = file;
    this.#isValue = isValue;
    this.#entries = entries;
  }

  static async read<Value>(
    file: string,
    isValue: (value: unknown) => value is Value,
  ): Promise<FileMemo<Value>> {
    const entries = new Map<string, Entry<Value>>();
    try {
      const parsed: Record<string, Entry<Value>> = JSON.parse(await readFile(file, 'utf8'));
      for (const [key, entry] of Object.entries(parsed)) entries.set(key, entry);
    } catch {
      // The file doesn't exist or is damaged. It will be written anew.
    }
    return new FileMemo(file, isValue, entries);
  }

  get(stats: BigIntStats): Value | undefined {
    const entry = this.#entries.get(fileKey(stats));
    return entry?.stamp === stamp(stats) && this.#isValue(entry.value) ? entry.value : undefined;
  }

  /**
   * Keeps a value, unless the file was so new when it was read that a later change could have the same timestamp.
   * @param stats the file's statistics before and after it was read
   * @param began when reading began, in milliseconds since 1970
   */
  set(stats: BigIntStats, began: number, value: Value): void {
    const newest = stats.mtimeNs > stats.ctimeNs ? stats.mtimeNs : stats.ctimeNs;
    if (Number(newest / 1_000_000n) + timestampStep(stats) >= began) return;
    const key = fileKey(stats);
    this.#entries.delete(key);
    this.#entries.set(key, { stamp: stamp(stats), value });
    this.#changed = true;
  }

  /** Writes the added entries to the file. */
  async save(): Promise<void> {
    if (!this.#changed) return;
    const text = JSON.stringify(Object.fromEntries([...this.#entries].slice(-maxEntries)));
    try {
      await makeDirectories(path.dirname(this.#file), 0o700);
      await writeAtomically(this.#file, [Buffer.from(text)], 'memo');
    } catch {
      // The facts will be computed again.
    }
  }
}

/** The statistics by which {@link FileMemo} recognises a file; undefined if the file doesn't exist. */
export function statistics(file: string): Promise<BigIntStats | undefined> {
  return stat(file, { bigint: true }).catch(() => undefined);
}

/** True if both describe the same, unchanged file. */
export function isUnchanged(before: BigIntStats, after: BigIntStats | undefined): boolean {
  return after !== undefined && identity(before) === identity(after);
}

/** Identifies a file and its state. */
export function identity(stats: BigIntStats): string {
  return `${fileKey(stats)}:${stamp(stats)}`;
}

function fileKey({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`;
}

/** The part of {@link identity} that changes when the file does. */
export function stamp({ size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${size}:${mtimeNs}:${ctimeNs}`;
}

/**
 * Milliseconds within which two changes may have the same timestamp: a tick of Linux's clock (at most 10), or a second.
 */
function timestampStep({ mtimeNs, ctimeNs }: BigIntStats): number {
  const wholeSeconds = mtimeNs % 1_000_000_000n === 0n && ctimeNs % 1_000_000_000n === 0n;
  return wholeSeconds ? 2000 : 50;
}
