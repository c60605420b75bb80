import type { RunTiming } from '../../execution/loaded-session.js';
import { type LatencyStatistics, latencyStatistics, quantiles } from './latency-statistics.js';

/**
 * The parts of one query's time, in milliseconds. Parts that the device doesn't have or the runtime doesn't tell are
 * absent.
 */
export type PartTimes = Partial<Omit<RunTiming, 'totalMs'>>;

export const parts = ['queueMs', 'enqueueMs', 'h2dMs', 'computeMs', 'd2hMs'] as const;
export type Part = (typeof parts)[number];

/** A runtime with a model to measure. */
export interface BenchmarkTarget {
  /** Executes one query. */
  run(): Promise<PartTimes>;
}

export interface BenchmarkOptions {
  /** The least time for which each target is measured. */
  readonly durationMs: number;
  /** Queries in flight at a time. */
  readonly concurrency: number;
  /** Turns that each target takes. The targets alternate, so that noise on the machine affects all of them equally. */
  readonly rounds: number;
}

export interface BenchmarkResult {
  readonly queries: number;
  /** The time from the beginning of the first query to the end of the last one, without the other targets' turns. */
  readonly wallMs: number;
  readonly queriesPerSecond: number;
  /** The time from the beginning of a query to its result, as the caller sees it; in milliseconds. */
  readonly latency: LatencyStatistics;
  readonly parts: Readonly<Partial<Record<Part, LatencyStatistics>>>;
  /** The latencies that 0 %, 1 % and so on to 100 % of the queries don't exceed; milliseconds. */
  readonly latencyQuantiles: readonly number[];
}

/** The least number of queries, however long they take; trtexec's `--iterations`. */
const minQueries = 10;

/** Runs a target without measuring it. */
export async function warmUp(
  target: BenchmarkTarget,
  durationMs: number,
  concurrency: number,
): Promise<void> {
  await takeTurn(target, { durationMs, concurrency, queries: concurrency });
}

/** Measures targets in turns. Each round reverses the order of the one before. */
export async function benchmark(
  targets: readonly BenchmarkTarget[],
  { durationMs, concurrency, rounds }: BenchmarkOptions,
): Promise<BenchmarkResult[]> {
  const samples = targets.map((target) => ({
    target,
    wallMs: 0,
    latencies: [] as number[],
    parts: noParts(),
  }));
  const turn = { durationMs: durationMs / rounds, concurrency, queries: Math.ceil(minQueries / rounds) };
  for (let round = 0; round < rounds; round++) {
    for (const sample of round % 2 === 0 ? samples : samples.toReversed()) {
      // This target shouldn't pay for what the other target left in the processor's caches.
      if (targets.length > 1) await sample.target.run();
      sample.wallMs += await takeTurn(sample.target, turn, (latency, times) => {
        sample.latencies.push(latency);
        for (const part of parts) if (times[part] !== undefined) sample.parts[part].push(times[part]);
      });
    }
  }
  return samples.map(({ wallMs, latencies, parts: times }) => ({
    queries: latencies.length,
    wallMs,
    queriesPerSecond: (1000 * latencies.length) / wallMs,
    latency: latencyStatistics(latencies),
    latencyQuantiles: quantiles(latencies, 100),
    parts: Object.fromEntries(
      parts.filter((part) => times[part].length > 0).map((part) => [part, latencyStatistics(times[part])]),
    ),
  }));
}

function noParts(): Record<Part, number[]> {
  return { queueMs: [], enqueueMs: [], h2dMs: [], computeMs: [], d2hMs: [] };
}

/** Keeps `concurrency` queries in flight for a time, and until enough have run; returns how long that took. */
async function takeTurn(
  target: BenchmarkTarget,
  { durationMs, concurrency, queries }: { durationMs: number; concurrency: number; queries: number },
  record?: (latencyMs: number, parts: PartTimes) => void,
): Promise<number> {
  const began = performance.now();
  let started = 0;
  const stream = async () => {
    while (started < queries || performance.now() - began < durationMs) {
      started++;
      const before = performance.now();
      const times = await target.run();
      record?.(performance.now() - before, times);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, stream));
  return performance.now() - began;
}

/**
 * Above this coefficient of variation, trtexec calls GPU compute time unstable (sampleReporting.cpp); a CPU's varies
 * more.
 */
const unstable = { gpu: 0.01, cpu: 0.05 };

/** Reasons to doubt a result: trtexec's warnings. */
export function benchmarkWarnings(
  { queries, latency, parts: times }: BenchmarkResult,
  isGpu: boolean,
): string[] {
  const warnings: string[] = [];
  if (queries < 100) {
    warnings.push(
      `${queries} queries are too few for a 99th percentile, which needs 100: use a longer --duration.`,
    );
  }
  const { computeMs, enqueueMs, h2dMs, d2hMs } = times;
  const what = computeMs ? 'compute time' : 'latency';
  const { coefficientOfVariation } = computeMs ?? latency;
  if (coefficientOfVariation > (isGpu ? unstable.gpu : unstable.cpu)) {
    warnings.push(
      `The ${what} is unstable, with a coefficient of variation of ${(100 * coefficientOfVariation).toFixed(1)} %: ` +
        `${isGpu ? "lock the GPU's clock (nvidia-smi --lock-gpu-clocks)" : 'run nothing else on the machine'}, ` +
        'or measure longer.',
    );
  }
  if (!computeMs) return warnings;
  if (enqueueMs && enqueueMs.median > 0.8 * computeMs.median) {
    warnings.push(
      'Throughput may be bound by enqueue time rather than by compute: larger batches and CUDA graphs help.',
    );
  }
  if (h2dMs && h2dMs.median >= computeMs.median) {
    warnings.push('Throughput may be bound by copying inputs to the GPU rather than by compute.');
  }
  if (d2hMs && d2hMs.median >= computeMs.median) {
    warnings.push('Throughput may be bound by copying outputs from the GPU rather than by compute.');
  }
  return warnings;
}
