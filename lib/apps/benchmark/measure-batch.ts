import type { Dims } from '../../base/tensor-like.js';
import { version } from '../../base/version.js';
import { Engine } from '../../engine/engine.js';
import type { Tensor } from '../../execution/tensor.js';
import { InferenceSession } from '../../session/session.js';
import type { SessionOptions } from '../../session/session-options.js';
import {
  type BenchmarkResult,
  type BenchmarkTarget,
  benchmark,
  benchmarkWarnings,
  type PartTimes,
  warmUp,
} from './benchmark.js';
import type { OnnxRuntimePeer } from './onnxruntime-peer.js';
import { resetPeakMemory, residentMemory } from './resident-memory.js';

/** The number of turns that each of two runtimes takes in a measurement. */
const comparisonRounds = 10;

/** The contents of a query. */
export interface BatchInputs {
  /** Samples per query. */
  readonly batch: number;
  /** Shapes of the inputs that have dynamic dimensions. */
  readonly dynamic: Readonly<Record<string, Dims>>;
  readonly feeds: Readonly<Record<string, Tensor>>;
}

/** The settings to load and to measure with. */
export interface BatchSettings extends Pick<SessionOptions, 'device' | 'threads' | 'precision'> {
  readonly concurrency: number;
  readonly durationMs: number;
  readonly warmupMs: number;
}

/** One runtime's part of a report. */
export interface Row {
  readonly name: string;
  readonly version: string;
  /** The runtime that executes the queries. */
  readonly runtime: { readonly name: string; readonly version: string };
  readonly device: string;
  readonly loadMs: number;
  readonly samplesPerSecond: number;
  /**
   * The growth of physical memory from loading the session to the end of its first queries, at its peak, in bytes. The
   * first session also loads the runtime's libraries, and a build counts in full. Absent if the system doesn't report
   * it, and for a peer, which shares the libraries.
   */
  readonly hostBytes?: number;
  /** The session's memory on the GPU: weights, activations, inputs and outputs, in bytes. */
  readonly deviceBytes?: number;
  readonly result: BenchmarkResult;
  readonly warnings: readonly string[];
}

export interface BatchReport {
  readonly batch: number;
  /** Queries in flight at a time. */
  readonly concurrency: number;
  readonly inputs: readonly { readonly name: string; readonly type: string; readonly dims: Dims }[];
  readonly why: string;
  readonly rows: readonly Row[];
  /** The ratio of median latencies, ours to the peer's: below 1, ours is faster. */
  readonly ratioOfMedians?: number;
}

interface Contestant
  extends BenchmarkTarget,
    Pick<Row, 'name' | 'version' | 'runtime' | 'loadMs' | 'hostBytes' | 'deviceBytes'> {}

/**
 * Loads a session, and one of the peer if there is one, and measures them in turns.
 * @throws (rejects) the errors of `InferenceSession.create` and of runs
 */
export async function measureBatch(
  model: string | Engine,
  inputs: BatchInputs,
  settings: BatchSettings,
  peer: OnnxRuntimePeer | undefined,
): Promise<{ report: BatchReport; began: { initStop: number; runStart: number } }> {
  const { device, threads, concurrency, precision, durationMs, warmupMs } = settings;
  const loading = watchLoading();
  const session = await InferenceSession.create(model, {
    device,
    concurrency,
    ...(threads === undefined ? {} : { threads }),
    ...(precision === undefined ? {} : { precision }),
    // For a GPU the model is compiled for these shapes only.
    ...(model instanceof Engine ? {} : { shapes: inputs.dynamic }),
  });
  const loadMs = loading.milliseconds();
  const disposables: { dispose(): Promise<void> }[] = [session];
  try {
    const initStop = Date.now();
    const target: BenchmarkTarget = {
      async run() {
        let times: PartTimes = {};
        await session.run(inputs.feeds, {
          onTiming(timing) {
            times = timing;
          },
        });
        return times;
      },
    };
    await warmUp(target, warmupMs, concurrency);
    const hostBytes = loading.peakBytes();
    const { memory } = session.stats();
    const contestants: Contestant[] = [
      {
        name: 'node-tensorrt',
        version,
        runtime: session.runtime,
        loadMs,
        ...(hostBytes === undefined ? {} : { hostBytes }),
        ...(memory ? { deviceBytes: memory.weights + memory.activations + memory.io } : {}),
        run: target.run,
      },
    ];
    if (peer) {
      const { name, version } = peer;
      const began = performance.now();
      const { run, dispose } = await peer.createSession(model as string, inputs.feeds, {
        device: session.device,
        threads,
      });
      disposables.push({ dispose });
      const runtime = { name: 'onnxruntime', version };
      contestants.push({ name, version, runtime, loadMs: performance.now() - began, run });
      await warmUp({ run }, warmupMs, concurrency);
    }
    const runStart = Date.now();
    const rounds = peer ? comparisonRounds : 1;
    const results = await benchmark(contestants, { durationMs, concurrency, rounds });
    const rows = contestants.map(({ run, ...contestant }, i): Row => {
      const result = results[i]!;
      return {
        ...contestant,
        device: session.device,
        samplesPerSecond: result.queriesPerSecond * inputs.batch,
        result,
        warnings: benchmarkWarnings(result, session.device !== 'cpu'),
      };
    });
    const medians = rows.map(({ result }) => result.latency.median);
    return {
      report: {
        batch: inputs.batch,
        concurrency,
        inputs: Object.entries(inputs.feeds).map(([name, { type, dims }]) => ({ name, type, dims })),
        why: session.why,
        rows,
        ...(peer ? { ratioOfMedians: medians[0]! / medians[1]! } : {}),
      },
      began: { initStop, runStart },
    };
  } finally {
    for (const each of disposables.toReversed()) await each.dispose();
  }
}

/** Watches the time and memory that loading a session takes; no memory if the system doesn't report it. */
function watchLoading() {
  const canReset = resetPeakMemory();
  const before = residentMemory().now;
  const began = performance.now();
  return {
    milliseconds: () => performance.now() - began,
    peakBytes: () => (canReset ? residentMemory().peak - before : undefined),
  };
}
