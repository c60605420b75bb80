import type { NativeAnswer, NativeChunk, NativeGenerationEnd } from '../system/native/language-model.js';

/** A token and the natural logarithm of its probability. See {@link GenerateOptions.logprobs}. */
export interface TokenLogprob {
  /** The token's number in the vocabulary. */
  readonly token: number;
  /** The natural logarithm of its probability. */
  readonly logprob: number;
}

/** A token of the answer, with the likeliest tokens at its place. */
export interface ChosenTokenLogprob extends TokenLogprob {
  /** The likeliest tokens, the likeliest first. */
  readonly top: readonly TokenLogprob[];
}

/** A complete answer. */
export interface Generation {
  /**
   * The answer's text, without special tokens. It ends before a stop string. It is empty for a model without a
   * tokenizer.
   */
  readonly text: string;
  /**
   * The answer's tokens, without the end-of-sequence token or the token of `stopTokens` that ended it. The tokens of a
   * stop string are included.
   */
  readonly tokens: number[];
  /** 'stop' if a token or a text ended the answer, 'length' if `maxTokens` or the row's capacity did. */
  readonly finishReason: 'stop' | 'length';
  /** The log-probability of each token, if `options.logprobs` asked for them. */
  readonly logprobs?: readonly ChosenTokenLogprob[];
  /** How many tokens were read and generated. */
  readonly usage: {
    /** Tokens of the prompt. */
    readonly promptTokens: number;
    /** Tokens of the prompt that were in the cache already, and weren't computed again. */
    readonly cachedTokens: number;
    /** Tokens of the answer. */
    readonly completionTokens: number;
  };
  /** How long the request took, in milliseconds. */
  readonly timing: {
    /** From the call until the request got a row of the cache. */
    readonly queueMs: number;
    /** From the call to the first token. */
    readonly firstTokenMs: number;
    /** From the call to the last token. */
    readonly totalMs: number;
  };
}

/** One token of an answer that is being generated. */
export interface GenerationChunk {
  /** The token's number in the vocabulary. */
  readonly token: number;
  /**
   * The text that may be shown now. It holds whole characters, and nothing that a stop string may begin with: such text
   * waits until that is decided. It may be empty.
   */
  readonly text: string;
  /** The natural logarithm of the token's probability, if `options.logprobs` asked for it. */
  readonly logprob?: number;
  /** The likeliest tokens at its place, if `options.logprobs` asked for them. */
  readonly top?: readonly TokenLogprob[];
}

/** Makes the public form of an answer that came in one piece. */
export function wholeAnswer(
  { tokens, logprobs }: NativeAnswer,
  { finished, text, usage, timing }: NativeGenerationEnd,
): Generation {
  return {
    text,
    tokens: Array.from(tokens),
    finishReason: finished as Generation['finishReason'],
    ...(logprobs && tokens.length > 0 ? { logprobs } : {}),
    usage,
    timing,
  };
}

/** Makes the public form of an answer from the chunks that were given while it came. */
export function streamedAnswer(chunks: readonly NativeChunk[], end: NativeGenerationEnd): Generation {
  const answer = {
    tokens: Int32Array.from(chunks, ({ token }) => token),
    ...(chunks[0]?.logprob === undefined ? {} : { logprobs: chunks.map(toLogprob) }),
  };
  return wholeAnswer(answer, { ...end, text: chunks.map(({ text }) => text).join('') + end.text });
}

function toLogprob({ token, logprob, top }: NativeChunk) {
  return { token, logprob: logprob!, top: top ?? [] };
}
