import path from 'node:path';
import type { TensorRTError } from '../base/errors.js';
import { cacheDirectory } from '../system/files/cache-directory.js';
import { type FileLock, fileLock, tryFileLock } from '../system/files/file-lock.js';
import { makeDirectories, readdir, rm, stat } from '../system/files/promises.js';
import { Engine } from './engine.js';

/** The name of an entry: its key, in hexadecimal. */
const entryName = /^([0-9a-f]{64})\.engine$/;
/** Files that a killed writer of an entry leaves behind: its temporary file (see `writeAtomically`) and its lock. */
const remainsName = /^(?:\.([0-9a-f]{64})\.engine\.\w+\.tmp|([0-9a-f]{64})\.lock)$/;

/**
 * A cache of engine files, each under a key that hashes everything that went into it. An entry's checksum is verified
 * before it is used. A process that is killed at any moment leaves only complete entries, or files that aren't taken
 * for entries. Among all processes that share the folder, one at a time builds a key. When the cache gets too large,
 * the least recently used entries are removed.
 */
export class EngineCache {
  readonly directory: string;
  readonly #maxBytes: number;
  /** The option or variable that chooses another folder, for the warning. */
  readonly #chooser: string;

  /**
   * @param directory defaults to a folder in the user's cache, which the environment can name
   * @param maxBytes limit for all entries together; the latest entry always stays
   */
  constructor(directory?: string, maxBytes = 20e9) {
    this.directory = directory ?? path.join(cacheDirectory(), 'engines');
    this.#maxBytes = maxBytes;
    this.#chooser = directory === undefined ? 'NODE_TENSORRT_CACHE' : 'options.cache';
  }

  /** The file of a {@link FileMemo} with the facts about models, rewritten decoders or TensorRT libraries. */
  memo(of: 'models' | 'decoders' | 'libraries'): string {
    return path.join(this.directory, `${of}.json`);
  }

  /**
   * Returns the entry of a key, or builds it with `build` and stores it. If the folder or disk doesn't allow that,
   * warns and builds without the cache.
   * @param onWait called once if another process is building the engine, which is waited for
   * @throws (rejects) whatever `build` throws; the signal's reason
   */
  async loadOrBuild(
    key: string,
    build: () => Promise<Engine>,
    { signal, onWait }: { signal?: AbortSignal | undefined; onWait?: (() => void) | undefined },
  ): Promise<Engine> {
    const entry = await this.#load(key);
    if (entry) return entry;
    let lock: FileLock | undefined;
    try {
      await makeDirectories(this.directory, 0o700);
      lock = await fileLock(this.#lockFile(key), signal, onWait);
    } catch (error) {
      signal?.throwIfAborted();
      this.#warn(error);
      return build();
    }
    try {
      const builtMeanwhile = await this.#load(key);
      if (builtMeanwhile) return builtMeanwhile;
      const engine = await build();
      try {
        await engine.save(this.#entryFile(key));
        await this.#tidy(key);
      } catch (error) {
        this.#warn(error);
      }
      return engine;
    } finally {
      lock.release();
    }
  }

  /** The files of all entries. */
  async entries(): Promise<string[]> {
    const names = await readdir(this.directory).catch(() => [] as string[]);
    return names.filter((name) => entryName.test(name)).map((name) => path.join(this.directory, name));
  }

  #entryFile(key: string): string {
    return path.join(this.directory, `${key}.engine`);
  }

  #lockFile(key: string): string {
    return path.join(this.directory, `${key}.lock`);
  }

  /** undefined if there is no entry or it is damaged. A damaged one is built anew and replaced. */
  async #load(key: string): Promise<Engine | undefined> {
    const file = this.#entryFile(key);
    try {
      return await Engine.loadCached(file);
    } catch (error) {
      const { code } = error as TensorRTError;
      if (
        code !== 'ERR_MODEL_NOT_FOUND' &&
        code !== 'ERR_ENGINE_CORRUPT' &&
        code !== 'ERR_ENGINE_INCOMPATIBLE'
      )
        this.#warn(error);
      return undefined;
    }
  }

  /**
   * Removes files that killed builders left behind, then the oldest entries beyond the limit. Called under `key`'s
   * lock.
   */
  async #tidy(key: string): Promise<void> {
    for (const name of await readdir(this.directory)) {
      const [, written, locked] = remainsName.exec(name) ?? [];
      const owner = written ?? locked;
      // This process holds the lock, so other files of this key were left by a writer that has ended.
      if (owner === undefined || name === `${key}.lock`) continue;
      const lock = owner === key ? undefined : tryFileLock(this.#lockFile(owner));
      if (owner !== key && !lock) continue;
      if (written) await rm(path.join(this.directory, name), { force: true });
      lock?.release();
    }

    const entries: { file: string; size: number; used: number }[] = [];
    for (const file of await this.entries()) {
      const stats = await stat(file).catch(() => undefined);
      if (stats) entries.push({ file, size: stats.size, used: stats.atimeMs });
    }
    let total = entries.reduce((sum, { size }) => sum + size, 0);
    for (const { file, size } of entries.sort((a, b) => a.used - b.used)) {
      if (total <= this.#maxBytes) break;
      if (file === this.#entryFile(key)) continue;
      await rm(file, { force: true });
      total -= size;
    }
  }

  #warn(error: unknown): void {
    const { message, code } = error as NodeJS.ErrnoException;
    const problem = message.replace(/\.?$/, '.');
    process.emitWarning(
      `The engine cache can't be used: ${problem} Set ${this.#chooser} to another folder.`,
      {
        type: 'NodeTensorRTWarning',
        ...(code ? { code } : {}),
      },
    );
  }
}
