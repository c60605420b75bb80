/**
 * The value that each step feeds to an input of a decoder. `rows` sequences run together. Each row gets `new` tokens
 * after the `past` tokens that its row of the cache holds; `total` is `past + new`, per row. The graph decides the
 * element type, int32 or int64.
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
  /**
   * A scalar, counted from 0: the index of the new token whose logits are computed. The tokens after it are padding.
   */
  | 'logits_index';

/** How a decoder's graph is run. */
export interface DecoderGraph {
  /**
   * 'in-place': each cache output shares its input's memory, `[rows, kvHeads, capacity, headDim]`, and rows of
   * different lengths run together. 'copying': `present` is new memory, longer than `past` by the new tokens, and each
   * row runs alone.
   */
  readonly mode: 'in-place' | 'copying';
  /** Every input that isn't part of the cache, by name. */
  readonly inputs: Readonly<Record<string, DecoderInputRole>>;
  /**
   * In layer order, the key before the value. For a cache of rank 3, `kvHeads` is 1 and `headDim` is the whole width.
   */
  readonly caches: readonly {
    readonly input: string;
    readonly output: string;
    readonly kvHeads: number;
    readonly headDim: number;
  }[];
  /**
   * The output with logits: `[rows, vocabulary]` of the last position, or of the position that the input 'logits_index'
   * gives; or `[rows, new, vocabulary]`.
   */
  readonly logits: string;
  /**
   * Outputs of a top-k head: the best logits, `[rows, k]` in descending order; their tokens, `[rows, k]`; and the log
   * of the sum of the exponentials of all logits, `[rows]`. The whole row of logits is then fetched only when sampling
   * needs it.
   */
  readonly top?: { readonly logits: string; readonly tokens: string; readonly logSumExp: string };
}
