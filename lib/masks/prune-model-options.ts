import { abortSignal, callback, type OptionTable, readOptions } from '../base/options.js';

/** How to prune a model. */
export interface PruneModelOptions {
  /** Is called before each weight that is masked. */
  onProgress?: (progress: { weight: string; done: number; total: number }) => void;
  /** Aborting ends the work, and nothing is written; it then rejects with the signal's reason. */
  signal?: AbortSignal;
}

const pruneOptions = {
  onProgress: callback<NonNullable<PruneModelOptions['onProgress']>>,
  signal: abortSignal,
} satisfies OptionTable<PruneModelOptions>;

const refused = {
  shrink: "is not supported in this version: a structured mask's rows and columns become zeros and stay.",
} as const;

/** @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE */
export const readPruneModelOptions = (options: unknown) =>
  readOptions(options, 'options', pruneOptions, refused);
