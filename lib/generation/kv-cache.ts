import type { DecoderGraph } from '../base/decoder-graph.js';
import { invalidArgType } from '../base/errors.js';
import { checkOptions, enumOption, integerOption, refuseCloning } from '../base/options.js';
import type { NativeLanguageModel } from '../system/native.js';

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

export interface KvCacheSettings {
  readonly maxBatchSize: number;
  readonly maxLength: number | undefined;
  readonly dtype: 'auto' | 'fp16' | 'fp32';
  readonly prefixReuse: boolean;
}

/** @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE */
export function readKvCacheOptions(options: KvCacheOptions | undefined, path: string): KvCacheSettings {
  const { maxBatchSize, maxLength, dtype, prefixReuse = true } = options ?? {};
  if (options !== undefined) {
    checkOptions(options, path, ['maxBatchSize', 'maxLength', 'dtype', 'prefixReuse'], {});
  }
  if (typeof prefixReuse !== 'boolean') throw invalidArgType(`${path}.prefixReuse`, 'a boolean', prefixReuse);
  return {
    maxBatchSize: integerOption(maxBatchSize, `${path}.maxBatchSize`, 16, 1, 1024),
    maxLength: integerOption(maxLength, `${path}.maxLength`, undefined, 1, 2 ** 24),
    dtype: enumOption(dtype, `${path}.dtype`, ['auto', 'fp16', 'fp32']),
    prefixReuse,
  };
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
