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
  /** The size and type of the cache. */
  kvCache?: KvCacheOptions;
  /** A tokenizer to use instead of the tokenizer.json beside the model. */
  tokenizer?: Tokenizer;
  /** A Jinja chat template to use instead of the model's own. */
  chatTemplate?: string;
  /**
   * Prompt tokens that a step reads at most. While other requests generate, it is a quarter of that. Defaults to 512.
   */
  chunkSize?: number;
  /** How many requests may wait for a row; one more is refused with ERR_QUEUE_FULL. Defaults to 1024. */
  maxQueue?: number;
  /**
   * The types to compute in. On a GPU as in {@link BuildOptions}, where it defaults to 'fp16'. On the CPU a decoder runs
   * in its own types, whatever 'as-exported', 'fp32' or 'tf32' say, and 'fp16' and 'bf16' are refused with
   * ERR_INVALID_ARG_VALUE; it defaults to 'as-exported'.
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

/** Reads {@link LanguageModelOptions}: one reader per option. */
export const languageModelOptions = {
  ...ofSession,
  kvCache: kvCacheOption,
  tokenizer: tokenizerOption,
  chatTemplate: text(undefined),
  chunkSize: integer(512, 1, 2 ** 20),
} satisfies OptionTable<LanguageModelOptions>;

/** {@link LanguageModelOptions} once checked, with defaults filled in. */
export type LanguageModelSettings = OptionsOf<typeof languageModelOptions>;

function tokenizerOption(tokenizer: unknown, path: string): Tokenizer | undefined {
  if (tokenizer === undefined) return undefined;
  checkTokenizer(tokenizer, path);
  return tokenizer;
}

/** Options that a language model refuses by name, each with the reason. */
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
