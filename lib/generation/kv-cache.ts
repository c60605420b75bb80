import type { DecoderGraph } from '../base/decoder-graph.js';
import {
  boolean,
  integer,
  type OptionsOf,
  type OptionTable,
  oneOf,
  readOptions,
  refuseCloning,
} from '../base/options.js';
import type { NativeLanguageModel } from '../system/native/language-model.js';

export interface KvCacheOptions {
  /** Rows: how many prompts and sequences are in the cache at a time; more wait. Default 16. */
  maxBatchSize?: number;
  /** Tokens a row, of prompt and answer together. Default: the model's maximum, 4096 at most. */
  maxLength?: number;
  /** What keys and values are kept in. 'auto' (default): the type in which the model computes them. */
  dtype?: 'auto' | 'fp16' | 'fp32';
  /** A prompt takes what it begins with from a row that has it. Default true. */
  prefixReuse?: boolean;
}

const kvCacheOptions = {
  maxBatchSize: integer(16, 1, 1024),
  /** undefined: as the model's configuration has it. */
  maxLength: integer(undefined, 1, 2 ** 24),
  dtype: oneOf(['auto', 'fp16', 'fp32']),
  prefixReuse: boolean(true),
} satisfies OptionTable<KvCacheOptions>;

/** {@link KvCacheOptions}, read. */
export type KvCacheSettings = OptionsOf<typeof kvCacheOptions>;

/** The reader of `options.kvCache`. */
export function kvCacheOption(options: unknown, path: string): KvCacheSettings {
  return readOptions(options === undefined ? {} : options, path, kvCacheOptions);
}

/** The keys and values of all layers, for `rows` sequences of up to `maxLength` tokens. */
export class KvCache {
  /**
   * 'in-place': a step adds to what is there, and all rows run together. 'copying': the graph's attention was not
   * recognised; it runs as exported, one row at a time, and each step copies the row's past.
   */
  readonly mode: 'in-place' | 'copying';
  /** Why that mode. */
  readonly why: string;
  /** Tokens a row. */
  readonly maxLength: number;
  readonly #native: NativeLanguageModel;

  /** @internal */
  constructor(model: NativeLanguageModel, mode: DecoderGraph['mode'], why: string, maxLength: number) {
    this.#native = model;
    this.mode = mode;
    this.why = why;
    this.maxLength = maxLength;
    refuseCloning(this);
  }

  get rows(): number {
    return this.#native.stats().rows;
  }

  /** Rows that requests and sequences have. The others may keep what finished requests have read. */
  get used(): number {
    return this.#native.stats().rowsUsed;
  }

  /** Of all rows, full. On the CPU this is address space: memory comes with the tokens. 0 where `mode` is 'copying'. */
  get bytesReserved(): number {
    return this.#native.stats().bytesReserved;
  }

  /** Of the tokens in the cache. On the CPU, the pages that hold them are up to two more per head, layer, and key or value. */
  get bytesUsed(): number {
    return this.#native.stats().bytesUsed;
  }

  /** Requests that found a part of their prompt here. */
  get hits(): number {
    return this.#native.stats().hits;
  }

  /** Forgets what finished requests left. Sequences, and requests that run, keep their rows. */
  clear(): void {
    this.#native.clear();
  }
}
