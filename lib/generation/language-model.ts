import { createHash } from '../base/crypto.js';
import { invalidArgType, invalidArgValue, TensorRTError } from '../base/errors.js';
import {
  type Bytes,
  bytesOf,
  checkOptions,
  checkPath,
  checkSignal,
  enumOption,
  integerOption,
  onAbort,
  refuseCloning,
} from '../base/options.js';
import {
  type BuildOptions,
  buildDirectory,
  buildOptionNames,
  checkBuildOptions,
  pickBuildOptions,
} from '../engine/build-engine.js';
import type { PreparedDecoder } from '../engine/decoder/prepare-decoder.js';
import type { Engine, EngineManifest } from '../engine/engine.js';
import { EngineCache } from '../engine/engine-cache.js';
import { type DeviceChoice, deviceOption, placeOnGpu } from '../execution/device.js';
import { loadEngine } from '../execution/load-plan.js';
import {
  refusedSessionOptions,
  type SessionOptions,
  type SessionStats,
  sessionPrecisions,
} from '../session/session.js';
import { withOpenFile } from '../system/files/file-range.js';
import {
  type NativeBytes,
  type NativeLanguageModel,
  type NativeLoadedModel,
  native,
} from '../system/native.js';
import { findOnnxRuntime } from '../system/onnxruntime-library.js';
import { ChatTemplate } from '../text/chat-template.js';
import { type Prompt, promptTokens } from '../text/prompt.js';
import {
  checkTokenizer,
  readEosToken,
  readTokenizer,
  type Tokenizer,
  type TokenPieces,
  tokenPieces,
} from '../text/tokenizer.js';
import { DecodeLoop } from './decode-loop.js';
import { type DecoderConfig, readDecoderConfig, UnusableValue, usable } from './decoder-config.js';
import { type GenerateOptions, readGenerateOptions } from './generate-options.js';
import type { Generation, GenerationChunk } from './generation.js';
import { KvCache, type KvCacheOptions, type KvCacheSettings, readKvCacheOptions } from './kv-cache.js';
import { Sequence, type SequenceContext } from './sequence.js';

/** Those of {@link SessionOptions} that are about where and how to run, and these. */
export interface LanguageModelOptions
  extends Omit<
    SessionOptions,
    'concurrency' | 'preferredOutputLocation' | 'shapes' | 'calibration' | 'refit'
  > {
  /** Rows and lengths of the cache. */
  kvCache?: KvCacheOptions;
  /** Instead of the tokenizer.json beside the model. */
  tokenizer?: Tokenizer;
  /** A Jinja template, instead of the model's own. */
  chatTemplate?: string;
  /** Tokens of prompts that are read in a step; a quarter of them, while others answer. Default 512. */
  chunkSize?: number;
  /** Requests that may wait for a row; one more is refused with ERR_QUEUE_FULL. Default 1024. */
  maxQueue?: number;
  /**
   * On a GPU as in {@link BuildOptions}. On the CPU a decoder runs in the types that it has, FP32 as FP32 with 'tf32' too:
   * 'fp16' and 'bf16' are refused there with ERR_INVALID_ARG_VALUE.
   */
  precision?: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
}

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

const optionNames = [
  'kvCache',
  'tokenizer',
  'chatTemplate',
  'chunkSize',
  'device',
  'threads',
  'maxQueue',
  'cudaGraph',
  ...buildOptionNames.filter(
    (name) => !['shapes', 'calibration', 'refit', 'target', 'parent', 'lineage'].includes(name),
  ),
];

const defaultMaxLength = 4096;

/** Without a tokenizer, tokens say nothing. */
const noPieces: TokenPieces = {
  bytes: new Uint8Array(),
  offsets: Uint32Array.of(0),
  stripLeadingSpace: false,
};

