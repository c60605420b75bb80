/**
 * The content of a decoder's input in each step. `rows` sequences run together. Each gets `new` tokens after the `past`
 * tokens that its row of the cache holds; `total` is `past + new`, row by row. The element type, int32 or int64, is the
 * graph's.
 */
export type DecoderInputRole =
  /** `[rows, new]`: the tokens. */
  | 'input_ids'
  /** `[rows, new]`: past … total - 1. */
  | 'position_ids'
  /** `[rows, longest]`: ones up to each row's total, then zeros. */
  | 'attention_mask'
  /** `[rows]`: past (TensorScatter's write_indices). */
  | 'past_lengths'
  /** `[rows]`: total (Attention's nonpad_kv_seqlen). */
  | 'total_lengths'
  /** `[rows]`: total - 1 (GroupQueryAttention's seqlens_k). */
  | 'last_indices'
  /** A scalar or `[1]`: the longest total (GroupQueryAttention's total_sequence_length). */
  | 'longest'
  /** A scalar: which of the new tokens the logits are of, from 0. The tokens after it only fill the step up. */
  | 'logits_index';

/** The way in which a decoder's graph is driven. */
export interface DecoderGraph {
  /**
   * 'in-place': an output of the cache is its input's memory, `[rows, kvHeads, capacity, headDim]`, and rows of
   * different lengths run together. 'copying': `present` is new memory, one token longer than `past`, and each row runs
   * alone.
   */
  readonly mode: 'in-place' | 'copying';
  /** All inputs by name, except those of the cache. */
  readonly inputs: Readonly<Record<string, DecoderInputRole>>;
  /**
   * The caches in the order of layers, each key's before its value's. A cache of rank 3 has `kvHeads` 1, and its
   * `headDim` is the width of all heads.
   */
  readonly caches: readonly {
    readonly input: string;
    readonly output: string;
    readonly kvHeads: number;
    readonly headDim: number;
  }[];
  /**
   * The output with logits: `[rows, vocabulary]` of the last position, or of the one that the input 'logits_index' says; or
   * `[rows, new, vocabulary]`.
   */
  readonly logits: string;
  /**
   * Outputs of a top-k head: `[rows, k]` best logits, in descending order, `[rows, k]` their tokens, and `[rows]` the log
   * of the sum of the exponentials of all. The whole row is then fetched only when sampling needs it.
   */
  readonly top?: { readonly logits: string; readonly tokens: string; readonly logSumExp: string };
}
