import type { BenchmarkResult } from './benchmark.js';

// Writes MLPerf's logging format (mlcommons/logging, mllog.py), with the keys that MLPerf Inference's LoadGen uses
// (mlcommons/inference, loadgen/results.cc and test_settings_internal.cc), and with those of mlperf-logging's
// constants.py where LoadGen has none.

export type Scenario = 'SingleStream' | 'Offline';

/** LoadGen's rules for a valid result: `min_duration` of mlperf.conf, and the minimum number of queries or samples. */
const minDurationMs = 600_000;
/** SingleStream: test_settings.h, `min_query_count`. Offline: mlperf.conf, resnet50. */
const minQueries: Readonly<Record<Scenario, number>> = { SingleStream: 100, Offline: 24_576 };

export interface MlperfRun {
  readonly scenario: Scenario;
  /** The model's name. */
  readonly benchmark: string;
  /** SHA-256 of the model's file, in hexadecimal. */
  readonly modelSha256: string;
  /** Seed of the random inputs. */
  readonly seed: number;
  readonly threads: number | undefined;
  readonly concurrency: number;
  /** Samples per query. */
  readonly batch: number;
  readonly device: string;
  readonly runtime: Readonly<{ name: string; version: string }>;
  /** Version of node-tensorrt. */
  readonly version: string;
  readonly result: BenchmarkResult;
  /** Times of events, in milliseconds since 1970. */
  readonly times: {
    readonly initStart: number;
    readonly initStop: number;
    readonly runStart: number;
    readonly runStop: number;
  };
}

/** The log of one run, one line per event. It states that it isn't an official MLPerf result. */
export function mlperfLog(run: MlperfRun): string {
  const { times } = run;
  return [
    line(times.initStart, 'init_start', null, 'INTERVAL_START'),
    ...points(times.initStart, settings(run)),
    line(times.initStop, 'init_stop', null, 'INTERVAL_END'),
    line(times.runStart, 'run_start', null, 'INTERVAL_START'),
    line(times.runStop, 'run_stop', null, 'INTERVAL_END', { status: 'success' }),
    ...points(times.runStop, results(run)),
    '',
  ].join('\n');
}

function settings({ scenario, batch, seed, threads, runtime, ...run }: MlperfRun): Record<string, unknown> {
  return {
    submission_benchmark: run.benchmark,
    submission_status: 'research',
    submission_platform: run.device,
    official_mlperf_result: false,
    model_sha256: run.modelSha256,
    node_tensorrt_version: run.version,
    runtime_name: runtime.name,
    runtime_version: runtime.version,
    ...(threads === undefined ? {} : { intra_op_threads: threads }),
    seed,
    effective_scenario: scenario,
    effective_test_mode: 'PerformanceOnly',
    effective_samples_per_query: batch,
    effective_target_latency_percentile: 0.9,
    effective_max_async_queries: run.concurrency,
    effective_min_duration_ms: minDurationMs,
    effective_min_query_count: minQueries[scenario],
    // Every query uses the same input, made from the seed. No samples are drawn or scheduled.
    effective_performance_sample_count: batch,
    effective_qsl_rng_seed: seed,
    effective_sample_index_rng_seed: 0,
    effective_schedule_rng_seed: 0,
  };
}

function results({ scenario, result, batch }: MlperfRun): Record<string, unknown> {
  const { queries, wallMs, queriesPerSecond, latency } = result;
  const count = scenario === 'Offline' ? queries * batch : queries;
  const durationMet = wallMs >= minDurationMs;
  const queriesMet = count >= minQueries[scenario];
  const reasons = [
    ...(durationMet ? [] : [`it ran ${(wallMs / 1000).toFixed(1)} s of ${minDurationMs / 1000} s`]),
    ...(queriesMet
      ? []
      : [`${count} of ${minQueries[scenario]} ${scenario === 'Offline' ? 'samples' : 'queries'}`]),
  ];
  const nanoseconds = (ms: number) => Math.round(1e6 * ms);
  return {
    generated_query_count: queries,
    generated_samples_per_query: batch,
    result_validity: durationMet && queriesMet ? 'VALID' : 'INVALID',
    result_min_duration_met: durationMet,
    result_min_queries_met: queriesMet,
    ...(reasons.length > 0 ? { result_invalid_reason: reasons.join(', ') } : {}),
    result_query_count: queries,
    ...(scenario === 'Offline'
      ? { result_samples_per_second: queriesPerSecond * batch }
      : { result_qps_with_loadgen_overhead: queriesPerSecond }),
    result_min_latency_ns: nanoseconds(latency.min),
    result_max_latency_ns: nanoseconds(latency.max),
    result_mean_latency_ns: nanoseconds(latency.mean),
    'result_50.00_percentile_latency_ns': nanoseconds(latency.median),
    'result_90.00_percentile_latency_ns': nanoseconds(latency.p90),
    'result_95.00_percentile_latency_ns': nanoseconds(latency.p95),
    'result_99.00_percentile_latency_ns': nanoseconds(latency.p99),
  };
}

function points(timeMs: number, values: Record<string, unknown>): string[] {
  return Object.entries(values).map(([key, value]) => line(timeMs, key, value, 'POINT_IN_TIME'));
}

function line(
  timeMs: number,
  key: string,
  value: unknown,
  eventType: 'POINT_IN_TIME' | 'INTERVAL_START' | 'INTERVAL_END',
  metadata: Record<string, unknown> = {},
): string {
  const event = {
    namespace: 'node-tensorrt',
    time_ms: Math.round(timeMs),
    event_type: eventType,
    key,
    value,
    metadata,
  };
  return `:::MLLOG ${JSON.stringify(event)}`;
}
