import { invalidArgType, invalidArgValue, TensorRTError } from '../base/errors.js';
import { abortSignal, checkPath, type OptionTable, readOptions, refuseCloning } from '../base/options.js';
import { requireArrayLength } from '../system/native/bytes.js';
import type { NativeGenerateOptions, NativeLanguageModel } from '../system/native/language-model.js';
import { inputTokens, type PromptContext, requireRoom } from '../text/prompt.js';
import { type DecodeLoop, type GenerationTarget, requireIdle } from './decode-loop.js';
import {
  type GenerateContext,
  readSequenceOptions,
  type SequenceGenerateOptions,
} from './generate-options.js';
import type { Generation, GenerationChunk } from './generation.js';

const appendOptions = { signal: abortSignal } satisfies OptionTable<{ signal?: AbortSignal }>;

/** What a sequence knows of its model. */
export type SequenceContext = GenerateContext & PromptContext;

/** Reads tokens into the cache, and chooses none. */
const appending: Omit<NativeGenerateOptions, 'stream'> = {
  maxTokens: 0,
  minTokens: 0,
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: 0n,
  stop: [],
  stopTokens: new Int32Array(),
  biasTokens: new Int32Array(),
  biases: new Float32Array(),
  logprobs: -1,
  cacheSalt: '',
  priority: 0,
};

/** Gives back the rows of those that were dropped without dispose(). */
const dropped = new FinalizationRegistry<{ native: NativeLanguageModel; id: number }>(({ native, id }) =>
  native.disposeSequence(id),
);

/**
 * A row of the cache, held on to until {@link dispose}, or until it is collected: what it has been given and has answered
 * stays computed. It generates or appends one thing at a time (another is ERR_INVALID_ARG_VALUE); meanwhile it can be
 * forked and saved, as far as it has come.
 */
export class Sequence {
  readonly #loop: DecodeLoop;
  /** Lives as long as this, and as what it generates. */
  readonly #target: GenerationTarget;
  readonly #cacheSalt: string;
  readonly #context: SequenceContext;
  #disposed = false;

  /** @internal @param id native's number of it */
  constructor(loop: DecodeLoop, id: number, cacheSalt: string, context: SequenceContext) {
    this.#loop = loop;
    this.#target = { id, isBusy: false };
    this.#cacheSalt = cacheSalt;
    this.#context = context;
    refuseCloning(this);
    dropped.register(this.#target, { native: loop.native, id }, this.#target);
  }

  /** Tokens. */
  get length(): number {
    return this.#native.sequenceLength(this.#target.id);
  }

  /** What it consists of: a copy. */
  get tokens(): readonly number[] {
    return Array.from(this.#native.sequenceTokens(this.#target.id));
  }

  /**
   * Adds text or tokens. Text that begins the sequence gets the token that texts begin with, if the model has one.
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH where the row
   *   is too short; TensorRTError ERR_DISPOSED, ERR_QUEUE_FULL, ERR_EXECUTION_FAILED; the signal's reason: then the
   *   sequence is as it was
   */
  async append(input: string | readonly number[], options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = readOptions(options, 'options', appendOptions);
    const { length } = this;
    const tokens = inputTokens(input, 'input', this.#context, length === 0);
    requireRoom('input', tokens.length, length, this.#context);
    if (tokens.length === 0) return;
    await this.#loop.generate({
      sequence: this.#target,
      tokens,
      options: { ...appending, cacheSalt: this.#cacheSalt },
      signal,
    });
  }

  /**
   * Continues the sequence, and adds the answer to it; where it rejects, the sequence is as it was.
   * @throws (rejects) RangeError ERR_INVALID_ARG_VALUE where it is empty; TensorRTError ERR_INVALID_ARG_VALUE while it
   *   generates; else as {@link LanguageModel.generate}
   */
  async generate(options: SequenceGenerateOptions = {}): Promise<Generation> {
    return this.#loop.generate(this.#request(options));
  }

  /** {@link generate}, token by token; see {@link LanguageModel.stream}. Left early, the sequence ends where it was left. */
  stream(options: SequenceGenerateOptions = {}): AsyncGenerator<GenerationChunk, Generation> {
    return this.#loop.stream(() => this.#request(options));
  }

  /**
   * A copy, which then goes its own way.
   * @throws (rejects) TensorRTError ERR_CACHE_FULL, ERR_DISPOSED
   */
  async fork(): Promise<Sequence> {
    const copy = await this.#native.fork(this.#target.id);
    return new Sequence(this.#loop, copy, this.#cacheSalt, this.#context);
  }

  /**
   * Keeps the first `length` tokens.
   * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE where it has fewer; TensorRTError
   *   ERR_INVALID_ARG_VALUE while it generates, ERR_DISPOSED
   */
  truncate(length: number): void {
    const tokens = this.length;
    if (typeof length !== 'number') throw invalidArgType('length', 'a number', length);
    if (!Number.isInteger(length) || length < 0 || length > tokens) {
      throw invalidArgValue('length', `must be an integer from 0 to ${tokens}, which it has, not ${length}.`);
    }
    requireIdle(this.#target);
    this.#native.truncate(this.#target.id, length);
  }

  /**
   * What {@link LanguageModel.restoreSequence} makes the sequence of again, without computing it: as bytes, or in a file,
   * which appears whole or not at all. It is for the same model, in the same precision; it holds the tokens themselves.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; ERR_BUFFER_TOO_LARGE for more bytes than a Uint8Array holds
   *   (4 GiB on Node 20), which a file takes
   */
  save(): Promise<Uint8Array>;
  save(path: string): Promise<void>;
  async save(path?: string): Promise<unknown> {
    if (path !== undefined) checkPath(path, 'path');
    const state = await this.#native.saveSequence(this.#target.id);
    try {
      if (path !== undefined) {
        const { writeAtomically } = await import('../system/files/atomic-file.js');
        return await writeAtomically(path, [state], 'sequence');
      }
      requireArrayLength(state, 'The sequence', 'Sequence.save(path)');
      return new Uint8Array(state.handOver());
    } finally {
      state.release();
    }
  }

  /** Gives the row back. What it generates is cancelled. May be called again. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    dropped.unregister(this.#target);
    this.#loop.native.disposeSequence(this.#target.id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  get #native() {
    if (this.#disposed) throw new TensorRTError('ERR_DISPOSED', 'The sequence was disposed.');
    return this.#loop.native;
  }

  #request(options: SequenceGenerateOptions) {
    const read = { ...readSequenceOptions(options, this.#context), cacheSalt: this.#cacheSalt };
    if (this.length === 0) {
      throw invalidArgValue('sequence', 'is empty: append a prompt before generate().');
    }
    return { sequence: this.#target, tokens: new Int32Array(), options: read, signal: options.signal };
  }
}
