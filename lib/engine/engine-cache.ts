import path from 'node:path';
import type { TensorRTError } from '../base/errors.js';
import { cacheDirectory } from '../system/files/cache-directory.js';
import { type FileLock, fileLock, tryFileLock } from '../system/files/file-lock.js';
import { makeDirectories, readdir, rm, stat } from '../system/files/promises.js';
import { Engine } from './engine.js';

/** An entry: the key, in hexadecimal. */
const entryName = /^([0-9a-f]{64})\.engine$/;
/** Names of files that a writer leaves behind if it is killed (see `writeAtomically`), and of locks. */
const remainsName = /^(?:\.([0-9a-f]{64})\.engine\.\w+\.tmp|([0-9a-f]{64})\.lock)$/;

/**
 * Engines by the key of what went into them: each an engine file, which is checked whole before it is used. Whatever
 * moment its users are killed at, what they leave is whole, or is not taken for an entry. A key is built by one at a
 * time, of all processes that share the folder. What was not used for longest goes first when it gets too large.
 */
export class EngineCache {
  readonly directory: string;
  readonly #maxBytes: number;
  /** The option or variable that names another folder. */
  readonly #chooser: string;

  /**
   * @param directory defaults to a folder of the user's cache, which the environment names
   * @param maxBytes of all entries; the one last written stays in any case
   */
  constructor(directory?: string, maxBytes = 20e9) {
    this.directory = directory ?? path.join(cacheDirectory(), 'engines');
    this.#maxBytes = maxBytes;
    this.#chooser = directory === undefined ? 'NODE_TENSORRT_CACHE' : 'options.cache';
  }

  /** The file of what is known of models, of decoders that were rewritten, and of TensorRT libraries: a {@link FileMemo}'s. */
  memo(of: 'models' | 'decoders' | 'libraries'): string {
    return path.join(this.directory, `${of}.json`);
  }

  /**
   * The entry of a key, else what `build` makes, which becomes the entry. A folder or disk that does not allow this
   * is warned of, and the engine built without.
   * @param onWait called once if the engine is being built elsewhere, which is waited for
   * @throws (rejects) what `build` throws; the signal's reason
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

  /** undefined where there is none, or a damaged one, which is built anew and replaced. */
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

  /** Removes what killed builders left behind, then the oldest entries beyond the limit. Called under `key`'s lock. */
  async #tidy(key: string): Promise<void> {
    for (const name of await readdir(this.directory)) {
      const [, written, locked] = remainsName.exec(name) ?? [];
      const owner = written ?? locked;
      // Its own lock is held: what there is of its key's is not this writer's, which has finished.
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
    process.emitWarning(`The engine cache is of no use: ${problem} ${this.#chooser} names another folder.`, {
      type: 'NodeTensorRTWarning',
      ...(code ? { code } : {}),
    });
  }
}
