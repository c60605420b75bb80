import { constants } from 'node:buffer';
import type { DecoderGraph } from '../base/decoder-graph.js';
import { TensorRTError } from '../base/errors.js';
import { loadBinary } from './binary.js';
import type { Flavour } from './nvidia-support.js';

/** Native memory behind an ArrayBuffer; runs use it without a copy. */
export interface HostBuffer {
  /** undefined where the host allows no ArrayBuffer over native memory. */
  readonly arrayBuffer: ArrayBuffer | undefined;
}

/**
 * Bytes outside the JavaScript heap, of any length: in native memory, or a part of a file, which is read when they are
 * used. Where the file was changed meanwhile, what reads all of them fails with ERR_IO. After `release()` everything
 * throws ERR_DISPOSED.
 */
export interface NativeBytes {
  readonly byteLength: number;
  /** Fills `into` with those from `from` on. Blocks. Throws ERR_INVALID_ARG_VALUE where there are fewer, ERR_IO. */
  read(from: number, into: Uint8Array): void;
  /** SHA-256 of `before` and all of them, computed on a thread. Rejects with ERR_IO. */
  sha256(before: Uint8Array): Promise<Uint8Array>;
  /** The same, blocking. Throws ERR_IO. */
  sha256Sync(before: Uint8Array): Uint8Array;
  /** Writes them where the file's position is, on a thread. Rejects with ERR_IO. */
  writeTo(descriptor: number): Promise<void>;
  /** Sets the time of the last access to their file, and to nothing else of it; where it can't, it doesn't. */
  markUsed(): void;
  /** Another handle on the same bytes. */
  share(): NativeBytes;
  /** The bytes themselves, where the host allows it, else a copy. Nothing else may use them; this releases them. */
  handOver(): ArrayBuffer;
  /** Lets go of them: they are freed when no other handle and no thread has them. */
  release(): void;
}

/** A tensor in a GPU's memory: an opaque handle. */
export interface DeviceTensor {
  readonly deviceTensor: unique symbol;
}

export interface NativeTensorInfo {
  name: string;
  /** ONNX element type, see data-type.ts; 0 for an output that is no tensor. */
  type: number;
  /** A number, or the symbolic name of a dynamic dimension ('' where it has none). */
  shape: (number | string)[];
}

/** `[type, dims, data]`; no data where the run wrote a HostBuffer of the caller. */
export type NativeOutput = [
  type: number,
  dims: number[],
  data: ArrayBuffer | DeviceTensor | string[] | undefined,
];

/** Milliseconds; see RunTiming in session.ts. */
export interface NativeTiming {
  queueMs: number;
  enqueueMs?: number;
  h2dMs?: number;
  computeMs: number;
  d2hMs?: number;
  totalMs: number;
}

export interface NativeSessionStats {
  completed: number;
  failed: number;
  cancelled: number;
  queued: number;
  executing: number;
  /** Milliseconds of the latest runs that completed, in no order. */
  latencies: number[];
  /** Present for a model on a GPU. */
  device?: NativeDeviceStats;
}

/** What a model on a GPU takes, in bytes, and what became of its CUDA graphs. See SessionStats in session.ts. */
export interface NativeDeviceStats {
  memory: {
    weights: number;
    activations: number;
    io: number;
    pinned: number;
    free: number;
    total: number;
  };
  graphs: { captured: number; replayed: number; refused: number };
}

export type NativeInput = ArrayBufferView | HostBuffer | DeviceTensor | readonly string[];

export interface NativeLoadedModel {
  inputs: NativeTensorInfo[];
  outputs: NativeTensorInfo[];
  runtime: { name: string; version: string };
  /** Of a plan, the shapes that it was compiled for, by input; none for other models. */
  profiles: Record<string, { min: number[]; opt: number[]; max: number[] }>[];
}

