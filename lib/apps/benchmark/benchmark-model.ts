import { createReadStream } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createHash } from '../../base/crypto.js';
import { TensorRTError } from '../../base/errors.js';
import type { Engine } from '../../engine/engine.js';
import { writeAtomically } from '../../system/files/atomic-file.js';
import { randomSeed } from '../run/random-tensor.js';
import { batchInputs, type WantedInputs } from './batch-inputs.js';
import type { BenchmarkReport } from './benchmark-report.js';
import { type BatchReport, type BatchSettings, measureBatch, type Row } from './measure-batch.js';
import { mlperfLog, type Scenario } from './mlperf-log.js';
import type { OnnxRuntimePeer } from './onnxruntime-peer.js';
import { plotBenchmark } from './plot-benchmark.js';

export interface BenchmarkSettings extends Omit<BatchSettings, 'concurrency'>, WantedInputs {
  /** Batch sizes to measure, one after the other; undefined is 1, the model's own, or what an engine is tuned for. */
  readonly batches: readonly (number | undefined)[];
  /** Queries in flight at a time: each batch size is measured with each of these, one after the other. */
  readonly concurrencies: readonly number[];
}

/** The times at which the last batch size was loaded and measured, in milliseconds since 1970. */
type Times = Parameters<typeof mlperfLog>[0]['times'];

/**
 * Measures a model at one or more batch sizes, beside onnxruntime-node if a peer is given.
 * @param file the model's file, which is hashed
 * @param source the model to load: the path of an ONNX file, or an engine
 * @throws (rejects) the errors of {@link batchInputs} and {@link measureBatch}; ERR_IO
 */
export async function benchmarkModel(
  file: string,
  source: string | Engine,
  settings: BenchmarkSettings,
  {
    peer,
    onBatch,
  }: { peer: OnnxRuntimePeer | undefined; onBatch(batch: number | undefined, concurrency: number): void },
): Promise<{ report: BenchmarkReport; times: Times }> {
  const { threads, durationMs, warmupMs } = settings;
  const reports: BatchReport[] = [];
  const initStart = Date.now();
  let times: Times = { initStart, initStop: initStart, runStart: initStart, runStop: initStart };
  for (const batch of settings.batches) {
    const inputs = await batchInputs(source, batch, settings);
    for (const concurrency of settings.concurrencies) {
      onBatch(batch, concurrency);
      const { report, began } = await measureBatch(source, inputs, { ...settings, concurrency }, peer);
      times = { ...times, ...began, runStop: Date.now() };
      reports.push(report);
    }
  }
  const machine = {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.availableParallelism(),
    node: process.version,
  };
  const sha256 = await fileHash(file);
  const report = { model: file, sha256, machine, threads, durationMs, warmupMs, reports };
  return { report, times };
}

/**
 * Writes a report as JSON.
 * @throws (rejects) TensorRTError ERR_IO
 */
export async function writeReport(file: string, report: BenchmarkReport): Promise<void> {
  await writeAtomically(file, [Buffer.from(`${JSON.stringify(report, null, 2)}\n`)], 'results');
}

/** Draws a report into an SVG file. @throws (rejects) TensorRTError ERR_IO */
export async function writePlot(file: string, report: BenchmarkReport): Promise<void> {
  await writeAtomically(file, [Buffer.from(plotBenchmark(report))], 'plot');
}

/** Writes the MLPerf log of a report of one run. @throws (rejects) TensorRTError ERR_IO */
export async function writeMlperfLog(
  file: string,
  { model, sha256, threads, reports }: BenchmarkReport,
  { scenario, times }: { scenario: Scenario; times: Times },
): Promise<void> {
  const [{ batch, concurrency, rows }] = reports as [BatchReport];
  const [{ device, runtime, version, result }] = rows as [Row];
  const log = mlperfLog({
    scenario,
    benchmark: path.parse(model).name,
    modelSha256: sha256,
    seed: randomSeed,
    threads,
    concurrency,
    batch,
    device,
    runtime,
    version,
    result,
    times,
  });
  await writeAtomically(file, [Buffer.from(log)], 'results');
}

/** Hexadecimal SHA-256. */
async function fileHash(file: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(file), hash);
  } catch (cause) {
    throw new TensorRTError('ERR_IO', `Could not read ${file}: ${(cause as Error).message}`, { cause });
  }
  return hash.digest('hex');
}
