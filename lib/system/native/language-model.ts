import type { DecoderGraph } from '../../base/decoder-graph.js';
import type { TensorRTError } from '../../base/errors.js';
import type { NativeBytes } from './bytes.js';
import type { NativeDeviceStats, NativeLoadedModel, NativeLoadRequest } from './loaded-model.js';

/** The options of one request. Every field is set. Meanings and ranges are those of `GenerateOptions`. */
export interface NativeGenerateOptions {
  /** 0 only reads the prompt into the cache. */
  maxTokens: number;
  minTokens: number;
  /** 0: greedy. */
  temperature: number;
  /** 0: all. */
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  seed: bigint;
  /** UTF-8. */
  stop: Uint8Array[];
  /** End of sequence and what the caller added: they end the answer, and are not in it. Empty with `ignoreEos`. */
  stopTokens: Int32Array;
  biasTokens: Int32Array;
  biases: Float32Array;
  /** The number of likeliest tokens to report with each token; -1 reports no log-probabilities. */
  logprobs: number;
  /** Prefixes are shared only among equals. */
  cacheSalt: string;
  /** Higher goes first. */
  priority: number;
  /** Report each token once its text is decided, rather than all at the end. */
  stream: boolean;
}

/** A token of an answer that is given as it comes. */
export interface NativeChunk {
  token: number;
  /** The text that may be shown now: whole characters, and nothing that a stop string may begin with. */
  text: string;
  logprob?: number;
  top?: { token: number; logprob: number }[];
}

/** An answer in one piece. */
export interface NativeAnswer {
  tokens: Int32Array;
  /** A token each, where asked for. */
  logprobs?: { token: number; logprob: number; top: { token: number; logprob: number }[] }[];
}

/** The end of a request. */
export interface NativeGenerationEnd {
  finished: 'stop' | 'length' | 'cancelled' | 'failed';
  /** The whole text of an answer that came in one piece; for a stream, the text that was held back until now. */
  text: string;
  /** The error of a request that failed. */
  error?: TensorRTError;
  usage: { promptTokens: number; cachedTokens: number; completionTokens: number };
  timing: { queueMs: number; firstTokenMs: number; totalMs: number };
}

/**
 * Reports on a request: with `stream` its tokens as they come, and the last ones with the end; otherwise everything
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
  /** Tokens a row. */
  maxLength: number;
  /** Tokens of prompts a step; a quarter while others answer. */
  chunkSize: number;
  /** Requests that may wait for a row. */
  maxQueue: number;
  prefixReuse: boolean;
  /** UTF-8 of token i: `bytes.subarray(offsets[i], offsets[i + 1])`; nothing for a special token. */
  pieces: { bytes: Uint8Array; offsets: Uint32Array };
  /** Does an answer's text lose the space that it begins with (SentencePiece's)? */
  stripLeadingSpace: boolean;
  /** Identifies model, precision and layout: a saved sequence must have the same. */
  fingerprint: string;
}

export interface NativeLanguageModelStats {
  /** Rows of the cache. Those that requests and sequences use are counted, not those that keep a prefix. */
  rows: number;
  rowsUsed: number;
  bytesReserved: number;
  bytesUsed: number;
  /** Requests that found a part of their prompt in the cache, and those tokens. */
  hits: number;
  cachedTokens: number;
  waiting: number;
  active: number;
  completed: number;
  failed: number;
  cancelled: number;
  /** Steps with one new token a row, and the rows that they had in all. */
  decodeSteps: number;
  decodedRows: number;
  /** Steps with a prompt's tokens, and these. */
  prefillSteps: number;
  prefilledTokens: number;
}

export interface NativeLanguageModel {
  /** Resolves with undefined when `stopLoading()` ended it. */
  load(request: NativeLoadRequest): Promise<NativeLoadedModel | undefined>;
  stopLoading(): void;
  /**
   * Begins a request with an id of the caller's; `onEvents`, given to the constructor, hears of it. `sequence` 0: a prompt
   * of its own; else `tokens`, which may be none, go to that sequence. Throws ERR_QUEUE_FULL, ERR_CACHE_FULL,
   * ERR_DISPOSED, ERR_INVALID_ARG_VALUE.
   */
  generate(id: number, sequence: number, tokens: Int32Array, options: NativeGenerateOptions): void;
  /** No effect once it has finished. Otherwise it finishes as 'cancelled' soon. */
  cancel(id: number): void;
  /** Takes a row. Throws ERR_CACHE_FULL where each is in use. */
  createSequence(): number;
  /** Its copy, as far as it has come. Rejects with ERR_CACHE_FULL. */
  fork(sequence: number): Promise<number>;
  /** Throws ERR_INVALID_ARG_VALUE where it is shorter, or is generating. */
  truncate(sequence: number, length: number): void;
  /** The last one of an answer is not in the cache yet. */
  sequenceTokens(sequence: number): Int32Array;
  sequenceLength(sequence: number): number;
  saveSequence(sequence: number): Promise<NativeBytes>;
  /** Rejects with ERR_STATE_MISMATCH, ERR_CACHE_FULL, ERR_IO. */
  restoreSequence(state: Uint8Array | NativeBytes): Promise<number>;
  disposeSequence(sequence: number): void;
  /** Forgets all prefixes. */
  clear(): void;
  stats(): NativeLanguageModelStats;
  /** undefined on the CPU, and once it is closed. */
  deviceStats(): NativeDeviceStats | undefined;
  /** Accepts nothing more, finishes what was accepted, frees the model. */
  close(): Promise<void>;
}
