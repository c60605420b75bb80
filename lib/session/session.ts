import { availableParallelism } from 'node:os';
import { types } from 'node:util';
import { type DataType, dataTypeFromOnnx, dataTypes } from '../base/data-type.js';
import { invalidArgType, invalidArgValue, shapeMismatch, TensorRTError } from '../base/errors.js';
import {
  type Bytes,
  checkAttached,
  checkOptions,
  checkSignal,
  enumOption,
  integerOption,
  onAbort,
  refuseCloning,
  stringsOption,
} from '../base/options.js';
import {
  checkProfiles,
  completeProfiles,
  type Profile,
  parseShapes,
  rangeOf,
  requireProfile,
  type ShapeRanges,
  shapeText,
} from '../base/shapes.js';
import type { Dims, TensorLike } from '../base/tensor-like.js';
import {
  type BuildOptions,
  buildDirectory,
  buildEngineOn,
  buildOptionNames,
  checkBuildOptions,
  maxInlineBytes,
  pickBuildOptions,
  readModelArgument,
  refusedBuildOptions,
} from '../engine/build-engine.js';
import { readCalibration } from '../engine/calibration.js';
import { Engine, type EngineManifest, isDescribed } from '../engine/engine.js';
import { type DeviceChoice, deviceOption, placeOnGpu } from '../execution/device.js';
import { loadEngine } from '../execution/load-plan.js';
import {
  checkTensor,
  deviceTensorOf,
  hostBufferOf,
  Tensor,
  tensorOnDevice,
  typedArray,
} from '../execution/tensor.js';
import { WrittenModel } from '../onnx/format/written-model.js';
import { readFile, stat } from '../system/files/promises.js';
import {
  type DeviceTensor,
  type HostBuffer,
  type NativeInput,
  type NativeLoadedModel,
  type NativeOutput,
  type NativeSession,
  type NativeTensorInfo,
  native,
} from '../system/native.js';
import { findOnnxRuntime } from '../system/onnxruntime-library.js';

/** A model's input or output that is a tensor. */
export interface TensorValueMetadata {
  readonly name: string;
  readonly isTensor: true;
  readonly type: DataType;
  /** A dynamic dimension is a symbolic name, '' where the exporter gave none. */
  readonly shape: readonly (number | string)[];
}

/** A model's output that is a sequence, a map or an optional value (scikit-learn's ZipMap, say): it can't be fetched. */
export interface NonTensorValueMetadata {
  readonly name: string;
  readonly isTensor: false;
}

export type ValueMetadata = TensorValueMetadata | NonTensorValueMetadata;

/** A model's input: a {@link ValueMetadata} that needs no look at `isTensor`, since models with other inputs are refused. */
export type InputMetadata =
  | TensorValueMetadata
  | (NonTensorValueMetadata & Pick<TensorValueMetadata, 'type' | 'shape'>);

/**
 * The options of a build are for a model that is to run on a GPU, which is compiled first, or taken from the cache;
 * an {@link Engine} is compiled already.
 */
export interface SessionOptions extends Omit<BuildOptions, 'target' | 'parent' | 'lineage'> {
  /**
   * Where to run: the CPU, the first GPU ('cuda'), or the one with CUDA's number ('cuda:1'). 'auto' (default) takes the
   * first GPU if there is one and a TensorRT library that can compile the model, else the CPU; `session.device` and
   * `session.why` say which and why. An Engine needs a GPU.
   */
  device?: 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;
  /** CPU threads one run may use. Default: one per physical core. */
  threads?: number;
  /**
   * Runs executed at the same time, each on a thread of its own; on a GPU each with a stream and memory for activations
   * of its own. Default 1.
   */
  concurrency?: number;
  /**
   * On a GPU: the second run of a shape records what it launches in a CUDA graph, which later runs of that shape launch
   * at once. Up to 8 shapes per thread keep theirs. Default true: it never changes results, and shapes that can't be
   * recorded run without.
   */
  cudaGraph?: boolean;
  /** Where outputs are left: 'cuda' are tensors on the GPU, to feed to another run or to download with getData(). Default 'cpu'. */
  preferredOutputLocation?: 'cpu' | 'cuda';
  /** Runs that may wait; one more is refused with ERR_QUEUE_FULL. Default 1024. */
  maxQueue?: number;
  /**
   * On a GPU as in {@link BuildOptions}. On the CPU 'as-exported' (default), 'fp32' and 'tf32' run a model in the types that
   * it has, FP32 as FP32; 'fp16' and 'bf16' run what the GPU would get, as far as ONNX Runtime has the operators: it computes FP16 in
   * FP32 inside, and most of BF16 not at all.
   */
  precision?: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
  /**
   * Shapes that runs may have, by input name; a run outside them is refused with ERR_SHAPE_MISMATCH. Default: any on
   * the CPU; on a GPU what {@link BuildOptions} derives, or what the engine was compiled for.
   */
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
  /** In bytes, of a session on a GPU until it is disposed; null on the CPU. */
  readonly memory: {
    /** 0 where the library is too old to tell. */
    readonly weights: number;
    /** What layers compute in, of all threads. */
    readonly activations: number;
    /** Inputs and outputs on the GPU, and what is kept for the next ones. */
    readonly io: number;
    /** Host memory that the GPU copies from and to, likewise. */
    readonly pinned: number;
    /** Memory of the GPU that was free when this process last allocated or freed some there. */
    readonly free: number;
    /** All memory of the GPU. */
    readonly total: number;
  } | null;
  /**
   * CUDA graphs, likewise; null on the CPU. TensorRT-RTX captures its own, and does not count them.
   */
  readonly graphs: {
    readonly captured: number;
    readonly replayed: number;
    /** Shapes that run without one, because something in them can't be captured. */
    readonly refused: number;
  } | null;
}

