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

/** What a model has done so far. */
export interface LanguageModelStats {
  readonly requests: {
    /** For a row, or their turn. */
    readonly waiting: number;
    readonly active: number;
    readonly completed: number;
    readonly failed: number;
    readonly cancelled: number;
  };
  readonly tokens: {
    /** Of prompts, computed. */
    readonly prefilled: number;
    /** Of prompts, found in the cache. */
    readonly cached: number;
    /** Computed one a step, of all requests together. */
    readonly decoded: number;
  };
  readonly steps: {
    /** With a chunk of a prompt. */
    readonly prefill: number;
    /** With one token for each request that answers. */
    readonly decode: number;
  };
  /** What the model takes of a GPU, in bytes, without its cache; null on the CPU, and once it is disposed. */
  readonly memory: SessionStats['memory'];
  /**
   * The CUDA graphs of its steps, likewise. A step's shape is captured when it comes for the second time, and replayed from
   * then on. TensorRT-RTX captures its own, and does not count them.
   */
  readonly graphs: SessionStats['graphs'];
}

const sequenceOptions = { cacheSalt: text('') } satisfies OptionTable<{ cacheSalt?: string }>;

/**
 * A decoder that generates text, on a native thread of its own: requests run together, whatever their lengths, and the
 * event loop is never waited for. What they have read stays in a cache, which prompts that begin alike share.
 */
export class LanguageModel {
  /** undefined where there is none beside the model: then prompts are tokens. */
  readonly tokenizer: Tokenizer | undefined;
  readonly kvCache: KvCache;
  /** Where it runs: 'cpu', 'cuda:0', … */
  readonly device: string;
  /** Why that device was chosen. */
  readonly why: string;
  /** What executes it, e.g. `{ name: 'onnxruntime', version: '1.30.0' }`. */
  readonly runtime: Readonly<{ name: string; version: string }>;
  /** What it computes in: on the CPU 'as-exported', on a GPU what the engine was compiled with ('fp16' by default). */
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
   * Loads a folder as optimum or onnxruntime-genai exports it, or as a model hub has it; or an ONNX file, with what lies
   * beside it. Its graph is rewritten such that the cache is updated in place, where that can be: `kvCache.mode` says.
   * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED (says what of it),
   *   ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED, ERR_NO_GPU, ERR_OUT_OF_MEMORY, ERR_IO; TypeError or RangeError for
   *   bad arguments; the signal's reason
   */
  static async load(pathToDirOrOnnx: string, options: LanguageModelOptions = {}): Promise<LanguageModel> {
    // Only who loads a model pays for loading what does.
    const { openLanguageModel } = await import('./open-language-model.js');
    return new LanguageModel(await openLanguageModel(pathToDirOrOnnx, options));
  }

  /**
   * Answers a prompt: text, tokens, or a conversation, which the model's chat template turns into text.
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH where the
   *   prompt is longer than a row; TensorRTError ERR_QUEUE_FULL, ERR_CACHE_FULL where sequences have all rows,
   *   ERR_DISPOSED, ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY; the signal's reason
   */
  async generate(prompt: Prompt, options: GenerateOptions = {}): Promise<Generation> {
    return this.#loop.generate(this.#request(prompt, options));
  }

  /**
   * {@link generate}, token by token; it returns what generate() resolves with. It begins with the first `next()`.
   * Leaving the loop cancels it. Who reads slowly holds up nobody: what it has not read yet is kept, up to maxTokens.
   * @throws (at `next()`) as {@link generate}
   */
  stream(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GenerationChunk, Generation> {
    return this.#loop.stream(() => this.#request(prompt, options));
  }

  /**
   * An empty row of the cache, to hold on to.
   * @param options.cacheSalt as in {@link GenerateOptions}: what the sequence reads serves prompts with the same one
   * @throws TensorRTError ERR_CACHE_FULL where requests and sequences have all rows, ERR_DISPOSED
   */
  createSequence(options: { cacheSalt?: string } = {}): Sequence {
    const { cacheSalt } = readOptions(options, 'options', sequenceOptions);
    return new Sequence(this.#loop, this.#loop.native.createSequence(), cacheSalt, this.#context);
  }

  /**
   * What {@link Sequence.save} gave, or the file that it wrote.
   * @throws (rejects) TensorRTError ERR_STATE_MISMATCH where it is damaged, or of another model, precision or layout;
   *   ERR_CACHE_FULL, ERR_DISPOSED, ERR_IO; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  async restoreSequence(from: string | Bytes): Promise<Sequence> {
    if (typeof from === 'string') checkPath(from, 'from');
    const state = typeof from === 'string' ? from : bytesOf(from, 'from');
    if (state === undefined) throw invalidArgType('from', 'a path, a Uint8Array or an ArrayBuffer', from);
    const id = typeof state === 'string' ? await this.#restoreFile(state) : await this.#restore(state);
    return new Sequence(this.#loop, id, '', this.#context);
  }

  /** May be called after {@link dispose}. */
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

  /** Refuses further requests, lets those accepted finish, then frees model and cache. May be called again. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#loop.native.close();
    return this.#disposed;
  }

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
