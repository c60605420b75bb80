import { availableParallelism } from 'node:os';
import { type DataType, dataTypeFromOnnx } from './data-type.js';
import { Engine, isEngineFile } from './engine.js';
import { describe, invalidArgType, invalidArgValue, shapeMismatch, TensorRTError } from './errors.js';
import {
  type HostBuffer,
  type NativeInput,
  type NativeLoadedModel,
  type NativeOutput,
  type NativeSession,
  type NativeTensorInfo,
  native,
} from './native.js';
import { findOnnxRuntime } from './onnxruntime-library.js';
import { checkOptions, checkSignal, integerOption } from './options.js';
import {
  checkProfiles,
  type Profile,
  parseShapes,
  requireProfile,
  type ShapeRanges,
  shapeText,
} from './shapes.js';
import { checkTensor, hostBufferOf, Tensor, type TensorLike, typedArray } from './tensor.js';

/** A model's input or output. `shape` has a symbolic name ('' where the exporter gave none) for a dynamic dimension. */
export interface ValueMetadata {
  readonly name: string;
  readonly isTensor: true;
  readonly type: DataType;
  readonly shape: readonly (number | string)[];
}

export interface SessionOptions {
  /** Where to run. 'auto' (default) takes the best device that works; `session.device` says which. */
  device?: 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;
  /** CPU threads one run may use. Default: one per physical core. */
  threads?: number;
  /** Runs executed at the same time, each on a thread of its own. Default 1. */
  concurrency?: number;
  /** Runs that may wait; one more is refused with ERR_QUEUE_FULL. Default 1024. */
  maxQueue?: number;
  /** On the CPU a model runs in the types that it has, which both names mean. */
  precision?: 'as-exported' | 'fp32';
  /** Shapes that runs may have, by input name; a run outside them is refused with ERR_SHAPE_MISMATCH. Default: any. */
  shapes?: ShapeRanges | readonly ShapeRanges[];
  /** Abandons creation: it rejects with the signal's reason. */
  signal?: AbortSignal;
}

export interface RunOptions {
  /** Aborting rejects the run with the signal's reason, once nothing of the caller's is in use any more. */
  signal?: AbortSignal;
  /** Called when the run has completed, just before its promise resolves. What it throws, the promise rejects with. */
  onTiming?(timing: RunTiming): void;
}

/** Where a run's time went, in milliseconds. */
export interface RunTiming {
  /** From `run()` to the beginning of the run on one of the session's threads. */
  readonly queueMs: number;
  /** On the GPU: how long the thread took to give the work to it. */
  readonly enqueueMs?: number;
  /** On the GPU: copying inputs to it. */
  readonly h2dMs?: number;
  readonly computeMs: number;
  /** On the GPU: copying outputs back. */
  readonly d2hMs?: number;
  /** From `run()` to the result, still on the session's thread. */
  readonly totalMs: number;
}

/** What a session has done so far, {@link InferenceSession.runSync} apart. */
export interface SessionStats {
  readonly runs: {
    readonly completed: number;
    readonly failed: number;
    /** Ended by a signal. */
    readonly cancelled: number;
    /** Waiting for a thread. */
    readonly queued: number;
    readonly executing: number;
  };
  /** {@link RunTiming.totalMs} of the latest 1024 runs that completed, in milliseconds; null before the first. */
  readonly latencyMs: {
    readonly mean: number;
    readonly p50: number;
    readonly p90: number;
    readonly p99: number;
    readonly max: number;
  } | null;
}

export type Feeds = Readonly<Record<string, TensorLike>>;
/** The outputs to compute: names, or a tensor to write each into (null: a new one). Default: all. */
export type Fetches = readonly string[] | Readonly<Record<string, Tensor | null>>;

const sessionOptionNames = [
  'device',
  'threads',
  'concurrency',
  'maxQueue',
  'precision',
  'shapes',
  'signal',
] as const;
const laterSessionOptions = [
  'batching',
  'masks',
  'cudaGraph',
  'preferredOutputLocation',
  'target',
  'runtime',
  'libraryPath',
  'sparsity',
  'refit',
  'optimizationLevel',
  'workspace',
  'timingCache',
  'calibration',
  'keepFp32',
  'cache',
  'onProgress',
] as const;

