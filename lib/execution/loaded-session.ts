import { type DataType, dataTypes } from '../base/data-type.js';
import { invalidArgType, TensorRTError } from '../base/errors.js';
import { refusedLoggingOptions, theirs } from '../base/onnxruntime-options.js';
import {
  abortSignal,
  callback,
  type OptionTable,
  onAbort,
  readOptions,
  refuseCloning,
} from '../base/options.js';
import { checkProfiles, completeProfiles, type Profile, rangeOf } from '../base/shapes.js';
import type { Dims, TensorLike } from '../base/tensor-like.js';
import type { NativeLoadedModel } from '../system/native/loaded-model.js';
import type { NativeSession } from '../system/native/session.js';
import { type InputMetadata, toMetadata, type ValueMetadata } from './model-metadata.js';
import { type Feeds, type Fetches, type RunContext, type RunRequest, runRequest } from './run-request.js';
import { type SessionStats, sessionStats } from './session-stats.js';
import type { Tensor } from './tensor.js';
import { typedArray } from './tensor-elements.js';

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

const runOptions = {
  signal: abortSignal,
  onTiming: callback<NonNullable<RunOptions['onTiming']>>,
} satisfies OptionTable<RunOptions>;

/** What onnxruntime-node has as options of a run, and what to use here. */
const refusedRunOptions: Readonly<Record<string, string>> = {
  ...refusedLoggingOptions,
  terminate: `${theirs}. Here options.signal ends a run: an AbortSignal.`,
  tag: refusedLoggingOptions.logId,
};

/** Where a model was loaded, and how it may be run. */
export interface LoadedOn {
  readonly device: string;
  readonly concurrency: number;
  /** On the CPU, shapes that runs may have; empty for any. A plan has its own. */
  readonly profiles: readonly Profile[];
}

/** A model that was loaded, from wherever: it is run, counted and freed here. */
export class LoadedSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InputMetadata[];
  readonly outputMetadata: readonly ValueMetadata[];
  /** Where runs execute: 'cpu', 'cuda:0', … */
  readonly device: string;
  /** What executes the runs, e.g. `{ name: 'onnxruntime', version: '1.30.0' }`. */
  readonly runtime: Readonly<{ name: string; version: string }>;

  readonly #native: NativeSession;
  readonly #context: RunContext;
  readonly #concurrency: number;
  #nextRun = 0;
  #disposed: Promise<void> | undefined;

  /** @internal */
  constructor(
    session: NativeSession,
    loaded: NativeLoadedModel,
    { device, profiles, concurrency }: LoadedOn,
  ) {
    this.#native = session;
    this.#concurrency = concurrency;
    this.inputMetadata = loaded.inputs.map(toMetadata).filter((input) => input.isTensor);
    this.outputMetadata = loaded.outputs.map(toMetadata);
    this.inputNames = this.inputMetadata.map((input) => input.name);
    this.outputNames = this.outputMetadata.map((output) => output.name);
    this.runtime = Object.freeze(loaded.runtime);
    this.device = device;
    this.#context = {
      device,
      inputNames: this.inputNames,
      outputNames: this.outputNames,
      inputMetadata: this.inputMetadata,
      outputMetadata: this.outputMetadata,
      tensorOutputs: this.outputMetadata.filter((output) => output.isTensor).map((output) => output.name),
      // A plan's own are what it was compiled for, of the options or of what was derived.
      profiles: device === 'cpu' ? profiles : loaded.profiles,
    };
    refuseCloning(this);
    if (device === 'cpu') checkProfiles(profiles, this.inputMetadata);
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
    const { signal, onTiming } = readOptions(options, 'options', runOptions, refusedRunOptions);
    signal?.throwIfAborted();
    const request = this.#request(feeds, fetches);

    const id = this.#nextRun++ >>> 0;
    const running = this.#native.run(id, ...request.native, onTiming !== undefined, false);
    const ignore = onAbort(signal, () => this.#native.cancel(id));
    try {
      const outputs = await running;
      if (signal?.aborted) throw signal.reason;
      if (!outputs) throw new TensorRTError('ERR_DISPOSED', 'The session was stopped during the run.');
      onTiming?.(outputs.timing!);
      return request.results(outputs);
    } finally {
      ignore();
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
    const given = this.#context.profiles.length > 0 ? this.#context.profiles : completeProfiles([], inputs);
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
    return sessionStats(this.#native.stats());
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

  #request(feeds: Feeds, fetches: Fetches | undefined): RunRequest {
    if (this.#disposed) throw new TensorRTError('ERR_DISPOSED', 'The session was disposed.');
    return runRequest(this.#context, feeds, fetches);
  }
}

function zeros(type: DataType, dims: Dims): TensorLike {
  const length = dims.reduce((product, dim) => product * dim, 1);
  if (type === 'string') return { type, dims, data: new Array<string>(length).fill('') };
  return { type, dims, data: typedArray(type, new ArrayBuffer(length * dataTypes[type].byteSize)) };
}
