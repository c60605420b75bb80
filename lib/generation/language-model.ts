import { invalidArgType, TensorRTError } from '../base/errors.js';
import {
  type Bytes,
  bytesOf,
  checkPath,
  type OptionTable,
  readOptions,
  refuseCloning,
  text,
} from '../base/options.js';
import type { EngineManifest } from '../engine/manifest.js';
import type { SessionStats } from '../execution/session-stats.js';
import type { NativeBytes } from '../system/native/bytes.js';
import { native } from '../system/native.js';
import { type Prompt, promptTokens } from '../text/prompt.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { DecodeLoop } from './decode-loop.js';
import { type GenerateOptions, readGenerateOptions } from './generate-options.js';
import type { Generation, GenerationChunk } from './generation.js';
import type { KvCache } from './kv-cache.js';
import type { LanguageModelOptions } from './language-model-options.js';
import type { OpenedLanguageModel } from './open-language-model.js';
import { Sequence, type SequenceContext } from './sequence.js';

/** Counters of a language model so far. */
export interface LanguageModelStats {
  /** How many requests there were, and are. */
  readonly requests: {
    /** Requests that wait for a row of the cache. */
    readonly waiting: number;
    /** Requests that have a row. */
    readonly active: number;
    /** Requests that gave an answer. */
    readonly completed: number;
    /** Requests that rejected with an error. */
    readonly failed: number;
    /** Requests that were aborted. */
    readonly cancelled: number;
  };
  /** How many tokens were read and generated. */
  readonly tokens: {
    /** Prompt tokens computed. */
    readonly prefilled: number;
    /** Prompt tokens found in the cache. */
    readonly cached: number;
    /** Tokens that decode steps computed, for all requests together. */
    readonly decoded: number;
  };
  /** How many times the model ran. */
  readonly steps: {
    /** Steps that read a chunk of a prompt. */
    readonly prefill: number;
    /** Steps that computed one token for each request. */
    readonly decode: number;
  };
  /** Bytes that the model takes on a GPU, without its cache; null on the CPU and after disposal. */
  readonly memory: SessionStats['memory'];
  /**
   * CUDA graphs of the model's steps; null on the CPU and after disposal. A shape is captured when it comes for the
   * second time, and replayed from then on. TensorRT-RTX captures its own graphs, which aren't counted here.
   */
  readonly graphs: SessionStats['graphs'];
}

const sequenceOptions = { cacheSalt: text('') } satisfies OptionTable<{ cacheSalt?: string }>;

// Importing the package doesn't load the code that loads models. The first call loads it without waiting, so that
// arguments are read before the call returns.
const opening = () => require('./open-language-model.js') as typeof import('./open-language-model.js');

/**
 * A language model that generates text on a native thread of its own. Requests run together, whatever their lengths,
 * and the event loop is never blocked. The tokens that requests have read stay in a cache, and prompts that begin alike
 * share them.
 *
 * @example
 * ```js
 * import { LanguageModel } from 'node-tensorrt';
 *
 * const model = await LanguageModel.load('llama', { kvCache: { maxBatchSize: 4, maxLength: 512 } });
 * for await (const { text } of model.stream('Once upon a time', { maxTokens: 20 })) process.stdout.write(text);
 * await model.dispose();
 * ```
 */
export class LanguageModel {
  /** The model's tokenizer; undefined if there is none beside the model. Prompts must be tokens then. */
  readonly tokenizer: Tokenizer | undefined;
  /** The model's cache of keys and values. */
  readonly kvCache: KvCache;
  /** The device that it runs on: 'cpu', 'cuda:0' and so on. */
  readonly device: string;
  /** Why it runs on that device, as a sentence. */
  readonly why: string;
  /** The runtime that executes it, such as `{ name: 'onnxruntime', version: '1.30.0' }`. */
  readonly runtime: Readonly<{ name: string; version: string }>;
  /** The types that it computes in: 'as-exported' on the CPU, on a GPU those of `options.precision`. */
  readonly precision: EngineManifest['precision'];
  readonly #loop: DecodeLoop;
  readonly #context: SequenceContext;
  #disposed: Promise<void> | undefined;

  private constructor({ loop, context, kvCache, device, why, runtime, precision }: OpenedLanguageModel) {
    this.#loop = loop;
    this.#context = context;
    this.tokenizer = context.tokenizer;
    this.kvCache = kvCache;
    this.device = device;
    this.why = why;
    this.runtime = Object.freeze(runtime);
    this.precision = precision;
    refuseCloning(this);
  }

