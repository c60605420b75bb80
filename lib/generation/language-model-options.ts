import { integer, type OptionsOf, type OptionTable, text } from '../base/options.js';
import { refusedSessionOptions, type SessionOptions, sessionOptions } from '../session/session-options.js';
import { checkTokenizer, type Tokenizer } from '../text/tokenizer.js';
import { type KvCacheOptions, kvCacheOption } from './kv-cache.js';

/** How to load a language model: the session options that apply to it, plus its own. */
export interface LanguageModelOptions
  extends Omit<
    SessionOptions,
    'concurrency' | 'preferredOutputLocation' | 'shapes' | 'calibration' | 'refit'
  > {
  /** Rows and lengths of the cache. */
  kvCache?: KvCacheOptions;
  /** Instead of the tokenizer.json beside the model. */
  tokenizer?: Tokenizer;
  /** A Jinja template, instead of the model's own. */
  chatTemplate?: string;
  /** Tokens of prompts that are read in a step; a quarter of them, while others answer. Default 512. */
  chunkSize?: number;
  /** Requests that may wait for a row; one more is refused with ERR_QUEUE_FULL. Default 1024. */
  maxQueue?: number;
  /**
   * On a GPU as in {@link BuildOptions}. On the CPU a decoder runs in the types that it has, FP32 as FP32 with 'tf32' too:
   * 'fp16' and 'bf16' are refused there with ERR_INVALID_ARG_VALUE.
   */
  precision?: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
}

const {
  concurrency: _concurrency,
  preferredOutputLocation: _preferredOutputLocation,
  shapes: _shapes,
  calibration: _calibration,
  refit: _refit,
  ...ofSession
} = sessionOptions;

/** The readers of {@link LanguageModelOptions}. What each option means is what they return. */
export const languageModelOptions = {
  ...ofSession,
  kvCache: kvCacheOption,
  tokenizer: tokenizerOption,
  chatTemplate: text(undefined),
  chunkSize: integer(512, 1, 2 ** 20),
} satisfies OptionTable<LanguageModelOptions>;

/** {@link LanguageModelOptions}, read. */
export type LanguageModelSettings = OptionsOf<typeof languageModelOptions>;

function tokenizerOption(tokenizer: unknown, path: string): Tokenizer | undefined {
  if (tokenizer === undefined) return undefined;
  checkTokenizer(tokenizer, path);
  return tokenizer;
}

/** As {@link refusedSessionOptions}, for a language model: it decides some options of a session itself. */
export const refusedLanguageModelOptions: Readonly<Record<string, string>> = {
  ...refusedSessionOptions,
  concurrency: 'is not an option of a language model: its steps run all requests together.',
  batching:
    'is not an option of a language model: its steps run all requests together, options.kvCache.maxBatchSize at most.',
  target: 'is not an option of a language model: it is loaded where it runs.',
  preferredOutputLocation: 'is not an option of a language model: tokens come to the CPU, the cache stays.',
  shapes: 'is not an option of a language model: options.kvCache decides the shapes.',
  calibration: 'is not an option of a language model: ranges are measured with random prompts.',
  refit: 'is not an option of a language model: its weights stay, as the cache is of them.',
  freeDimensionOverrides: 'is not an option of a language model: options.kvCache decides the shapes.',
};
