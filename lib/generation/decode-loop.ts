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

/** A request to the addon. */
export interface GenerationRequest {
  /** The sequence that is continued, which stays alive with it; undefined for a prompt of its own. */
  readonly sequence: GenerationTarget | undefined;
  readonly tokens: Int32Array;
  readonly options: Omit<NativeGenerateOptions, 'stream'>;
  readonly signal: AbortSignal | undefined;
}

/** The state that a sequence and its requests share. */
export interface GenerationTarget {
  /** Native's number of it. */
  readonly id: number;
  /** A request goes on with it, and has not finished. */
  isBusy: boolean;
}

/** @throws TensorRTError ERR_INVALID_ARG_VALUE where an answer to the sequence has not been heard to its end */
export function requireIdle({ isBusy }: GenerationTarget): void {
  if (!isBusy) return;
  throw new TensorRTError(
    'ERR_INVALID_ARG_VALUE',
    'The sequence is generating already: wait for that to finish, or leave its stream.',
  );
}

/** A model's decode loop, which runs on a native thread, and the requests that wait for its answers. */
export class DecodeLoop {
  readonly native: NativeLanguageModel;
  readonly #listeners = new Map<number, (event: NativeGenerationEvent) => void>();
  #nextId = 1;

  constructor(config: NativeLanguageModelConfig) {
    // Native holds on to the function. It must not hold on to this, or no model would ever be collected.
    const listeners = this.#listeners;
    this.native = new (native().NativeLanguageModel)(config, (events) => {
      for (const event of events) listeners.get(event.id)?.(event);
    });
  }

  /** @throws (rejects) the signal's reason; what native's generate() throws, and what the request failed with */
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
   * Begins with the first `next()`, which `prepare` fails where the request is none. `return()` cancels at once, whatever
   * is awaited.
   */
  stream(prepare: () => GenerationRequest): AsyncGenerator<GenerationChunk, Generation> {
    const running = this.#request();
    const chunks = running.chunks(prepare);
    // A generator's own waits for the next() that is under way.
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
  /** Once it has ended. */
  end: NativeGenerationEnd | undefined;
  /** The end of an answer that came in one piece. */
  #answer: NativeAnswer | undefined;
  /** The tokens of a stream that have come. */
  readonly #chunks: NativeChunk[] = [];
  readonly #native: NativeLanguageModel;
  readonly #listeners: Map<number, (event: NativeGenerationEvent) => void>;
  readonly #id: number;
  /** Sequences that were dropped are collected, but not while they generate. */
  #sequence: GenerationTarget | undefined;
  /** The sequence's length when the request came. */
  #before = 0;
  /** Tokens, of the request and its answer, that the caller knows to have come into the sequence. */
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

  /** Cancels what has not ended, and waits for the end: then the row is free, or the sequence's again. */
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

  /** Nobody waits for its answer any more. */
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
          // The text that was held back until the end goes with the last token.
          const held = this.end && this.#told === this.#chunks.length ? this.end.text : '';
          yield held ? { ...token, text: token.text + held } : token;
        } else if (this.end) {
          return await this.generation();
        } else {
          await this.#change();
        }
      }
      // Heard by a next() that return() has overtaken.
      return undefined as never;
    } finally {
      await this.finish();
    }
  }

  /** Takes from a sequence what nobody has heard of. */
  #forget({ id }: GenerationTarget): void {
    const known = this.#before + this.#told;
    try {
      if (this.#native.sequenceLength(id) > known) this.#native.truncate(id, known);
    } catch (error) {
      // It was disposed of, and the answer cancelled by that.
      if ((error as { code?: string }).code !== 'ERR_DISPOSED') throw error;
    }
  }

  /** All of the answer, to a request of so many tokens. @throws (rejects) the signal's reason, the error that it failed with, ERR_DISPOSED */
  async generation(input = 0): Promise<Generation> {
    while (!this.end) await this.#change();
    this.#signal?.throwIfAborted();
    const { end } = this;
    if (end.error) throw end.error;
    if (end.finished === 'cancelled') {
      throw new TensorRTError('ERR_DISPOSED', 'The sequence was disposed of while it generated.');
    }
    if (this.#answer) {
      this.#told = input + this.#answer.tokens.length;
      return wholeAnswer(this.#answer, end);
    }
    this.#told = input + this.#chunks.length;
    return streamedAnswer(this.#chunks, end);
  }
}
