import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type Command, Option } from 'commander';
import { TensorRTError } from '../../base/errors.js';
import { Engine } from '../../engine/engine.js';
import { isEngineFile } from '../../engine/engine-file.js';
import { writeAtomically } from '../../system/files/atomic-file.js';
import { type BatchReport, measureBatch, type Row } from '../benchmark/measure-batch.js';
import { mlperfLog } from '../benchmark/mlperf-log.js';
import { OnnxRuntimePeer } from '../benchmark/onnxruntime-peer.js';
import { type BenchFlags, readFlags } from './bench-flags.js';
import { makeInputs } from './bench-inputs.js';
import { printReport } from './bench-report.js';
import { randomSeed } from './model-input.js';
import { print, progressLine, UsageError } from './output.js';

const collect = (value: string, all: string[]) => [...all, value];

/** `bench MODEL`: what trtexec reports, and the same of onnxruntime-node in the same minutes. */
export function addBenchCommand(program: Command): void {
  program
    .command('bench')
    .description('measure throughput, latency and memory, at one or more batch sizes')
    .argument('<model>', 'ONNX file, or engine file')
    .option(
      '--batch <sizes>',
      "batch sizes, such as 1,8,16; default: 1, the model's own, or what an engine is tuned for",
    )
    .option('--duration <seconds>', 'how long to measure each', '5')
    .option('--warmup <seconds>', 'how long to run before', '0.2')
    .option(
      '--shapes <name:shape>',
      'shape of an input, NAME:1x128; its batch dimension follows --batch; repeatable. Default: by the names of the dimensions',
      collect,
      [],
    )
    .option(
      '--input <name=source>',
      'an input: NAME=FILE.npy or NAME=random:1x3x224x224; default: random',
      collect,
      [],
    )
    .option('--device <device>', "'auto', 'cpu', 'cuda' or 'cuda:N'", 'auto')
    .option('--precision <precision>', 'types to compute in: as-exported, fp32, tf32, fp16, bf16')
    .option('--threads <count>', 'CPU threads for one query; default: one per physical core')
    .option('--concurrency <count>', 'queries in flight at a time', '1')
    .addOption(new Option('--compare <peer>', 'measure it too, in turns').choices(['onnxruntime']))
    .option('--json <file>', 'write the results as JSON')
    .option('--mlperf <file>', 'write an MLPerf log')
    .addOption(
      new Option('--scenario <scenario>', "MLPerf's: SingleStream (default) or Offline").choices([
        'SingleStream',
        'Offline',
      ]),
    )
    .action(bench);
}

async function bench(model: string, flags: BenchFlags, command: Command): Promise<void> {
  const settings = readFlags(flags);
  const engine = isEngineFile(model) ? await Engine.load(model) : undefined;
  if (engine && flags.compare)
    throw new UsageError('--compare needs an ONNX model: onnxruntime-node runs no engines.');
  const source = engine ?? model;
  const peer = flags.compare ? new OnnxRuntimePeer() : undefined;

  const progress = progressLine();
  const reports: BatchReport[] = [];
  const initStart = Date.now();
  let times = { initStart, initStop: initStart, runStart: initStart, runStop: initStart };
  try {
    for (const batch of settings.batches) {
      progress.show(`batch ${batch ?? 1}: ${settings.durationMs / 1000} s${peer ? ' each' : ''} …`);
      const inputs = await makeInputs(source, batch, settings);
      const { report, began } = await measureBatch(source, inputs, settings, peer);
      times = { ...times, ...began, runStop: Date.now() };
      reports.push(report);
    }
  } finally {
    progress.clear();
  }

  const sha256 = await fileHash(model);
  const machine = {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.availableParallelism(),
    node: process.version,
  };
  const { threads, concurrency, durationMs, warmupMs } = settings;
  const setup = { model, sha256, machine, threads, concurrency, durationMs, warmupMs };
  if (flags.json !== undefined)
    await writeText(flags.json, `${JSON.stringify({ ...setup, reports }, null, 2)}\n`);
  if (flags.mlperf !== undefined) {
    const [{ batch, rows }] = reports as [BatchReport];
    const [ours] = rows as [Row];
    const log = mlperfLog({
      scenario: settings.scenario,
      benchmark: path.parse(model).name,
      modelSha256: sha256,
      seed: randomSeed,
      threads,
      concurrency,
      batch,
      device: ours.device,
      runtime: ours.runtime,
      version: ours.version,
      result: ours.result,
      times,
    });
    await writeText(flags.mlperf, log);
  }

  print(`${path.basename(model)}: ${machine.cpu}, ${machine.cores} cores, Node.js ${process.version}`);
  for (const report of reports) printReport(report, command);
}

async function writeText(file: string, text: string): Promise<void> {
  await writeAtomically(file, [Buffer.from(text)], 'results');
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
