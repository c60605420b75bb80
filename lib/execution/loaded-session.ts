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

/** How to run once. */
export interface RunOptions {
  /**
   * Aborting rejects the run with the signal's reason, as soon as nothing of the caller's is in use any more.
   *
   * @example
   * ```js
   * import { InferenceSession, Tensor } from 'node-tensorrt';
   *
   * const session = await InferenceSession.create('model.onnx');
   * const x = new Tensor('float32', new Float32Array(3 * 224 * 224), [1, 3, 224, 224]);
   * const { y } = await session.run({ x }, { signal: AbortSignal.timeout(5000) });
   * console.log(y.dims);
   * await session.dispose();
   * ```
   */
  signal?: AbortSignal;
  /** Is called when the run has completed, just before its promise resolves. If it throws, the promise rejects with that. */
  onTiming?(timing: RunTiming): void;
}

/** The parts of a run's time, in milliseconds. */
export interface RunTiming {
  /** From `run()` until the run begins on one of the session's threads. */
  readonly queueMs: number;
  /** On a GPU: the time that the thread took to launch the work. */
  readonly enqueueMs?: number;
  /** On a GPU: the time to copy inputs to it. */
  readonly h2dMs?: number;
  /** The time to compute. */
  readonly computeMs: number;
  /** On a GPU: the time to copy outputs back. */
  readonly d2hMs?: number;
  /** From `run()` until the result is there, still on the session's thread. */
  readonly totalMs: number;
}

const runOptions = {
  signal: abortSignal,
  onTiming: callback<NonNullable<RunOptions['onTiming']>>,
} satisfies OptionTable<RunOptions>;

/** Run options of onnxruntime-node that are refused by name, each with what to use here. */
const refusedRunOptions: Readonly<Record<string, string>> = {
  ...refusedLoggingOptions,
  terminate: `${theirs}. Here options.signal ends a run: an AbortSignal.`,
  tag: refusedLoggingOptions.logId,
};

/** Where a model was loaded, and how it may run. */
export interface LoadedOn {
  readonly device: string;
  readonly concurrency: number;
  /** Shapes that runs on the CPU may have; empty for any. A plan has its own. */
  readonly profiles: readonly Profile[];
}

/** A loaded model: runs it, counts its runs and frees it. */
export class LoadedSession {
  /** The names of the inputs, in the model's order. */
  readonly inputNames: readonly string[];
  /** The names of the outputs, in the model's order. */
  readonly outputNames: readonly string[];
  /** Name, type and shape of each input, in the model's order. */
  readonly inputMetadata: readonly InputMetadata[];
  /** Name, type and shape of each output, in the model's order. */
  readonly outputMetadata: readonly ValueMetadata[];
  /** The device that runs execute on: 'cpu', 'cuda:0' and so on. */
  readonly device: string;
  /** The runtime that executes the runs, such as `{ name: 'onnxruntime', version: '1.30.0' }`. */
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
      // A plan has the shapes that it was compiled for.
      profiles: device === 'cpu' ? profiles : loaded.profiles,
    };
    refuseCloning(this);
    if (device === 'cpu') checkProfiles(profiles, this.inputMetadata);
  }

  /**
   * Computes outputs on one of the session's threads. Feeds are read before this returns, so their memory may be reused
   * at once, except that of {@link Tensor.allocate}, which is used without a copy until the promise settles.
   *
   * @param feeds a tensor for each input, by name
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE or ERR_SHAPE_MISMATCH;
   *   TensorRTError ERR_DISPOSED, ERR_QUEUE_FULL, ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY; the signal's reason
   */
  async run(feeds: Feeds, options?: RunOptions): Promise<Record<string, Tensor>>;
  /** Computes the outputs that `fetches` names, or writes them into its tensors. */
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

  /** Does what {@link run} does on the calling thread. The event loop waits meanwhile, for a GPU too. */
  runSync(feeds: Feeds, fetches?: Fetches): Record<string, Tensor> {
    const request = this.#request(feeds, fetches);
    return request.results(this.#native.runSync(0, ...request.native));
  }

  /**
   * Runs every shape that the session is tuned for twice on each of its threads, with zeros. Afterwards TensorRT-RTX has
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

  /** Returns counters and timings. It may be called after {@link dispose}. */
  stats(): SessionStats {
    return sessionStats(this.#native.stats());
  }

  /**
   * Refuses further runs, lets accepted ones finish, then frees the model. When it resolves, the model's memory is free,
   * except that of outputs that are still in use. It may be called again.
   */
  dispose(): Promise<void> {
    this.#disposed ??= this.#native.close();
    return this.#disposed;
  }

  /** Does what {@link dispose} does, by onnxruntime-common's name. */
  release(): Promise<void> {
    return this.dispose();
  }

  /** Disposes of the session at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /**
   * Throws: there is no profiling. {@link stats} and {@link RunOptions.onTiming} tell how long runs take.
   * @deprecated It exists because onnxruntime-common has it.
   * @throws TensorRTError ERR_INVALID_ARG_VALUE
   */
  startProfiling(): void {
    throw new TensorRTError(
      'ERR_INVALID_ARG_VALUE',
      "There is no profiling: session.stats() and a run's onTiming say where time goes.",
    );
  }

  /**
   * Throws, as {@link startProfiling} does.
   * @deprecated It exists because onnxruntime-common has it.
   */
  endProfiling(): void {
    this.startProfiling();
  }

  /** Decides whether the second argument holds fetches or run options, by onnxruntime-common's rule. */
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