export type NativeLoadRequest =
  | {
      /** ONNX Runtime's. */
      library: string;
      model: string | Uint8Array;
      /** The folder that a file's external data is named relative to; undefined: its own. */
      weights?: string | undefined;
      threads: number;
      device?: undefined;
    }
  | {
      /** TensorRT's core library. */
      library: string;
      /** A plan, which the thread that loads keeps. */
      model: NativeBytes;
      /** CUDA's number of the GPU. */
      device: number;
      cudaGraph: boolean;
      deviceOutputs: boolean;
      /** The file that keeps what TensorRT-RTX compiles when it first runs a plan; '' for none. */
      runtimeCache: string;
    };

export interface NativeSession {
  /** Resolves with undefined when `stopLoading()` ended it. */
  load(request: NativeLoadRequest): Promise<NativeLoadedModel | undefined>;
  stopLoading(): void;
  /** Resolves with undefined when `cancel(id)` ended the run. */
  run(
    id: number,
    data: NativeInput[],
    dims: (readonly number[])[],
    outputIndices: number[],
    targets: (HostBuffer | undefined)[],
    targetDims: (readonly number[])[],
    timed: boolean,
    /** Keep what the model has learnt, after the run. */
    persist: boolean,
  ): Promise<(NativeOutput[] & { timing?: NativeTiming }) | undefined>;
  runSync(
    id: number,
    data: NativeInput[],
    dims: (readonly number[])[],
    outputIndices: number[],
    targets: (HostBuffer | undefined)[],
    targetDims: (readonly number[])[],
  ): NativeOutput[];
  cancel(id: number): void;
  stats(): NativeSessionStats;
  close(): Promise<void>;
}

/** A TensorRT library pair (core and ONNX parser) that native opened and whose version it accepted. */
export interface NativeTensorRT {
  flavour: Flavour;
  /** `major.minor.patch` as the library itself says. */
  version: string;
  /** The core library's file. */
  path: string;
  capabilities: TensorRTCapabilities;
}

/** What an open library can do: of its flavour and version (tensorrt.h has the calls behind each). */
export interface TensorRTCapabilities {
  /** Compiles for GPUs that are not here. */
  readonly aheadOfTime: boolean;
  /** Measures kernels while it compiles, and can be given what it measured before. */
  readonly timingCache: boolean;
  /** Updates a KV cache in place. */
  readonly kvCache: boolean;
  /** Attention over a part of the cache, as long as each row. */
  readonly keyValueLengths: boolean;
  /** Keeps the kernels that it compiles at run time. */
  readonly runtimeCache: boolean;
  /** Judges a plan before it is loaded. */
  readonly engineValidity: boolean;
  /** Knows beforehand whether a run can be captured in a CUDA graph. */
  readonly streamCapturable: boolean;
  /** Knows how large an engine's weights are. */
  readonly engineStatistics: boolean;
}

export interface NativeBuildRequest {
  /** The core library, beside which its parser lies. */
  library: string;
  /** The ONNX file to parse; native maps it into memory. */
  model: string;
  /** The path relative to which the parser finds external data. */
  modelPath: string;
  /** One entry per optimization profile: min, opt and max of each dynamic input. */
  profiles: Record<string, { min: readonly number[]; opt: readonly number[]; max: readonly number[] }>[];
  /** 89 for sm_89. Empty: that of `device`. */
  computeCapabilities: number[];
  /** CUDA's number of the GPU to compile for and measure on; none ahead of time. */
  device?: number;
  sparsity: boolean;
  /** Whether products in FP32 may round their factors to TF32. */
  tf32: boolean;
  /** 0–5. */
  optimizationLevel?: number;
  /** Bytes. */
  workspace?: number;
  /** All weights, or the named ones. */
  refit?: boolean | readonly string[];
  /** A file, which need not exist. */
  timingCache?: string;
  /** The plan keeps what `inspectPlan` says of its layers beside their names. */
  detailed: boolean;
}

/** What TensorRT says of a plan. */
export interface NativePlan {
  /** Its own JSON. `Layers` are names; of a plan that was built `detailed`, objects that say what each reads and writes. */
  information: string;
  /** For each output that is written over an input's memory, the name of that input. */
  aliases: Record<string, string>;
}

