import { abortSignal, boolean, callback, type OptionTable, readOptions } from '../base/options.js';

/** How to prune a model. */
export interface PruneModelOptions {
  /**
   * Removes the neurons that masks empty: those of a multilayer perceptron whose whole row the mask of the matrix that
   * reads them drops. The matrices get smaller, and the model faster on every runtime; its outputs stay those of the
   * masked model, but for rounding. Other masked elements become zeros. Defaults to false.
   */
  shrink?: boolean;
  /** Is called before each weight that is masked. */
  onProgress?: (progress: { weight: string; done: number; total: number }) => void;
  /** Aborting ends the work, and nothing is written; it then rejects with the signal's reason. */
  signal?: AbortSignal;
}

const pruneOptions = {
  shrink: boolean(false),
  onProgress: callback<NonNullable<PruneModelOptions['onProgress']>>,
  signal: abortSignal,
} satisfies OptionTable<PruneModelOptions>;

/** @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE */
export const readPruneModelOptions = (options: unknown) => readOptions(options, 'options', pruneOptions);
