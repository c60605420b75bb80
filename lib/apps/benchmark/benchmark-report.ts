import type { BatchReport, BatchSettings } from './measure-batch.js';

/** The results of a benchmark, with the machine and the settings. */
export interface BenchmarkReport extends Pick<BatchSettings, 'threads' | 'durationMs' | 'warmupMs'> {
  readonly model: string;
  /** The SHA-256 of the model's file, in hexadecimal. */
  readonly sha256: string;
  readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string };
  readonly reports: readonly BatchReport[];
}
