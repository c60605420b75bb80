import path from 'node:path';
import { type Command, Option } from 'commander';
import { Engine } from '../../index.js';
import { benchmarkModel, writeMlperfLog, writePlot, writeReport } from '../benchmark/benchmark-model.js';
import { OnnxRuntimePeer } from '../benchmark/onnxruntime-peer.js';
import { modelSource } from '../run/model-source.js';
import { type BenchFlags, readFlags } from './bench-flags.js';
import { printReport } from './bench-report.js';
import { collect, print, progressLine, UsageError } from './output.js';

/** `bench MODEL`: the figures that trtexec reports, optionally with onnxruntime-node's from the same minutes. */
export function addBenchCommand(program: Command): void {
  program
    .command('bench')
    .description('measure throughput, latency and memory, at one or more batch sizes')
    .argument('<model>', 'ONNX file, or engine file')
    .option(
      '--batch <sizes>',
      "batch sizes, such as 1,8,16; default: 1, the model's own, or the size that an engine is tuned for",
    )
    .option('--duration <seconds>', 'how long to measure each batch size', '5')
    .option('--warmup <seconds>', 'how long to run before measuring', '0.2')
    .option(
      '--shapes <name:shape>',
      'shape of an input, NAME:1x128; its batch dimension follows --batch; repeatable. Default: chosen by the names of the dimensions',
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
    .option('--concurrency <counts>', 'queries in flight at a time, such as 1,2,4', '1')
    .addOption(new Option('--compare <peer>', 'measure it too, in turns').choices(['onnxruntime']))
    .option('--json <file>', 'write the results as JSON')
    .option('--plot <file>', 'draw latencies and throughput into an SVG file')
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
  const source = await modelSource(model);
  if (source instanceof Engine && flags.compare)
    throw new UsageError("--compare needs an ONNX model: onnxruntime-node can't run engines.");
  const peer = flags.compare ? new OnnxRuntimePeer() : undefined;
  const progress = progressLine();
  const { report, times } = await benchmarkModel(model, source, settings, {
    peer,
    onBatch: (batch, concurrency) => {
      const inFlight = concurrency > 1 ? `, ${concurrency} in flight` : '';
      progress.show(
        `batch ${batch ?? 1}${inFlight}: ${settings.durationMs / 1000} s${peer ? ' each' : ''} …`,
      );
    },
  }).finally(() => progress.clear());
  if (flags.json !== undefined) await writeReport(flags.json, report);
  if (flags.plot !== undefined) await writePlot(flags.plot, report);
  if (flags.mlperf !== undefined) {
    await writeMlperfLog(flags.mlperf, report, { scenario: settings.scenario, times });
  }
  const { machine, reports } = report;
  print(`${path.basename(model)}: ${machine.cpu}, ${machine.cores} cores, Node.js ${machine.node}`);
  for (const each of reports) printReport(each, command);
}
