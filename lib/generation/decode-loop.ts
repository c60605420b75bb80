import { TensorRTError } from '../base/errors.js';
import { onAbort } from '../base/options.js';
import type {
  NativeAnswer,
  NativeChunk,
  NativeGenerateOptions,
  NativeGenerationEnd,
  NativeGenerationEvent,
  NativeLanguageModel,
  NativeLanguageModelConfig,
} from '../system/native/language-model.js';
import { native } from '../system/native.js';
import { type Generation, type GenerationChunk, streamedAnswer, wholeAnswer } from './generation.js';

/** A request as native receives it. */
export interface GenerationRequest {
  /** The sequence that it continues, which is kept alive with it; undefined: a new prompt. */
  readonly sequence: GenerationTarget | undefined;
  readonly tokens: Int32Array;
  readonly options: Omit<NativeGenerateOptions, 'stream'>;
  readonly signal: AbortSignal | undefined;
}

/** The state that a sequence shares with its requests. */
export interface GenerationTarget {
  /** Native's number of the sequence. */
  readonly id: number;
  /** True while a request on this sequence has not finished. */
  isBusy: boolean;
}

/** @throws TensorRTError ERR_INVALID_ARG_VALUE if an answer to the sequence has not been read to its end */
export function requireIdle({ isBusy }: GenerationTarget): void {
  if (!isBusy) return;
  throw new TensorRTError(
    'ERR_INVALID_ARG_VALUE',
    'The sequence is already generating: wait until that finishes, or leave its stream.',
  );
}

/** A model's decode loop, which runs on a native thread, and the requests that wait for its answers. */
export class DecodeLoop {
  readonly native: NativeLanguageModel;
  readonly #listeners = new Map<number, (event: NativeGenerationEvent) => void>();
  #nextId = 1;

  constructor(config: NativeLanguageModelConfig) {
    // Native keeps a reference to this function. It must not refer to `this`, or the model would never be
    // garbage-collected.
    const listeners = this.#listeners;
    this.native = new (native().NativeLanguageModel)(config, (events) => {
      for (const event of events) listeners.get(event.id)?.(event);
    });
  }

  /**
   * @throws (rejects) the signal's reason; the errors of native's generate(); the error that the request failed with
   */
  async generate(request: GenerationRequest): Promise<Generation> {
    const running = this.#request();
    running.start(request, false);
    try {
      return await running.generation(request.tokens.length);
    } finally {
      await running.finish();
    }
  }

  /**
   * Starts with the first `next()`, which rejects if `prepare` throws. `return()` cancels immediately, even while a
   * `next()` is pending.
   */
  stream(prepare: () => GenerationRequest): AsyncGenerator<GenerationChunk, Generation> {
    const running = this.#request();
    const chunks = running.chunks(prepare);
    // A generator's own return() would wait for the pending next().
    const finish = chunks.return.bind(chunks);
    chunks.return = (value) => {
      running.abandon();
      return finish(value);
    };
    return chunks;
  }

  #request(): RunningRequest {
    return new RunningRequest(this.native, this.#listeners, this.#nextId++);
  }
}

class RunningRequest {
  /** Set once the request has ended. */
  end: NativeGenerationEnd | undefined;
  /** The tokens and text of an answer that isn't streamed. */
  #answer: NativeAnswer | undefined;
  /** The tokens of a stream that have arrived. */
  readonly #chunks: NativeChunk[] = [];
  readonly #native: NativeLanguageModel;
  readonly #listeners: Map<number, (event: NativeGenerationEvent) => void>;
  readonly #id: number;
  /** The sequence. This reference keeps an abandoned one from being collected while the request runs. */
  #sequence: GenerationTarget | undefined;
  /** The sequence's length when the request was made. */
  #before = 0;
  /** The number of tokens, of the request and its answer, that the caller knows to be in the sequence. */
  #told = 0;
  #signal: AbortSignal | undefined;
  #ignoreSignal = () => {};
  #isAbandoned = false;
  #wake = () => {};
  readonly #cancel = () => this.#native.cancel(this.#id);

  constructor(
    model: NativeLanguageModel,
    listeners: Map<number, (event: NativeGenerationEvent) => void>,
    id: number,
  ) {
    this.#native = model;
    this.#listeners = listeners;
    this.#id = id;
  }

  start({ sequence, tokens, options, signal }: GenerationRequest, stream: boolean): void {
    signal?.throwIfAborted();
    if (sequence) {
      requireIdle(sequence);
      this.#before = this.#native.sequenceLength(sequence.id);
    }
    this.#native.generate(this.#id, sequence?.id ?? 0, tokens, { ...options, stream });
    this.#listeners.set(this.#id, (event) => {
      if ('chunks' in event) for (const chunk of event.chunks) this.#chunks.push(chunk);
      else this.#answer = event;
      if (event.finished) {
        this.end = event;
        this.#listeners.delete(this.#id);
      }
      this.#wake();
    });
    if (sequence) sequence.isBusy = true;
    this.#sequence = sequence;
    this.#signal = signal;
    this.#ignoreSignal = onAbort(signal, this.#cancel);
  }

  /**
   * Cancels the request if it hasn't ended, and waits for the end: then its row is free, or the sequence can be used
   * again.
   */
  async finish(): Promise<void> {
    if (!this.end) this.#cancel();
    while (!this.end) await this.#change();
    this.#ignoreSignal();
    if (!this.#sequence) return;
    this.#sequence.isBusy = false;
    this.#forget(this.#sequence);
  }

  /** Resolves with the next event. */
  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Called when nobody waits for the answer any more. */
  abandon(): void {
    this.#isAbandoned = true;
    if (this.#listeners.has(this.#id)) this.#cancel();
  }

  async *chunks(prepare: () => GenerationRequest): AsyncGenerator<GenerationChunk, Generation> {
    this.start(prepare(), true);
    try {
      while (!this.#isAbandoned) {
        this.#signal?.throwIfAborted();
        const token = this.#chunks[this.#told];
        if (token) {
          this.#told++;
          // The text that was held back until the end is added to the last token.
          const held = this.end && this.#told === this.#chunks.length ? this.end.text : '';
          yield held ? { ...token, text: token.text + held } : token;
        } else if (this.end) {
          return await this.generation();
        } else {
          await this.#change();
        }
      }
      // Only a next() that return() has overtaken gets here.
      return undefined as never;
    } finally {
      await this.finish();
    }
  }

  /** Removes the tokens that the caller doesn't know about from a sequence. */
  #forget({ id }: GenerationTarget): void {
    const known = this.#before + this.#told;
    try {
      if (this.#native.sequenceLength(id) > known) this.#native.truncate(id, known);
    } catch (error) {
      // The sequence was disposed, which cancelled the answer.
      if ((error as { code?: string }).code !== 'ERR_DISPOSED') throw error;
    }
  }

  /**
   * The whole answer to a request of `input` tokens.
   * @throws (rejects) the signal's reason, the error that it failed with, ERR_DISPOSED
   */
  async generation(input = 0): Promise<Generation> {
    while (!this.end) await this.#change();
    this.#signal?.throwIfAborted();
    const { end } = this;
    if (end.error) throw end.error;
    if (end.finished === 'cancelled') {
      throw new TensorRTError('ERR_DISPOSED', 'The sequence was disposed while it was generating.');
    }
    if (this.#answer) {
      this.#told = input + this.#answer.tokens.length;
      return wholeAnswer(this.#answer, end);
    }
    this.#told = input + this.#chunks.length;
    return streamedAnswer(this.#chunks, end);
  }
}