/** One layer of the network as it went to the compiler, recorded after parsing. */
export interface NativeLayer {
  name: string;
  /** TensorRT's own term, e.g. 'MATRIX_MULTIPLY'. */
  type: string;
  inputs: string[];
  outputs: { name: string; type: number; dims: number[] }[];
}

/** A network as TensorRT's parser imported it. */
export interface NativeNetwork {
  /** `type` is the ONNX element type (0 where it has none here); -1 in `dims` is dynamic. */
  inputs: { name: string; type: number; dims: number[] }[];
  outputs: { name: string; type: number; dims: number[] }[];
  layers: NativeLayer[];
}

export interface NativeParseResult extends NativeNetwork {
  /** What could not be imported, without what comes after it; empty where the network is complete. */
  errors: {
    /** Index in its graph; -1 where the parser does not say. */
    node: number;
    /** The node's, or ''. */
    name: string;
    /** Its operator without its domain, or ''. */
    op: string;
    /** A sentence. */
    reason: string;
  }[];
}

export interface NativeBuildResult extends NativeNetwork {
  plan: NativeBytes;
  /** TensorRT's warnings, in order, without repetitions. */
  warnings: string[];
  /** What the file `timingCache` is to hold. Its lock is held: release it when that is written. */
  timingCache?: { bytes: ArrayBuffer; release(): void };
}

export interface NativeBuild {
  /** Resolves with undefined when `cancel()` ended the build. Rejects with a TensorRTError. */
  readonly result: Promise<NativeBuildResult | undefined>;
  cancel(): void;
}

/** flock(2) on a file that exists while it is held. */
export interface NativeFileLock {
  /** False while another holds it, in this process too. Throws ERR_IO. */
  tryAcquire(): boolean;
  /** Removes the file. Nothing where it is not held. */
  release(): void;
}

export interface NativeGpu {
  name: string;
  /** `[8, 9]` for sm_89. */
  computeCapability: [number, number];
  /** Bytes, as nvidia-smi counts them. */
  memory: number;
  /** 'GPU-…', 'MIG-…'; '' where the driver is too old to say. */
  uuid: string;
  /** e.g. '0000:1b:00.0'. */
  pciBusId: string;
}

/** What libcuda.so.1 and NVML say; '' where neither does. */
export type NativeCuda = {
  /** The file of libcuda that was opened. */
  library: string;
  /** The driver's version, e.g. '580.65.06'. */
  driver: string;
  /** The newest CUDA that it supports, e.g. '13.0'. */
  cudaVersion: string;
} & (
  | { gpus: [NativeGpu, ...NativeGpu[]]; error?: undefined }
  | { /** Why there is no usable GPU. */ error: string; gpus: [] }
);

/** What a binary was compiled for. */
export interface NativeVariant {
  /** CUDA's major version. */
  readonly cuda: 12 | 13;
  /** The TensorRT flavours that it holds a binding for, e.g. 'rtx'. */
  readonly flavours: readonly string[];
}

/** Of one request; every field is set. Meanings and ranges are those of `GenerateOptions`. */
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
  /** How many of the best tokens to report with each; -1: no log-probabilities. */
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
  /** What can be shown now: whole characters, and nothing that a stop string may begin with. */
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

/** How a request ended. */
export interface NativeGenerationEnd {
  finished: 'stop' | 'length' | 'cancelled' | 'failed';
  /** Of an answer in one piece all of its text; else what was held back until now. */
  text: string;
  /** Where it failed. */
  error?: TensorRTError;
  usage: { promptTokens: number; cachedTokens: number; completionTokens: number };
  timing: { queueMs: number; firstTokenMs: number; totalMs: number };
}

/** What became of a request: with `stream` its tokens as they come, the last ones with the end; else all with the end. */
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
  /** Of model, precision and layout: what a saved sequence must have been saved with. */
  fingerprint: string;
}

