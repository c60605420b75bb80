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

/** The size and type of a language model's KV cache. */
export interface KvCacheOptions {
  /** How many prompts and sequences are in the cache at the same time; more wait. Defaults to 16. */
  maxBatchSize?: number;
  /** Tokens of prompt and answer together that a row holds. Defaults to the model's maximum, but at most 4096. */
  maxLength?: number;
  /**
   * The type that keys and values are kept in. 'auto' is the type in which the model computes them. Defaults to 'auto'.
   */
  dtype?: 'auto' | 'fp16' | 'fp32';
  /**
   * Lets a prompt take over its beginning from a row that begins alike, instead of computing it again. Defaults to true.
   */
  prefixReuse?: boolean;
}

const kvCacheOptions = {
  maxBatchSize: integer(16, 1, 1024),
  /** undefined stands for the length in the model's configuration. */
  maxLength: integer(undefined, 1, 2 ** 24),
  dtype: oneOf(['auto', 'fp16', 'fp32']),
  prefixReuse: boolean(true),
} satisfies OptionTable<KvCacheOptions>;

/** {@link KvCacheOptions} once checked, with defaults filled in. */
export type KvCacheSettings = OptionsOf<typeof kvCacheOptions>;

/** Reads `options.kvCache`. */
export function kvCacheOption(options: unknown, path: string): KvCacheSettings {
  return readOptions(options === undefined ? {} : options, path, kvCacheOptions);
}

/** A language model's cache: the keys and values of all layers, for `rows` prompts of up to `maxLength` tokens each. */
export class KvCache {
  /**
   * 'in-place': each step adds to the cache, and all rows run together. 'copying': the graph's attention wasn't
   * recognised, so the model runs as exported, one row at a time, and each step copies the row's past.
   */
  readonly mode: 'in-place' | 'copying';
  /** Why the cache has that mode, as a sentence. */
  readonly why: string;
  /** Tokens that a row holds. */
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

  /** How many rows the cache has. */
  get rows(): number {
    return this.#native.stats().rows;
  }

  /** Rows that requests and sequences use. The other rows may keep the tokens of finished requests. */
  get used(): number {
    return this.#native.stats().rowsUsed;
  }

  /**
   * Bytes of all rows when they are full. On the CPU this is address space, and memory is taken as tokens come. 0 if `mode`
   * is 'copying'.
   */
  get bytesReserved(): number {
    return this.#native.stats().bytesReserved;
  }

  /**
   * Bytes of the tokens in the cache. On the CPU they lie in pages, of which up to two more are in use for each head,
   * layer, and key or value.
   */
  get bytesUsed(): number {
    return this.#native.stats().bytesUsed;
  }

  /** How many requests found a part of their prompt in the cache. */
  get hits(): number {
    return this.#native.stats().hits;
  }

  /** Forgets the tokens that finished requests left. Sequences and running requests keep their rows. */
  clear(): void {
    this.#native.clear();
  }
}