  /**
   * Loads a language model: a folder as optimum or onnxruntime-genai exports it or as a model hub has it, or an ONNX file
   * with its configuration beside it. The graph is rewritten so that the cache is updated in place, if that is possible;
   * `kvCache.mode` tells.
   *
   * @param pathToDirOrOnnx the folder, or the ONNX file
   * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED (names what isn't
   *   supported), ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED, ERR_NO_GPU, ERR_OUT_OF_MEMORY, ERR_IO; TypeError or
   *   RangeError for bad arguments; the signal's reason
   */
  static async load(pathToDirOrOnnx: string, options: LanguageModelOptions = {}): Promise<LanguageModel> {
    return new LanguageModel(await opening().openLanguageModel(pathToDirOrOnnx, options));
  }

  /**
   * Generates the answer to a prompt: to a text, to tokens, or to a conversation, which the model's chat template turns
   * into text.
   *
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH if the prompt
   *   is longer than a row; TensorRTError ERR_QUEUE_FULL, ERR_CACHE_FULL if sequences use all rows, ERR_DISPOSED,
   *   ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY; the signal's reason
   */
  async generate(prompt: Prompt, options: GenerateOptions = {}): Promise<Generation> {
    return this.#loop.generate(this.#request(prompt, options));
  }

  /**
   * Generates an answer token by token. The request begins with the first `next()`, and the generator returns what
   * {@link generate} resolves with. Leaving the loop cancels the request. A slow reader doesn't delay other requests: the
   * tokens that it hasn't read yet are kept.
   *
   * @throws (at `next()`) as {@link generate}
   */
  stream(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GenerationChunk, Generation> {
    return this.#loop.stream(() => this.#request(prompt, options));
  }

  /**
   * Creates an empty sequence: a row of the cache that stays until it is disposed of.
   * @param options.cacheSalt separates tenants in the cache, as in {@link GenerateOptions}. Defaults to ''
   * @throws TensorRTError ERR_CACHE_FULL if requests and sequences use all rows, ERR_DISPOSED
   */
  createSequence(options: { cacheSalt?: string } = {}): Sequence {
    const { cacheSalt } = readOptions(options, 'options', sequenceOptions);
    return new Sequence(this.#loop, this.#loop.native.createSequence(), cacheSalt, this.#context);
  }

  /**
   * Restores a sequence from the bytes that {@link Sequence.save} returned, or from the file that it wrote.
   * @throws (rejects) TensorRTError ERR_STATE_MISMATCH if it is damaged, or of another model, precision or layout;
   *   ERR_CACHE_FULL, ERR_DISPOSED, ERR_IO; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  async restoreSequence(from: string | Bytes): Promise<Sequence> {
    if (typeof from === 'string') checkPath(from, 'from');
    const state = typeof from === 'string' ? from : bytesOf(from, 'from');
    if (state === undefined) throw invalidArgType('from', 'a path, a Uint8Array or an ArrayBuffer', from);
    const id = typeof state === 'string' ? await this.#restoreFile(state) : await this.#restore(state);
    return new Sequence(this.#loop, id, '', this.#context);
  }

  /** Returns counters. It may be called after {@link dispose}. */
  stats(): LanguageModelStats {
    const stats = this.#loop.native.stats();
    const device = this.#loop.native.deviceStats();
    const { waiting, active, completed, failed, cancelled } = stats;
    return {
      requests: { waiting, active, completed, failed, cancelled },
      tokens: {
        prefilled: stats.prefilledTokens,
        cached: stats.cachedTokens,
        decoded: stats.decodedRows,
      },
      steps: { prefill: stats.prefillSteps, decode: stats.decodeSteps },
      memory: device?.memory ?? null,
      graphs: device?.graphs ?? null,
    };
  }

  /** Refuses further requests, lets accepted ones finish, then frees model and cache. It may be called again. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#loop.native.close();
    return this.#disposed;
  }

  /** Disposes of the model at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #restore(state: Uint8Array | NativeBytes): Promise<number> {
    return this.#loop.native.restoreSequence(state);
  }

  async #restoreFile(file: string): Promise<number> {
    const state = await openState(file);
    try {
      return await this.#restore(state);
    } finally {
      state.release();
    }
  }

  #request(prompt: Prompt, options: GenerateOptions) {
    if (this.#disposed) throw new TensorRTError('ERR_DISPOSED', 'The model was disposed.');
    return {
      sequence: undefined,
      options: readGenerateOptions(options, this.#context),
      tokens: promptTokens(prompt, this.#context),
      signal: options.signal,
    };
  }
}

async function openState(file: string): Promise<NativeBytes> {
  const { withOpenFile } = await import('../system/files/file-range.js');
  try {
    return await withOpenFile(
      file,
      'sequence',
      async (descriptor, size) => new (native().NativeBytes)(file, descriptor, 0, size),
    );
  } catch (cause) {
    throw new TensorRTError('ERR_IO', (cause as Error).message, { cause });
  }
}
