import type { NativeDeviceStats, NativeLoadedModel, NativeLoadRequest } from './loaded-model.js';
import type { HostBuffer, NativeInput, NativeOutput } from './tensor.js';

/**
 * The inputs of a run, in the model's order, and the outputs to compute, each with an optional target to write into.
 */
export type NativeRun = [
  data: NativeInput[],
  dims: (readonly number[])[],
  outputIndices: number[],
  targets: (HostBuffer | undefined)[],
  targetDims: (readonly number[])[],
];

export interface NativeSession {
  /** Resolves with undefined if `stopLoading()` ended it. */
  load(request: NativeLoadRequest): Promise<NativeLoadedModel | undefined>;
  stopLoading(): void;
  /** Resolves with undefined if `cancel(id)` ended the run. */
  run(
    id: number,
    ...run: [
      ...NativeRun,
      timed: boolean,
      /** Save the model's runtime cache after the run. */
      persist: boolean,
    ]
  ): Promise<(NativeOutput[] & { timing?: NativeTiming }) | undefined>;
  runSync(id: number, ...run: NativeRun): NativeOutput[];
  cancel(id: number): void;
  stats(): NativeSessionStats;
  close(): Promise<void>;
}

/** Milliseconds; see `RunTiming`. */
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
  /** Milliseconds of the latest runs that completed, in no particular order. */
  latencies: number[];
  /** Present for a model on a GPU. */
  device?: NativeDeviceStats;
}
