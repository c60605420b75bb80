import type { NativeSessionStats } from '../system/native/session.js';

/** Counters and timings of a session so far. Runs by `runSync()` aren't counted. */
export interface SessionStats {
  /** How many runs there were, and are. */
  readonly runs: {
    /** Runs that gave outputs. */
    readonly completed: number;
    /** Runs that rejected with an error. */
    readonly failed: number;
    /** Runs that a signal ended. */
    readonly cancelled: number;
    /** Runs that wait for a thread. */
    readonly queued: number;
    /** Runs that execute now. */
    readonly executing: number;
  };
  /** {@link RunTiming.totalMs} of the latest 1024 completed runs, in milliseconds; null before the first. */
  readonly latencyMs: {
    /** The arithmetic mean. */
    readonly mean: number;
    /** The median. */
    readonly p50: number;
    /** 90 % of the runs were at most this long. */
    readonly p90: number;
    /** 99 % of the runs were at most this long. */
    readonly p99: number;
    /** The longest run. */
    readonly max: number;
  } | null;
  /** Bytes that a session on a GPU takes, until it is disposed; null on the CPU. */
  readonly memory: {
    /** Weights on the GPU; 0 if the library is too old to tell. */
    readonly weights: number;
    /** Scratch memory on the GPU for the activations of all threads. */
    readonly activations: number;
    /** Inputs and outputs on the GPU, with the memory kept for the next ones. */
    readonly io: number;
    /** Pinned host memory that the GPU copies from and to, with what is kept for the next copies. */
    readonly pinned: number;
    /** Memory of the GPU that was free when this process last allocated or freed some there. */
    readonly free: number;
    /** All memory of the GPU. */
    readonly total: number;
  } | null;
  /** CUDA graphs of a session on a GPU; null on the CPU. TensorRT-RTX captures its own, which aren't counted here. */
  readonly graphs: {
    /** Graphs that were recorded. */
    readonly captured: number;
    /** Runs that launched a recorded graph. */
    readonly replayed: number;
    /** Shapes that run without a graph, because something in them can't be captured. */
    readonly refused: number;
  } | null;
}

/** The public form of what the addon counts. */
export function sessionStats({ latencies, device, ...runs }: NativeSessionStats): SessionStats {
  latencies.sort((a, b) => a - b);
  const count = latencies.length;
  // Nearest rank: the smallest latency that at least this share of the runs doesn't exceed.
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