export type Feeds = Readonly<Record<string, TensorLike>>;
/** The outputs to compute: names, or a tensor to write each into (null: a new one). Defaults to all that are tensors. */
export type Fetches = readonly string[] | Readonly<Record<string, Tensor | null>>;

const sessionOptionNames = [
  'device',
  'threads',
  'concurrency',
  'maxQueue',
  'cudaGraph',
  'preferredOutputLocation',
  ...buildOptionNames.filter((name) => !['target', 'parent', 'lineage'].includes(name)),
];

/** The default first: the CPU's. On a GPU an option that is left out is the build's default. */
export const sessionPrecisions = ['as-exported', 'fp32', 'tf32', 'fp16', 'bf16'] as const;

/** As {@link refusedBuildOptions}, for a session. */
export const refusedSessionOptions: Readonly<Record<string, string>> = {
  ...refusedBuildOptions,
  batching: 'is not supported in this version.',
  target: 'is not an option of a session, which compiles for the GPU that it runs on: options.device.',
  executionProviders:
    "is onnxruntime-node's. Here options.device says where to run: 'cpu', 'cuda', 'cuda:1' …, or 'auto'.",
  intraOpNumThreads: "is onnxruntime-node's. Here it is options.threads.",
  enableGraphCapture: "is onnxruntime-node's. Here it is options.cudaGraph, which is true by default.",
};

/** As {@link refusedBuildOptions}, for a run. */
const refusedRunOptions: Readonly<Record<string, string>> = {
  terminate: "is onnxruntime-node's. Here options.signal ends a run: an AbortSignal.",
  tag: refusedBuildOptions.logId,
  logSeverityLevel: refusedBuildOptions.logSeverityLevel,
  logVerbosityLevel: refusedBuildOptions.logVerbosityLevel,
  extra: refusedBuildOptions.extra,
};

/**
 * Runs a model on native threads of its own; the event loop is never blocked. Named as onnxruntime-common's. By default
 * the same call computes in FP16 on a GPU, and on the CPU in the types that the model was exported with: `precision`
 * says which it became.
 */