/** Runs a model on native threads of its own; the event loop is never blocked. Named as onnxruntime-common's. */
export class InferenceSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly ValueMetadata[];
  readonly outputMetadata: readonly ValueMetadata[];
  /** Where runs execute: 'cpu'. */
  readonly device: string;
  /** Why that device was chosen. */
  readonly why: string;
  /** What executes the runs, e.g. `{ name: 'onnxruntime', version: '1.30.0' }`. */
  readonly runtime: Readonly<{ name: string; version: string }>;

  readonly #native: NativeSession;
  /** Shapes that runs may have; empty for any. */
  readonly #profiles: readonly Profile[];
  #nextRun = 0;
  #disposed: Promise<void> | undefined;

  private constructor(
    session: NativeSession,
    loaded: NativeLoadedModel,
    why: string,
    profiles: readonly Profile[],
  ) {
    this.#native = session;
    this.#profiles = profiles;
    this.inputMetadata = loaded.inputs.map(toMetadata);
    this.outputMetadata = loaded.outputs.map(toMetadata);
    this.inputNames = this.inputMetadata.map((input) => input.name);
    this.outputNames = this.outputMetadata.map((output) => output.name);
    this.runtime = Object.freeze(loaded.runtime);
    this.device = 'cpu';
    this.why = why;
    checkProfiles(profiles, this.inputMetadata);
  }

  /**
   * Loads an ONNX model from a file, whose external data lies beside it, or from its bytes, which are copied.
   * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED,
   *   ERR_LIBRARY_NOT_FOUND; ERR_NO_GPU for an Engine, which no CPU runs;
   *   TypeError or RangeError for bad arguments; the signal's reason
   */
  static async create(
    model: string | Uint8Array | Engine,
    options: SessionOptions = {},
  ): Promise<InferenceSession> {
    if (typeof model !== 'string' && !(model instanceof Uint8Array) && !(model instanceof Engine)) {
      throw invalidArgType('model', 'a path, a Uint8Array or an Engine', model);
    }
    checkOptions(options, 'options', sessionOptionNames, laterSessionOptions);
    const { device = 'auto', signal } = options;
    if (device !== 'auto' && device !== 'cpu') {
      if (typeof device === 'string' && /^cuda(:\d+)?$/.test(device)) {
        throw new TensorRTError(
          'ERR_NO_GPU',
          `options.device is '${device}', but this version runs models on the CPU only. Use 'auto' or 'cpu'.`,
        );
      }
      throw invalidArgValue('options.device', `must be 'auto' or 'cpu', not ${describe(device)}.`);
    }
    const threads = integerOption(options.threads, 'options.threads', 0, 1, 1024);
    const concurrency = integerOption(
      options.concurrency,
      'options.concurrency',
      1,
      1,
      4 * availableParallelism(),
    );
    const maxQueue = integerOption(options.maxQueue, 'options.maxQueue', 1024, 1, 2 ** 31 - 1);
    if (options.precision !== undefined && !['as-exported', 'fp32'].includes(options.precision)) {
      throw invalidArgValue(
        'options.precision',
        `is ${describe(options.precision)}, which the CPU does not run in this version. Use 'as-exported' or 'fp32'.`,
      );
    }
    const profiles = parseShapes(options.shapes);
    checkSignal(signal, 'options.signal');
    signal?.throwIfAborted();
    if (typeof model === 'string' && model.includes('\0')) {
      throw invalidArgValue('model', 'is a path with a zero byte in it.');
    }
    if (model instanceof Engine) throw engineNeedsGpu();

    const session = new (native().NativeSession)({ concurrency, maxQueue });
    const stopLoading = () => session.stopLoading();
    signal?.addEventListener('abort', stopLoading, { once: true });
    let loaded: NativeLoadedModel | undefined;
    try {
      loaded = await session.load(findOnnxRuntime(), model, threads);
      signal?.throwIfAborted();
      if (!loaded) throw new TensorRTError('ERR_DISPOSED', 'The session was stopped while it loaded.');
      const why =
        device === 'cpu' ? 'options.device asked for it' : 'this version runs models on the CPU only';
      return new InferenceSession(session, loaded, why, profiles);
    } catch (error) {
      if (loaded) await session.close();
      else if (signal?.aborted) throw signal.reason;
      else if (typeof model === 'string' && isEngineFile(model)) {
        throw new TensorRTError(
          'ERR_MODEL_INVALID',
          `${model} is an engine, not an ONNX model: give InferenceSession.create what Engine.load(path) returns.`,
        );
      }
      throw error;
    } finally {
      signal?.removeEventListener('abort', stopLoading);
    }
  }

  /**
   * Computes outputs. Feeds are read before this returns, so their memory may be reused at once, except that of
   * {@link Tensor.allocate}, which is used without a copy until the promise settles.
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE or ERR_SHAPE_MISMATCH;
   *   TensorRTError ERR_DISPOSED, ERR_QUEUE_FULL, ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY; the signal's reason
   */
  async run(feeds: Feeds, options?: RunOptions): Promise<Record<string, Tensor>>;
  async run(feeds: Feeds, fetches: Fetches, options?: RunOptions): Promise<Record<string, Tensor>>;
  async run(
    feeds: Feeds,
    second?: Fetches | RunOptions,
    third?: RunOptions,
  ): Promise<Record<string, Tensor>> {
    const [fetches, options] = this.#splitArguments(second, third);
    checkOptions(options, 'options', ['signal', 'onTiming'], []);
    const { signal, onTiming } = options;
    if (onTiming !== undefined && typeof onTiming !== 'function') {
      throw invalidArgType('options.onTiming', 'a function', onTiming);
    }
    checkSignal(signal, 'options.signal');
    signal?.throwIfAborted();
    const request = this.#request(feeds, fetches);

    const id = this.#nextRun++ >>> 0;
    const abort = () => this.#native.cancel(id);
    const running = this.#native.run(id, ...request.native, onTiming !== undefined);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const outputs = await running;
      if (signal?.aborted) throw signal.reason;
      if (!outputs) throw new TensorRTError('ERR_DISPOSED', 'The session was stopped during the run.');
      onTiming?.(outputs.timing!);
      return request.results(outputs);
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** As {@link run}, on the calling thread: the event loop waits. */
  runSync(feeds: Feeds, fetches?: Fetches): Record<string, Tensor> {
    const request = this.#request(feeds, fetches);
    return request.results(this.#native.runSync(0, ...request.native));
  }

  /** May be called after {@link dispose}. */
  stats(): SessionStats {
    const { latencies, ...runs } = this.#native.stats();
    latencies.sort((a, b) => a - b);
    const count = latencies.length;
    // The nearest rank: the smallest latency that at least this share of the runs does not exceed.
    const percentile = (share: number) => latencies[Math.ceil(share * count) - 1]!;
    return {
      runs,
      latencyMs:
        count === 0
          ? null
          : {
              mean: latencies.reduce((sum, latency) => sum + latency) / count,
              p50: percentile(0.5),
              p90: percentile(0.9),
              p99: percentile(0.99),
              max: percentile(1),
            },
    };
  }

  /** Refuses further runs, lets those accepted finish, then frees the model. May be called again. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#native.close();
    return this.#disposed;
  }

  /** onnxruntime-common's name for {@link dispose}. */
  release(): Promise<void> {
    return this.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Are the second argument's keys output names (fetches) or run options? Decided as onnxruntime-common does. */
  #splitArguments(
    second: Fetches | RunOptions | undefined,
    third: RunOptions | undefined,
  ): [Fetches | undefined, RunOptions] {
    if (second === undefined || second === null) return [undefined, third ?? {}];
    if (typeof second !== 'object') throw invalidArgType('fetches', 'an array of names or an object', second);
    if (third !== undefined || Array.isArray(second)) return [second as Fetches, third ?? {}];
    const isFetches = Object.keys(second).some((key) => this.outputNames.includes(key));
    return isFetches ? [second as Fetches, {}] : [undefined, second as RunOptions];
  }

  /** Validates feeds and fetches; gives native's arguments, and what turns its answer into tensors. */
  #request(feeds: Feeds, fetches: Fetches | undefined) {
    if (this.#disposed) throw new TensorRTError('ERR_DISPOSED', 'The session was disposed.');
    if (typeof feeds !== 'object' || feeds === null || Array.isArray(feeds)) {
      throw invalidArgType('feeds', 'an object of tensors by input name', feeds);
    }
    for (const name of Object.keys(feeds)) {
      if (!this.inputNames.includes(name)) {
        throw invalidArgValue(
          `feeds['${name}']`,
          `is not an input of this model. Its inputs are ${quoted(this.inputNames)}.`,
        );
      }
    }
    const data: NativeInput[] = [];
    const dims: (readonly number[])[] = [];
    for (const input of this.inputMetadata) {
      const tensor = feeds[input.name];
      if (tensor === undefined) {
        throw invalidArgValue(`feeds['${input.name}']`, 'is missing: the model needs it.');
      }
      checkTensor(tensor, `feeds['${input.name}']`);
      checkAgainst(input, tensor, `feeds['${input.name}']`);
      data.push(hostBufferOf(tensor) ?? tensor.data);
      dims.push(tensor.dims);
    }
    if (this.#profiles.length > 0) {
      const shapes = this.inputNames.map((name, i) => ({ name, dims: dims[i]! }));
      requireProfile(this.#profiles, shapes);
    }

    const names =
      fetches === undefined ? this.outputNames : Array.isArray(fetches) ? fetches : Object.keys(fetches);
    if (names.length === 0) throw invalidArgValue('fetches', 'names no output.');
    const targets = names.map((name: string) =>
      Array.isArray(fetches) || !fetches ? null : ((fetches as Record<string, Tensor | null>)[name] ?? null),
    );
    targets.forEach((target: Tensor | null, i: number) => {
      if (target && targets.indexOf(target) !== i) {
        throw invalidArgValue(
          `fetches['${names[i]}']`,
          'is the same tensor as another output is written into.',
        );
      }
    });
    const indices = names.map((name: string, i: number) => {
      const index = this.outputNames.indexOf(name);
      if (index < 0) {
        throw invalidArgValue(
          `fetches['${name}']`,
          `is not an output of this model. Its outputs are ${quoted(this.outputNames)}.`,
        );
      }
      if (names.indexOf(name) !== i) throw invalidArgValue('fetches', `names '${name}' twice.`);
      const target = targets[i];
      if (target) {
        checkTensor(target, `fetches['${name}']`);
        checkAgainst(this.outputMetadata[index]!, target, `fetches['${name}']`);
      }
      return index;
    });
    const buffers: (HostBuffer | undefined)[] = targets.map(
      (target) => target && hostBufferOf(target),
    ) as never;
    const targetDims = targets.map((target, i) => (target && buffers[i] ? target.dims : []));

    const args: Parameters<NativeSession['runSync']> extends [number, ...infer Rest] ? Rest : never = [
      data,
      dims,
      indices,
      buffers.map((buffer) => buffer ?? undefined),
      targetDims,
    ];
    return {
      native: args,
      results: (outputs: NativeOutput[]) =>
        Object.fromEntries(outputs.map((output, i) => [names[i]!, toTensor(output, targets[i] ?? null)])),
    };
  }
}

function engineNeedsGpu(): TensorRTError {
  const { error } = native().probeCuda();
  const here = error === undefined ? '' : ` This machine has none: ${error}`;
  return new TensorRTError(
    'ERR_NO_GPU',
    `An engine runs on an NVIDIA GPU.${here} This version compiles engines and does not run them: its sessions run ` +
      'ONNX models on the CPU.',
  );
}

function toMetadata(info: NativeTensorInfo): ValueMetadata {
  return Object.freeze({
    name: info.name,
    isTensor: true as const,
    type: dataTypeFromOnnx(info.type)!,
    shape: Object.freeze(info.shape),
  });
}

/** Type, rank and static dimensions of `tensor` against the model's. */
function checkAgainst(info: ValueMetadata, tensor: TensorLike, path: string): void {
  if (tensor.type !== info.type) {
    throw invalidArgValue(`${path}.type`, `must be '${info.type}', as the model says, not '${tensor.type}'.`);
  }
  const { shape } = info;
  // A scalar, or a model that doesn't give the rank: ONNX Runtime's API tells neither from the other.
  if (shape.length === 0) return;
  if (tensor.dims.length !== shape.length) {
    throw shapeMismatch(
      `${path} has ${tensor.dims.length} dimensions, [${tensor.dims}]; the model says ${shape.length}, ${shapeText(shape)}.`,
    );
  }
  for (let i = 0; i < shape.length; i++) {
    if (typeof shape[i] === 'number' && shape[i] !== tensor.dims[i]) {
      throw shapeMismatch(
        `${path} has dims [${tensor.dims}]; dimension ${i} must be ${shape[i]}, as the model says ${shapeText(shape)}.`,
      );
    }
  }
}

function toTensor([type, dims, data]: NativeOutput, target: Tensor | null): Tensor {
  if (data === undefined) return target!;
  const dataType = dataTypeFromOnnx(type)!;
  const elements = Array.isArray(data) ? data : typedArray(dataType as Exclude<DataType, 'string'>, data);
  if (!target) return new Tensor(dataType, elements, dims);
  if (dims.join() !== target.dims.join()) {
    throw shapeMismatch(
      `The output has dims [${dims}], but the tensor to write it into has [${target.dims}].`,
    );
  }
  if (Array.isArray(elements)) {
    elements.forEach((element, i) => {
      (target.data as string[])[i] = element;
    });
  } else bytesOf(target.data as ArrayBufferView).set(bytesOf(elements as ArrayBufferView));
  return target;
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `'${name}'`).join(', ');
}
