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

/** The facts about its model that a sequence needs. */
export type SequenceContext = GenerateContext & PromptContext;

/** Options with which the addon reads tokens into the cache and chooses none. */
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

/** Gives back the rows of sequences that were dropped without dispose(). */
const dropped = new FinalizationRegistry<{ native: NativeLanguageModel; id: number }>(({ native, id }) =>
  native.disposeSequence(id),
);

/**
 * A row of the cache that is kept until {@link dispose}, or until it is garbage-collected. Its tokens stay computed. It
 * generates or appends one thing at a time (a second one is refused with ERR_INVALID_ARG_VALUE). Meanwhile it can be
 * forked and saved, as far as it has come.
 *
 * @example
 * ```js
 * import { LanguageModel } from 'node-tensorrt';
 *
 * const model = await LanguageModel.load('llama');
 * const story = model.createSequence();
 * await story.append('Once upon a time');
 * const other = await story.fork();
 * console.log((await story.generate({ maxTokens: 10 })).text);
 * console.log((await other.generate({ maxTokens: 10, temperature: 1, seed: 3 })).text);
 * story.dispose();
 * other.dispose();
 * await model.dispose();
 * ```
 */
export class Sequence {
  readonly #loop: DecodeLoop;
  /** It lives as long as the sequence and the answers that it generates. */
  readonly #target: GenerationTarget;
  readonly #cacheSalt: string;
  readonly #context: SequenceContext;
  #disposed = false;

  /** @internal @param id the addon's number for it */
  constructor(loop: DecodeLoop, id: number, cacheSalt: string, context: SequenceContext) {
    this.#loop = loop;
    this.#target = { id, isBusy: false };
    this.#cacheSalt = cacheSalt;
    this.#context = context;
    refuseCloning(this);
    dropped.register(this.#target, { native: loop.native, id }, this.#target);
  }

  /** How many tokens it has. */
  get length(): number {
    return this.#native.sequenceLength(this.#target.id);
  }

  /** A copy of its tokens. */
  get tokens(): readonly number[] {
    return Array.from(this.#native.sequenceTokens(this.#target.id));
  }

  /**
   * Adds text or tokens. Text at the beginning of a sequence gets the model's begin-of-sequence token, if it has one.
   * If it rejects, the sequence is as it was.
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH if the row is
   *   too short; TensorRTError ERR_DISPOSED, ERR_QUEUE_FULL, ERR_EXECUTION_FAILED; the signal's reason
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
   * Continues the sequence, and adds the answer to it. If it rejects, the sequence is as it was.
   * @throws (rejects) RangeError ERR_INVALID_ARG_VALUE if it is empty; TensorRTError ERR_INVALID_ARG_VALUE while it
   *   generates; else as {@link LanguageModel.generate}
   */
  async generate(options: SequenceGenerateOptions = {}): Promise<Generation> {
    return this.#loop.generate(this.#request(options));
  }

  /**
   * Continues the sequence token by token, as {@link LanguageModel.stream} does. If the loop is left early, the sequence
   * ends with the tokens that were generated.
   */
  stream(options: SequenceGenerateOptions = {}): AsyncGenerator<GenerationChunk, Generation> {
    return this.#loop.stream(() => this.#request(options));
  }

  /**
   * Copies the sequence into a row of its own.
   * @throws (rejects) TensorRTError ERR_CACHE_FULL, ERR_DISPOSED
   */
  async fork(): Promise<Sequence> {
    const copy = await this.#native.fork(this.#target.id);
    return new Sequence(this.#loop, copy, this.#cacheSalt, this.#context);
  }

  /**
   * Keeps the first `length` tokens.
   * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE if it has fewer; TensorRTError
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
   * Saves the sequence, so that {@link LanguageModel.restoreSequence} restores it without computing it again: as bytes,
   * or into a file, which appears whole or not at all. It can be restored into the same model in the same precision. It
   * holds the tokens themselves.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; ERR_BUFFER_TOO_LARGE for more bytes than a Uint8Array holds
   *   (4 GiB on Node 20), which need a file
   */
  save(): Promise<Uint8Array>;
  /** Saves the sequence into a file. */
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

  /** Gives the row back and cancels an answer that is being generated. It may be called again. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    dropped.unregister(this.#target);
    this.#loop.native.disposeSequence(this.#target.id);
  }

  /** Disposes of the sequence at the end of a `using` block. */
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