export class InferenceSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InputMetadata[];
  readonly outputMetadata: readonly ValueMetadata[];
  /** Where runs execute: 'cpu', 'cuda:0', … */
  readonly device: string;
  /** Why that device was chosen. */
  readonly why: string;
  /** What executes the runs, e.g. `{ name: 'onnxruntime', version: '1.30.0' }`. */
  readonly runtime: Readonly<{ name: string; version: string }>;
  /**
   * What runs compute in, which `options.precision` decides: on a GPU what the engine was compiled with, 'fp16' by
   * default; on the CPU 'as-exported' by default. undefined for a bare plan, which doesn't say.
   */
  readonly precision: EngineManifest['precision'] | undefined;

  readonly #native: NativeSession;
  /** Names of the outputs that can be fetched. */
  readonly #tensorOutputs: readonly string[];
  /** Shapes that runs may have; empty for any. */
  readonly #profiles: readonly Profile[];
  readonly #concurrency: number;
  #nextRun = 0;
  #disposed: Promise<void> | undefined;

  private constructor(
    session: NativeSession,
    loaded: NativeLoadedModel,
    { device, why, precision, profiles, concurrency }: Pick<Settings, 'profiles' | 'concurrency'> & Placed,
  ) {
    this.#native = session;
    this.#concurrency = concurrency;
    // A plan's own are what it was compiled for, of the options or of what was derived.
    this.#profiles = device === 'cpu' ? profiles : loaded.profiles;
    this.inputMetadata = loaded.inputs.map(toMetadata).filter((input) => input.isTensor);
    this.outputMetadata = loaded.outputs.map(toMetadata);
    this.inputNames = this.inputMetadata.map((input) => input.name);
    this.outputNames = this.outputMetadata.map((output) => output.name);
    this.#tensorOutputs = this.outputMetadata
      .filter((output) => output.isTensor)
      .map((output) => output.name);
    this.runtime = Object.freeze(loaded.runtime);
    this.device = device;
    this.why = why;
    this.precision = precision;
    refuseCloning(this);
    if (device === 'cpu') checkProfiles(profiles, this.inputMetadata);
  }

  /**
   * Loads an ONNX model from a file, whose external data lies beside it, or from its bytes, which are copied; for a
   * GPU, {@link buildEngine} compiles it first, in FP16 unless `options.precision` says otherwise. Or loads an Engine.
   * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_LIBRARY_NOT_FOUND;
   *   ERR_NO_GPU where an Engine, or options.device, needs one; ERR_ENGINE_INCOMPATIBLE for an Engine of another GPU or
   *   version; ERR_OUT_OF_MEMORY; what buildEngine throws; TypeError or RangeError for bad arguments; the signal's reason
   */
  static async create(model: string | Bytes | Engine, options?: SessionOptions): Promise<InferenceSession>;
  /** Loads an ONNX model from a part of a buffer. */
  static async create(
    buffer: ArrayBufferLike,
    byteOffset: number,
    byteLength?: number,
    options?: SessionOptions,
  ): Promise<InferenceSession>;
  /** @internal What `writeBeside` wrote. */
  static async create(model: WrittenModel, options?: SessionOptions): Promise<InferenceSession>;
  static async create(
    given: string | Bytes | Engine | WrittenModel,
    second?: SessionOptions | number,
    byteLength?: number,
    fourth?: SessionOptions,
  ): Promise<InferenceSession> {
    const isPart = types.isAnyArrayBuffer(given) && (typeof second === 'number' || fourth !== undefined);
    if (isPart) return InferenceSession.#create(partOf(given, second, byteLength), fourth);
    return InferenceSession.#create(given, second as SessionOptions | undefined);
  }

  static async #create(
    given: string | Bytes | Engine | WrittenModel,
    options: SessionOptions = {},
  ): Promise<InferenceSession> {
    const [source, weights] = given instanceof WrittenModel ? [given.file, given.weights] : [given];
    const model =
      source instanceof Engine
        ? source
        : readModelArgument(source, 'a path, a Uint8Array, an ArrayBuffer or an Engine');
    checkOptions(options, 'options', sessionOptionNames, refusedSessionOptions);
    const settings = readOptions(options);
    if (model instanceof Engine) refuseBuildOptions(options);
    const { signal } = settings;
    signal?.throwIfAborted();

    const place = await placeOnGpu(settings.device, signal, async ({ ordinal }) =>
      model instanceof Engine ? model : buildEngineOn(ordinal, model, pickBuildOptions(options)),
    );
    signal?.throwIfAborted();
    if (place.made) {
      const { made: engine, gpu, why } = place;
      const precision = isDescribed(engine) ? engine.manifest.precision : undefined;
      try {
        return await InferenceSession.#load(settings, { why, device: gpu.device, precision }, (session) =>
          loadEngine(session, {
            engine,
            gpu,
            libraryPath: options.libraryPath,
            cudaGraph: settings.cudaGraph,
            deviceOutputs: settings.deviceOutputs,
          }),
        );
      } finally {
        if (engine !== model) engine.dispose();
      }
    }
    if (model instanceof Engine) {
      const asked = "An engine runs on an NVIDIA GPU, and options.device is 'cpu'.";
      throw place.error ?? new TensorRTError('ERR_NO_GPU', asked);
    }
    const { threads } = settings;
    const { precision } = settings;
    const load = (source: string | Uint8Array, folder: string | undefined) => {
      const placed = { why: place.why, device: 'cpu', precision: precision ?? 'as-exported' } as const;
      return InferenceSession.#load(settings, placed, (session) =>
        session.load({ library: findOnnxRuntime(), model: source, weights: folder, threads }),
      );
    };
    // They may have been transferred while a GPU was looked for.
    if (typeof model !== 'string') checkAttached(model.buffer, 'model');
    try {
      if (typeof model === 'string' && weights === undefined && (await mayHaveFewWeightsBeside(model))) {
        const { refuseFailedDownloads } = await import('../engine/check-model.js');
        refuseFailedDownloads(model);
      }
      return precision === undefined
        ? await load(model, weights)
        : await castForCpu(model, precision, options, load);
    } catch (error) {
      const isInvalid = error instanceof TensorRTError && error.code === 'ERR_MODEL_INVALID';
      if (!isInvalid || signal?.aborted || weights !== undefined) throw error;
      const { checkModel } = await import('../engine/check-model.js');
      await checkModel(model, signal);
      throw error;
    }
  }

  static async #load(
    { concurrency, maxQueue, profiles, signal }: Settings,
    placed: Placed,
    load: (session: NativeSession) => Promise<NativeLoadedModel | undefined>,
  ): Promise<InferenceSession> {
    const session = new (native().NativeSession)({ concurrency, maxQueue });
    const unhear = onAbort(signal, () => session.stopLoading());
    let loaded: NativeLoadedModel | undefined;
    try {
      loaded = await load(session);
      signal?.throwIfAborted();
      if (!loaded) throw new TensorRTError('ERR_DISPOSED', 'The session was stopped while it loaded.');
      return new InferenceSession(session, loaded, { ...placed, profiles, concurrency });
    } catch (error) {
      if (loaded) await session.close();
      else if (signal?.aborted) throw signal.reason;
      throw error;
    } finally {
      unhear();
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
    checkOptions(options, 'options', ['signal', 'onTiming'], refusedRunOptions);
    const { signal, onTiming } = options;
    if (onTiming !== undefined && typeof onTiming !== 'function') {
      throw invalidArgType('options.onTiming', 'a function', onTiming);
    }
    checkSignal(signal, 'options.signal');
    signal?.throwIfAborted();
    const request = this.#request(feeds, fetches);

    const id = this.#nextRun++ >>> 0;
    const running = this.#native.run(id, ...request.native, onTiming !== undefined, false);
    const unhear = onAbort(signal, () => this.#native.cancel(id));
    try {
      const outputs = await running;
      if (signal?.aborted) throw signal.reason;
      if (!outputs) throw new TensorRTError('ERR_DISPOSED', 'The session was stopped during the run.');
      onTiming?.(outputs.timing!);
      return request.results(outputs);
    } finally {
      unhear();
    }
  }

  /** As {@link run}, on the calling thread: the event loop waits, for a GPU too. */
  runSync(feeds: Feeds, fetches?: Fetches): Record<string, Tensor> {
    const request = this.#request(feeds, fetches);
    return request.results(this.#native.runSync(0, ...request.native));
  }

  /**
   * Runs every shape that the session is tuned for on each of its threads, on zeros, twice: afterwards TensorRT-RTX has
   * compiled its kernels, and CUDA graphs are captured.
   * @throws (rejects) as {@link run}
   */
  async warmup(): Promise<void> {
    const inputs = this.inputMetadata;
    const given = this.#profiles.length > 0 ? this.#profiles : completeProfiles([], inputs);
    for (const profile of given.length > 0 ? given : [{}]) {
      const feeds = Object.fromEntries(
        inputs.map(({ name, type, shape }) => [
          name,
          zeros(type, rangeOf(profile, name)?.opt ?? (shape as Dims)),
        ]),
      );
      const request = this.#request(feeds, undefined);
      for (const persist of [false, true]) {
        await Promise.all(
          Array.from({ length: this.#concurrency }, () =>
            this.#native.run(this.#nextRun++ >>> 0, ...request.native, false, persist),
          ),
        );
      }
    }
  }

  /** May be called after {@link dispose}. */
  stats(): SessionStats {
    const { latencies, device, ...runs } = this.#native.stats();
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
      memory: device?.memory ?? null,
      graphs: device?.graphs ?? null,
    };
  }

  /**
   * Refuses further runs, lets those accepted finish, then frees the model. When it resolves, the model's memory is free
   * for another, but for that of outputs still in use. May be called again.
   */
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

  /**
   * @deprecated onnxruntime-common's name: there is no profiling. {@link stats} and {@link RunOptions.onTiming} say where
   * time goes.
   * @throws TensorRTError ERR_INVALID_ARG_VALUE
   */
  startProfiling(): void {
    throw new TensorRTError(
      'ERR_INVALID_ARG_VALUE',
      "There is no profiling: session.stats() and a run's onTiming say where time goes.",
    );
  }

  /** @deprecated As {@link startProfiling}. */
  endProfiling(): void {
    this.startProfiling();
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
      const tensor: TensorLike | undefined = feeds[input.name];
      if (tensor === undefined) {
        throw invalidArgValue(`feeds['${input.name}']`, 'is missing: the model needs it.');
      }
      checkTensor(tensor, `feeds['${input.name}']`);
      checkAgainst(input, tensor, `feeds['${input.name}']`);
      const onDevice = deviceTensorOf(tensor);
      if (onDevice && this.device === 'cpu') {
        throw invalidArgValue(
          `feeds['${input.name}']`,
          "lies on a GPU, and this session runs on the CPU: feed what the tensor's getData() gives.",
        );
      }
      data.push(onDevice ?? hostBufferOf(tensor) ?? tensor.data);
      dims.push(tensor.dims);
    }
    if (this.#profiles.length > 0) {
      const shapes = this.inputNames.map((name, i) => ({ name, dims: dims[i]! }));
      const origin = this.device === 'cpu' ? 'options.shapes' : 'the plan';
      requireProfile(this.#profiles, shapes, origin);
    }

    const tensors = this.#tensorOutputs;
    const names = fetches === undefined ? tensors : Array.isArray(fetches) ? fetches : Object.keys(fetches);
    if (names.length === 0) {
      const none = 'must name an output that is a tensor, and this model has none.';
      throw invalidArgValue('fetches', tensors.length === 0 ? none : 'names no output.');
    }
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
      const output = this.outputMetadata[index]!;
      if (!output.isTensor) {
        throw invalidArgValue(
          `fetches['${name}']`,
          `is a sequence, a map or an optional value, which can't be fetched. Tensors are ${quoted(tensors) || 'none of its outputs'}.`,
        );
      }
      const target = targets[i];
      if (target) {
        if (deviceTensorOf(target)) {
          throw invalidArgValue(
            `fetches['${name}']`,
            "lies on a GPU, where outputs are not written into a caller's tensor: use options.preferredOutputLocation.",
          );
        }
        checkTensor(target, `fetches['${name}']`);
        checkAgainst(output, target, `fetches['${name}']`);
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

/**
 * Whether a model may have weights in other files that are as few as what a failed download leaves instead of them. A
 * larger graph has more.
 */
async function mayHaveFewWeightsBeside(file: string): Promise<boolean> {
  try {
    return (await stat(file)).size < 2 ** 20 && (await readFile(file)).includes('location');
  } catch {
    return false;
  }
}

interface Placed {
  readonly device: string;
  readonly why: string;
  readonly precision: EngineManifest['precision'] | undefined;
}

interface Settings {
  readonly device: DeviceChoice;
  readonly threads: number;
  readonly concurrency: number;
  readonly maxQueue: number;
  readonly cudaGraph: boolean;
  readonly deviceOutputs: boolean;
  /** What to cast the model to, on the CPU too. */
  readonly precision: 'fp16' | 'bf16' | undefined;
  readonly profiles: readonly Profile[];
  readonly signal: AbortSignal | undefined;
}

function readOptions(options: SessionOptions): Settings {
  checkBuildOptions(options);
  const { cudaGraph = true, preferredOutputLocation, signal } = options;
  const device = deviceOption(options.device, 'options.device');
  if (typeof cudaGraph !== 'boolean') throw invalidArgType('options.cudaGraph', 'a boolean', cudaGraph);
  checkSignal(signal, 'options.signal');
  const path = 'options.preferredOutputLocation';
  const location = enumOption(preferredOutputLocation, path, ['cpu', 'cuda']);
  const precision = enumOption(options.precision, 'options.precision', sessionPrecisions);
  return {
    device,
    threads: integerOption(options.threads, 'options.threads', 0, 1, 1024),
    concurrency: integerOption(options.concurrency, 'options.concurrency', 1, 1, 4 * availableParallelism()),
    maxQueue: integerOption(options.maxQueue, 'options.maxQueue', 1024, 1, 2 ** 31 - 1),
    cudaGraph,
    deviceOutputs: location === 'cuda',
    precision: precision === 'fp16' || precision === 'bf16' ? precision : undefined,
    profiles: parseShapes(options.shapes),
    signal,
  };
}

/** An engine's shapes and types are decided; an option that says otherwise must not be passed over. */
function refuseBuildOptions(options: SessionOptions): void {
  const used = ['libraryPath', 'signal', 'onProgress', 'cache'];
  const given = buildOptionNames.find(
    (name) => !used.includes(name) && (options as Record<string, unknown>)[name] !== undefined,
  );
  if (given) {
    throw invalidArgValue(
      `options.${given}`,
      'is for compiling a model, and an Engine is compiled already: give it to buildEngine.',
    );
  }
}

/** Casts a model as it would be for a GPU, and loads what it became. */
async function castForCpu(
  model: string | Uint8Array,
  precision: 'fp16' | 'bf16',
  options: SessionOptions,
  load: (model: string, weights: string | undefined) => Promise<InferenceSession>,
): Promise<InferenceSession> {
  const keepFp32 = stringsOption(options.keepFp32, 'options.keepFp32');
  const calibration = readCalibration(options.calibration, 'options.calibration')?.samples;
  const { prepareModel } = await import('../engine/prepare-model.js');
  const directory = await buildDirectory();
  const request = { model, precision, calibration, keepFp32, directory: directory.path, maxInlineBytes };
  try {
    const { file, weights } = await prepareModel({ ...request, runtime: 'onnxruntime' }, options.signal);
    return await load(file, weights).catch((error) => {
      if (precision !== 'bf16' || !(error instanceof TensorRTError) || options.signal?.aborted) throw error;
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `ONNX Runtime can't run the model in BF16 on the CPU: ${error.message} Use options.precision 'fp16' or 'fp32' there.`,
        { cause: error },
      );
    });
  } finally {
    await directory.remove();
  }
}

function zeros(type: DataType, dims: Dims): TensorLike {
  const length = dims.reduce((product, dim) => product * dim, 1);
  if (type === 'string') return { type, dims, data: new Array<string>(length).fill('') };
  return { type, dims, data: typedArray(type, new ArrayBuffer(length * dataTypes[type].byteSize)) };
}

function toMetadata({ name, type, shape }: NativeTensorInfo): ValueMetadata {
  const dataType = dataTypeFromOnnx(type);
  return Object.freeze(
    dataType
      ? { name, isTensor: true, type: dataType, shape: Object.freeze(shape) }
      : { name, isTensor: false },
  );
}

/** The bytes of a part of a buffer, within its ends. */
function partOf(buffer: ArrayBufferLike, byteOffset: unknown, byteLength: unknown): Uint8Array {
  checkAttached(buffer, 'buffer');
  const begin = integerOption(byteOffset, 'byteOffset', 0, 0, buffer.byteLength);
  const rest = buffer.byteLength - begin;
  return new Uint8Array(buffer, begin, integerOption(byteLength, 'byteLength', rest, 0, rest));
}

/** Type, rank and static dimensions of `tensor` against the model's. */
function checkAgainst(info: InputMetadata, tensor: TensorLike, path: string): void {
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
  if (isDeviceTensor(data)) return tensorOnDevice(dataType, dims, data);
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

function isDeviceTensor(data: ArrayBuffer | DeviceTensor | string[]): data is DeviceTensor {
  return !Array.isArray(data) && !(data instanceof ArrayBuffer);
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `'${name}'`).join(', ');
}

/** onnxruntime-common's names of types. */
export declare namespace InferenceSession {
  type SessionOptions = import('./session.js').SessionOptions;
  type RunOptions = import('./session.js').RunOptions;
  type ValueMetadata = import('./session.js').ValueMetadata;
  type TensorValueMetadata = import('./session.js').TensorValueMetadata;
  type NonTensorValueMetadata = import('./session.js').NonTensorValueMetadata;
  type OnnxValueMapType = Readonly<Record<string, Tensor>>;
  type NullableOnnxValueMapType = Readonly<Record<string, Tensor | null>>;
  type FeedsType = OnnxValueMapType;
  type FetchesType = Fetches;
  type ReturnType = OnnxValueMapType;
}
