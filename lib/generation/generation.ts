import type { NativeAnswer, NativeChunk, NativeGenerationEnd } from '../system/native/language-model.js';

/** A token and the natural logarithm of its probability; see {@link GenerateOptions.logprobs}. */
export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
}

/** A token of the answer, and the likeliest ones in its place, likeliest first. */
export interface ChosenTokenLogprob extends TokenLogprob {
  readonly top: readonly TokenLogprob[];
}

/** An answer. */
export interface Generation {
  /** What the tokens say, special tokens left out; before a stop string. '' of a model without a tokenizer. */
  readonly text: string;
  /** Without what ended it: an end-of-sequence token, or one of `stopTokens`. Of a stop string, all. */
  readonly tokens: number[];
  /** 'stop': a token or a text that ends the answer. 'length': maxTokens, or the end of the row. */
  readonly finishReason: 'stop' | 'length';
  /** Of each token, where asked for. */
  readonly logprobs?: readonly ChosenTokenLogprob[];
  readonly usage: {
    readonly promptTokens: number;
    /** Of the prompt, those that were in the cache already. */
    readonly cachedTokens: number;
    readonly completionTokens: number;
  };
  /** Milliseconds. */
  readonly timing: {
    /** Until it had a row. */
    readonly queueMs: number;
    /** From the call to the first token. */
    readonly firstTokenMs: number;
    /** From the call to the last. */
    readonly totalMs: number;
  };
}

/** A token of an answer that is being given. */
export interface GenerationChunk {
  readonly token: number;
  /** Whole characters, and nothing that a stop string begins with: a token waits until that is decided. */
  readonly text: string;
  /** Where asked for; see {@link GenerateOptions.logprobs}. */
  readonly logprob?: number;
  readonly top?: readonly TokenLogprob[];
}

/** An answer that came in one piece. */
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

/** An answer that was given as it came. */
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
