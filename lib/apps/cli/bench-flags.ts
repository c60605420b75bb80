import type { Dims, SessionOptions } from '../../index.js';
import type { BenchmarkSettings } from '../benchmark/benchmark-model.js';
import type { Scenario } from '../benchmark/mlperf-log.js';
import { parseShapeFlag } from './build.js';
import { checkInputFlags, parseDevice, parseInputFlags } from './input-flags.js';
import { UsageError } from './output.js';

/** The flags of `bench` as they were given. */
export interface BenchFlags {
  batch?: string;
  duration: string;
  warmup: string;
  shapes: string[];
  input: string[];
  device: string;
  precision?: string;
  threads?: string;
  concurrency: string;
  compare?: 'onnxruntime';
  json?: string;
  plot?: string;
  mlperf?: string;
  scenario?: Scenario;
}

/** @throws UsageError */
export function readFlags(flags: BenchFlags): BenchmarkSettings & { scenario: Scenario } {
  const scenario = flags.scenario ?? 'SingleStream';
  const batches = flags.batch === undefined ? [undefined] : parseCounts('--batch', flags.batch);
  const concurrencies = parseCounts('--concurrency', flags.concurrency);
  checkInputFlags(flags.input);
  if (flags.scenario !== undefined && flags.mlperf === undefined) {
    throw new UsageError('--scenario needs --mlperf FILE.');
  }
  if (flags.mlperf !== undefined && (batches.length > 1 || concurrencies.length > 1)) {
    throw new UsageError('An MLPerf log holds one run: give --batch one size, and --concurrency one number.');
  }
  if (
    flags.mlperf !== undefined &&
    scenario === 'SingleStream' &&
    ((batches[0] ?? 1) > 1 || concurrencies[0]! > 1)
  ) {
    throw new UsageError('SingleStream runs one sample at a time: it needs --batch 1 and --concurrency 1.');
  }
  return {
    scenario,
    batches,
    concurrencies,
    durationMs: 1000 * parseSeconds('--duration', flags.duration),
    warmupMs: 1000 * parseSeconds('--warmup', flags.warmup),
    threads: flags.threads === undefined ? undefined : parseCount('--threads', flags.threads),
    device: parseDevice(flags.device),
    precision: flags.precision as SessionOptions['precision'],
    inputs: (names) => parseInputFlags(flags.input, names),
    shapes: new Map(flags.shapes.map(parseShape)),
  };
}

function parseCounts(flag: string, text: string): number[] {
  return text.split(',').map((count) => parseCount(flag, count));
}

function parseCount(flag: string, text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text.trim())) return Number(text);
  throw new UsageError(`${flag} must be a whole number of at least 1, not '${text}'.`);
}

function parseSeconds(flag: string, text: string): number {
  const seconds = Number(text);
  if (text.trim() !== '' && Number.isFinite(seconds) && seconds >= 0) return seconds;
  throw new UsageError(`${flag} must be a number of seconds, not '${text}'.`);
}

/** `NAME:1x128`; the name may have colons. */
function parseShape(text: string): [name: string, dims: Dims] {
  const [name, dims] = parseShapeFlag(text);
  if (Array.isArray(dims)) return [name, dims as Dims];
  throw new UsageError(`--shapes must be NAME:SHAPE such as x:1x3x224x224, not '${text}'.`);
}