/** As {@link refusedSessionOptions}, for a language model: it decides some options of a session itself. */
const refusedOptions: Readonly<Record<string, string>> = {
  ...refusedSessionOptions,
  concurrency: 'is not an option of a language model: its steps run all requests together.',
  batching:
    'is not an option of a language model: its steps run all requests together, options.kvCache.maxBatchSize at most.',
  target: 'is not an option of a language model: it is loaded where it runs.',
  preferredOutputLocation: 'is not an option of a language model: tokens come to the CPU, the cache stays.',
  shapes: 'is not an option of a language model: options.kvCache decides the shapes.',
  calibration: 'is not an option of a language model: ranges are measured with random prompts.',
  refit: 'is not an option of a language model: its weights stay, as the cache is of them.',
  freeDimensionOverrides: 'is not an option of a language model: options.kvCache decides the shapes.',
};

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

  private constructor(parts: {
    loop: DecodeLoop;
    context: SequenceContext;
    kvCache: KvCache;
    device: string;
    why: string;
    runtime: NativeLoadedModel['runtime'];
    precision: EngineManifest['precision'];
  }) {
    this.#loop = parts.loop;
    this.#context = parts.context;
    this.tokenizer = parts.context.tokenizer;
    this.kvCache = parts.kvCache;
    this.device = parts.device;
    this.why = parts.why;
    this.runtime = Object.freeze(parts.runtime);
    this.precision = parts.precision;
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
    const source = pathToDirOrOnnx;
    checkPath(source, 'pathToDirOrOnnx');
    const settings = readOptions(options);
    const { signal, kvCache, threads } = settings;
    signal?.throwIfAborted();

    const config = await readDecoderConfig(source);
    const tokenizer = settings.tokenizer ?? (await readTokenizer(config.directory));
    const named = config.eosTokens instanceof UnusableValue || config.eosTokens.length > 0;
    const eosTokens = named ? config.eosTokens : await readEosToken(config.directory, tokenizer);
    const chatTemplate = await ChatTemplate.load(config.directory, settings.chatTemplate);
    const { prepareDecoder } = await import('../engine/decoder/prepare-decoder.js');
    const { digestModel } = await import('../engine/model-digest.js');
    const directory = await buildDirectory();
    try {
      const maxLength = rowLength(kvCache, config);
      const cache = new EngineCache();
      const request = { model: config.model, directory: directory.path, maxLength };
      const [prepared, digest] = await Promise.all([
        prepareDecoder({ ...request, memo: cache.memo('decoders') }, signal),
        digestModel(config.model, cache.memo('models'), signal),
      ]);
      const vocabulary = prepared.facts.vocabulary ?? usable(config.vocabulary);
      if (vocabulary === undefined) {
        throw new TensorRTError(
          'ERR_MODEL_UNSUPPORTED',
          `Neither ${config.model} nor a config.json beside it says how many tokens there are: vocab_size.`,
        );
      }
      const capacity = Math.min(maxLength, prepared.facts.capacity ?? maxLength);
      const place = await placeOnGpu(settings.device, signal, async ({ ordinal }) => {
        const { buildDecoder } = await import('../engine/decoder/build-decoder.js');
        const { maxBatchSize: rows, dtype } = kvCache;
        const decoder = { ...prepared, capacity, rows, chunkSize: settings.chunkSize, cache: dtype };
        return buildDecoder(ordinal, decoder, pickBuildOptions(options));
      });
      signal?.throwIfAborted();
      if (!place.made) {
        requireCpuPrecision(settings.precision, place.why);
        requireCacheType(kvCache, prepared);
      }
      const graph = place.made?.graph ?? prepared.graph;
      const { stripLeadingSpace, ...pieces } = tokenizer ? tokenPieces(tokenizer, vocabulary) : noPieces;
      const loop = new DecodeLoop({
        graph,
        rows: kvCache.maxBatchSize,
        maxLength: capacity,
        chunkSize: settings.chunkSize,
        maxQueue: settings.maxQueue,
        prefixReuse: kvCache.prefixReuse,
        pieces,
        stripLeadingSpace,
        fingerprint: createHash('sha256')
          .update(JSON.stringify([digest, graph, place.made && typesOf(place.made.engine)]))
          .digest('hex'),
      });
      const { libraryPath } = options;
      const precision = place.made?.engine.manifest.precision ?? 'as-exported';
      const loaded = await loadInto(loop, signal, (model) =>
        place.made
          ? loadEngine(model, {
              engine: place.made.engine,
              gpu: place.gpu,
              libraryPath,
              cudaGraph: settings.cudaGraph,
              deviceOutputs: false,
            })
          : model.load({
              library: findOnnxRuntime(),
              model: prepared.file,
              weights: prepared.weights,
              threads,
            }),
      ).finally(() => place.made?.engine.dispose());
      return new LanguageModel({
        loop,
        context: {
          tokenizer,
          chatTemplate,
          vocabulary,
          maxLength: capacity,
          eosTokens,
          sampling: config.sampling,
        },
        kvCache: new KvCache(loop.native, graph.mode, whyMode(prepared, place.made?.engine), capacity),
        device: place.made ? place.gpu.device : 'cpu',
        why: place.why,
        runtime: loaded.runtime,
        precision,
      });
    } finally {
      await directory.remove();
    }
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
    checkOptions(options, 'options', ['cacheSalt'], {});
    const { cacheSalt = '' } = options;
    if (typeof cacheSalt !== 'string') throw invalidArgType('options.cacheSalt', 'a string', cacheSalt);
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

interface Settings {
  readonly device: DeviceChoice;
  readonly threads: number;
  readonly maxQueue: number;
  readonly chunkSize: number;
  readonly precision: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
  readonly kvCache: KvCacheSettings;
  readonly cudaGraph: boolean;
  readonly tokenizer: Tokenizer | undefined;
  readonly chatTemplate: string | undefined;
  readonly signal: AbortSignal | undefined;
}

function readOptions(options: LanguageModelOptions): Settings {
  checkOptions(options, 'options', optionNames, refusedOptions);
  checkBuildOptions(options);
  const { tokenizer, chatTemplate, cudaGraph = true, signal } = options;
  if (typeof cudaGraph !== 'boolean') throw invalidArgType('options.cudaGraph', 'a boolean', cudaGraph);
  checkSignal(signal, 'options.signal');
  if (tokenizer !== undefined) checkTokenizer(tokenizer, 'options.tokenizer');
  if (chatTemplate !== undefined && typeof chatTemplate !== 'string') {
    throw invalidArgType('options.chatTemplate', 'a string', chatTemplate);
  }
  return {
    device: deviceOption(options.device, 'options.device'),
    threads: integerOption(options.threads, 'options.threads', 0, 1, 1024),
    maxQueue: integerOption(options.maxQueue, 'options.maxQueue', 1024, 1, 2 ** 31 - 1),
    chunkSize: integerOption(options.chunkSize, 'options.chunkSize', 512, 1, 2 ** 20),
    precision: enumOption(options.precision, 'options.precision', sessionPrecisions),
    kvCache: readKvCacheOptions(options.kvCache, 'options.kvCache'),
    cudaGraph,
    tokenizer,
    chatTemplate,
    signal,
  };
}

/** Tokens a row, as far as the model has positions. */
function rowLength({ maxLength }: KvCacheSettings, { maxLength: positions }: DecoderConfig): number {
  if (maxLength === undefined) {
    return Math.min(usable(positions, 'options.kvCache.maxLength') ?? defaultMaxLength, defaultMaxLength);
  }
  if (positions === undefined || positions instanceof UnusableValue || maxLength <= positions)
    return maxLength;
  throw invalidArgValue(
    'options.kvCache.maxLength',
    `must be at most ${positions}, the positions that the model has, not ${maxLength}.`,
  );
}

function requireCpuPrecision(precision: Settings['precision'], why: string): void {
  if (precision !== 'fp16' && precision !== 'bf16') return;
  throw invalidArgValue(
    'options.precision',
    `can't be '${precision}' on the CPU, where a decoder runs in the types that it has. It is the CPU: ${why}`,
  );
}

function requireCacheType({ dtype }: KvCacheSettings, { facts: { cacheType } }: PreparedDecoder): void {
  if (dtype === 'auto' || { fp16: 'float16', fp32: 'float32' }[dtype] === cacheType) return;
  throw invalidArgValue(
    'options.kvCache.dtype',
    `can't be '${dtype}': on the CPU the cache has the type that the model computes keys and values in, ${cacheType}.`,
  );
}

function whyMode({ why }: PreparedDecoder, engine: Engine | undefined): string {
  return engine ? `${why} For TensorRT that became its KV-cache layers.` : why;
}

/** What a saved cache's numbers depend on, beside the model. */
function typesOf({ manifest, inputs }: Engine): readonly unknown[] {
  return [manifest.precision, ...inputs.map(({ name, type }) => [name, type])];
}

/** Loads the model into the loop, unless the signal ends it. */
async function loadInto(
  { native }: DecodeLoop,
  signal: AbortSignal | undefined,
  load: (model: NativeLanguageModel) => Promise<NativeLoadedModel | undefined>,
): Promise<NativeLoadedModel> {
  const unhear = onAbort(signal, () => native.stopLoading());
  try {
    const loaded = await load(native);
    if (signal?.aborted) {
      if (loaded) await native.close();
      throw signal.reason;
    }
    if (!loaded) throw new TensorRTError('ERR_DISPOSED', 'The model was stopped while it loaded.');
    return loaded;
  } catch (error) {
    throw signal?.aborted ? signal.reason : error;
  } finally {
    unhear();
  }
}

async function openState(file: string): Promise<NativeBytes> {
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
