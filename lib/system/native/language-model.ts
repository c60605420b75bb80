import type { DecoderGraph } from '../../base/decoder-graph.js';
import type { TensorRTError } from '../../base/errors.js';
import type { NativeBytes } from './bytes.js';
import type { NativeDeviceStats, NativeLoadedModel, NativeLoadRequest } from './loaded-model.js';

/** The options of one request; every field is set. Meanings and ranges are those of `GenerateOptions`. */
export interface NativeGenerateOptions {
  /** 0 only reads the prompt into the cache. */
  maxTokens: number;
  minTokens: number;
  /** 0: greedy decoding. */
  temperature: number;
  /** 0: all tokens. */
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  seed: bigint;
  /** Stop strings in UTF-8. */
  stop: Uint8Array[];
  /**
   * Tokens that end the answer without being part of it: end of sequence and the caller's own. Empty with `ignoreEos`.
   */
  stopTokens: Int32Array;
  biasTokens: Int32Array;
  biases: Float32Array;
  /** How many of the best tokens to report with each token; -1: no log-probabilities. */
  logprobs: number;
  /** Only requests with the same salt share prefixes. */
  cacheSalt: string;
  /** Higher goes first. */
  priority: number;
  /** Report each token as soon as its text is decided, instead of all at the end. */
  stream: boolean;
}

/** A token of a streamed answer. */
export interface NativeChunk {
  token: number;
  /** The text that can be shown now: whole characters, and nothing that may be the beginning of a stop string. */
  text: string;
  logprob?: number;
  top?: { token: number; logprob: number }[];
}

/** An answer that isn't streamed. */
export interface NativeAnswer {
  tokens: Int32Array;
  /** One entry per token, if requested. */
  logprobs?: { token: number; logprob: number; top: { token: number; logprob: number }[] }[];
}

/** The end of a request. */
export interface NativeGenerationEnd {
  finished: 'stop' | 'length' | 'cancelled' | 'failed';
  /** The whole text of an answer that isn't streamed; else the text that was held back until now. */
  text: string;
  /** The error, if the request failed. */
  error?: TensorRTError;
  usage: { promptTokens: number; cachedTokens: number; completionTokens: number };
  timing: { queueMs: number; firstTokenMs: number; totalMs: number };
}

/**
 * Progress of a request. With `stream`, tokens arrive as they come, the last ones with the end; otherwise all arrive
 * with the end.
 */
export type NativeGenerationEvent = { id: number } & (
  | { chunks: NativeChunk[]; finished?: undefined }
  | (NativeGenerationEnd & ({ chunks: NativeChunk[] } | NativeAnswer))
);

export interface NativeLanguageModelConfig {
  graph: DecoderGraph;
  /** Rows of the cache. */
  rows: number;
  /** Tokens per row. */
  maxLength: number;
  /** Prompt tokens per step; a quarter of that while other requests generate. */
  chunkSize: number;
  /** Requests that may wait for a row. */
  maxQueue: number;
  prefixReuse: boolean;
  /** Token i in UTF-8 is `bytes.subarray(offsets[i], offsets[i + 1])`; empty for a special token. */
  pieces: { bytes: Uint8Array; offsets: Uint32Array };
  /** True if an answer's text loses its first space (SentencePiece adds one). */
  stripLeadingSpace: boolean;
  /**
   * Identifies the model, its precision and its layout. A saved sequence can only be restored with the same
   * fingerprint.
   */
  fingerprint: string;
}

export interface NativeLanguageModelStats {
  /** Rows of the cache. `used` counts rows of requests and sequences, not rows that only keep a prefix. */
  rows: number;
  rowsUsed: number;
  bytesReserved: number;
  bytesUsed: number;
  /** Requests that found a part of their prompt in the cache, and the number of those tokens. */
  hits: number;
  cachedTokens: number;
  waiting: number;
  active: number;
  completed: number;
  failed: number;
  cancelled: number;
  /** Steps with one new token per row, and the sum of their rows. */
  decodeSteps: number;
  decodedRows: number;
  /** Steps that read prompt tokens, and the number of those tokens. */
  prefillSteps: number;
  prefilledTokens: number;
}

export interface NativeLanguageModel {
  /** Resolves with undefined if `stopLoading()` ended it. */
  load(request: NativeLoadRequest): Promise<NativeLoadedModel | undefined>;
  stopLoading(): void;
  /**
   * Starts a request under an id that the caller chooses; events go to the constructor's `onEvents`. With `sequence` 0
   * the tokens are a prompt of their own; otherwise they are appended to that sequence, and may be empty. Throws
   * ERR_QUEUE_FULL, ERR_CACHE_FULL, ERR_DISPOSED, ERR_INVALID_ARG_VALUE.
   */
  generate(id: number, sequence: number, tokens: Int32Array, options: NativeGenerateOptions): void;
  /** Ends a request soon, as 'cancelled'. No effect once it has finished. */
  cancel(id: number): void;
  /** Takes a row. Throws ERR_CACHE_FULL if all are in use. */
  createSequence(): number;
  /** Copies a sequence in its current state. Rejects with ERR_CACHE_FULL. */
  fork(sequence: number): Promise<number>;
  /** Throws ERR_INVALID_ARG_VALUE if the sequence is shorter or is generating. */
  truncate(sequence: number, length: number): void;
  /** The sequence's tokens. The last token of an answer isn't in the cache yet. */
  sequenceTokens(sequence: number): Int32Array;
  sequenceLength(sequence: number): number;
  saveSequence(sequence: number): Promise<NativeBytes>;
  /** Rejects with ERR_STATE_MISMATCH, ERR_CACHE_FULL, ERR_IO. */
  restoreSequence(state: Uint8Array | NativeBytes): Promise<number>;
  disposeSequence(sequence: number): void;
  /** Forgets all prefixes. */
  clear(): void;
  stats(): NativeLanguageModelStats;
  /** undefined on the CPU, and after it is closed. */
  deviceStats(): NativeDeviceStats | undefined;
  /** Accepts no more requests, finishes the accepted ones, then frees the model. */
  close(): Promise<void>;
}
