import type { NativeSessionStats } from '../system/native/session.js';

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

export function sessionStats({ latencies, device, ...runs }: NativeSessionStats): SessionStats {
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
