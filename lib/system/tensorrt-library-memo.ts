import { type BigIntStats, statSync } from 'node:fs';
import { FileMemo, stamp } from './files/file-memo.js';
import type { NativeTensorRT } from './native/tensorrt.js';
import { native, nativePath } from './native.js';

/** Native's description of a library, and the addon that gave it. */
interface Known extends Omit<NativeTensorRT, 'path'> {
  readonly addon: string;
}

/**
 * Remembers the properties of TensorRT libraries, so that an unchanged library needn't be opened again, which takes as
 * long as reading an engine. A build opens the library anyway.
 */
export class LibraryMemo {
  readonly #memo: FileMemo<Known>;
  readonly #addon: string;

  private constructor(memo: FileMemo<Known>, addon: string) {
    this.#memo = memo;
    this.#addon = addon;
  }

  static async read(file: string): Promise<LibraryMemo> {
    const addon = stamp(statistics(nativePath()));
    const isKnown = (value: unknown): value is Known => (value as Known | null)?.addon === addon;
    return new LibraryMemo(await FileMemo.read(file, isKnown), addon);
  }

  /** @throws (rejects) with the errors of native's `openTensorRT` */
  readonly open = async (file: string): Promise<NativeTensorRT> => {
    const began = Date.now();
    // If the file is missing, native reports what is wrong.
    const stats = statisticsOf(file);
    const known = stats && this.#memo.get(stats);
    if (known) {
      const { addon: _, ...answer } = known;
      return { ...answer, path: file };
    }
    const { path, ...answer } = await native().openTensorRT(file);
    if (stats) this.#memo.set(stats, began, { ...answer, addon: this.#addon });
    return { ...answer, path };
  };

  save(): Promise<void> {
    return this.#memo.save();
  }
}

function statistics(file: string): BigIntStats {
  return statSync(file, { bigint: true });
}

function statisticsOf(file: string): BigIntStats | undefined {
  try {
    return statistics(file);
  } catch {
    return undefined;
  }
}