export interface NativeLanguageModelStats {
  /** Of the cache; used are those of requests and sequences, not those that keep a prefix. */
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

export interface NativeBinding {
  readonly variant: NativeVariant;
  initialize(errorClass: typeof TensorRTError): void;
  /** Abandons all work and waits for the threads of this environment. */
  stopAll(): void;
  /**
   * Opens the library and checks its version, on a thread of its own. Rejects with ERR_LIBRARY_NOT_FOUND,
   * ERR_LIBRARY_UNSUPPORTED.
   */
  openTensorRT(library: string): Promise<NativeTensorRT>;
  /** Parses and compiles on a thread of its own. */
  buildPlan(
    request: NativeBuildRequest,
    onProgress: ((phase: string, step: number, steps: number) => void) | undefined,
  ): NativeBuild;
  /** Loads a plan on a thread of its own, to see what the compiler made of the network. */
  inspectPlan(request: { library: string; plan: Uint8Array; device: number }): Promise<NativePlan>;
  /** Parses on a thread of its own, and compiles nothing. */
  parseModel(
    request: Pick<NativeBuildRequest, 'library' | 'model' | 'modelPath' | 'device'>,
  ): Promise<NativeParseResult>;
  /** On a thread of its own: CUDA may take a while to begin. */
  probeCuda(): Promise<NativeCuda>;
  /**
   * Of a folder that does not exist yet, or was abandoned: holds the lock `path.lock` until `disownDirectory(path)`. If
   * the process exits or this worker ends before, the folder is removed. False where another holds the lock.
   * @throws TensorRTError ERR_IO
   */
  ownDirectory(path: string): boolean;
  disownDirectory(path: string): void;
  FileLock: new (path: string) => NativeFileLock;
  downloadTensor(tensor: DeviceTensor): Promise<ArrayBuffer>;
  releaseTensor(tensor: DeviceTensor): void;
  HostBuffer: new (byteLength: number) => HostBuffer;
  NativeBytes: {
    /** A copy. Throws ERR_OUT_OF_MEMORY. */
    new (bytes: Uint8Array): NativeBytes;
    /** A part of a file, which errors name; its descriptor stays the caller's. Throws ERR_IO where it has no such part. */
    new (file: string, descriptor: number, from: number, byteLength: number): NativeBytes;
  };
  NativeSession: new (config: { concurrency: number; maxQueue: number }) => NativeSession;
  NativeLanguageModel: new (
    config: NativeLanguageModelConfig,
    onEvents: (events: NativeGenerationEvent[]) => void,
  ) => NativeLanguageModel;
}

/**
 * Refuses bytes of which there are too many for a Uint8Array.
 * @param what they are, as the beginning of a sentence
 * @param instead what writes them to a file
 * @throws TensorRTError ERR_BUFFER_TOO_LARGE
 */
export function requireArrayLength(
  { byteLength }: Pick<NativeBytes, 'byteLength'>,
  what: string,
  instead: string,
): void {
  if (byteLength <= constants.MAX_LENGTH) return;
  throw new TensorRTError(
    'ERR_BUFFER_TOO_LARGE',
    `${what} has ${byteLength} bytes; a Uint8Array holds at most ${constants.MAX_LENGTH} here. ${instead} writes it to a file.`,
  );
}

let loaded: { binding: NativeBinding; path: string } | undefined;

/**
 * The compiled addon, loaded on first use.
 * @throws what {@link loadBinary} throws
 */
export function native(): NativeBinding {
  return load().binding;
}

/** The file of the compiled addon. Loads it. */
export function nativePath(): string {
  return load().path;
}

function load(): { binding: NativeBinding; path: string } {
  if (loaded) return loaded;
  const { exports, path } = loadBinary();
  const binding = exports as NativeBinding;
  binding.initialize(TensorRTError);
  // Of a process that exits with work in flight; where the event loop just ends, nothing is.
  process.once('exit', () => binding.stopAll());
  loaded = { binding, path };
  return loaded;
}
