/** A distribution of durations, in the unit of its values, with the same figures as trtexec. */
export interface LatencyStatistics {
  readonly min: number;
  readonly max: number;
  readonly mean: number;
  readonly median: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  /** Standard deviation (of the population) over the mean: 0.05 is 5 %. */
  readonly coefficientOfVariation: number;
}

/**
 * The statistics of at least one value.
 *
 * Percentiles are nearest ranks: the smallest value that at least p percent of the values don't exceed. NumPy calls
 * that `inverted_cdf`. trtexec computes them the same way (NVIDIA/TensorRT, samples/common/sampleReporting.cpp,
 * findPercentile), and also the median (the mean of the middle two if the count is even) and the coefficient of
 * variation.
 */
export function latencyStatistics(values: readonly number[]): LatencyStatistics {
  const sorted = Float64Array.from(values).sort();
  const count = sorted.length;
  const mean = sorted.reduce((sum, value) => sum + value, 0) / count;
  const variance = sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count;
  return {
    min: sorted[0]!,
    max: sorted[count - 1]!,
    mean,
    median: (sorted[(count - 1) >> 1]! + sorted[count >> 1]!) / 2,
    p90: nearestRank(sorted, 90, 100),
    p95: nearestRank(sorted, 95, 100),
    p99: nearestRank(sorted, 99, 100),
    coefficientOfVariation: mean === 0 ? 0 : Math.sqrt(variance) / mean,
  };
}

/** The values that 0, 1 and so on to `parts` of `parts` equal shares of all values don't exceed: nearest ranks again. */
export function quantiles(values: readonly number[], parts: number): number[] {
  const sorted = Float64Array.from(values).sort();
  return Array.from({ length: parts + 1 }, (_, i) => nearestRank(sorted, i, parts));
}

/** The smallest value that at least `part` of `parts` equal shares of the sorted values don't exceed. */
function nearestRank(sorted: Float64Array, part: number, parts: number): number {
  return sorted[Math.max(Math.ceil((part * sorted.length) / parts) - 1, 0)]!;
}
