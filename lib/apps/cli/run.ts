import type { Command } from 'commander';
import { runModel } from '../run/run-model.js';
import { checkInputFlags, parseDevice, parseInputFlags } from './input-flags.js';
import { collect, print, table, withFlags } from './output.js';

interface RunFlags {
  input: string[];
  output?: string;
  device: string;
  json: boolean;
}

/** `run MODEL`: executes a model once and shows its outputs. */
export function addRunCommand(program: Command): void {
  program
    .command('run')
    .description('run a model once, on .npy files or random input, and show its outputs')
    .argument('<model>', 'ONNX file, or engine file')
    .option(
      '--input <name=source>',
      'an input: NAME=FILE.npy or NAME=random:1x3x224x224; static inputs default to random',
      collect,
      [],
    )
    .option('--output <dir>', 'write each output to DIR/NAME.npy')
    .option('--device <device>', "'auto', 'cpu', 'cuda' or 'cuda:N'", 'auto')
    .option('--json', 'print one JSON document', false)
    .action(run);
}

async function run(model: string, flags: RunFlags, command: Command): Promise<void> {
  const device = parseDevice(flags.device);
  checkInputFlags(flags.input);
  const report = await runModel(model, {
    device,
    inputs: (names) => parseInputFlags(flags.input, names),
    ...(flags.output === undefined ? {} : { output: flags.output }),
  });
  if (flags.json) return print(JSON.stringify(report, null, 2));
  const { runtime, why, loadMs, runMs, outputs } = report;
  print(`${runtime.name} ${runtime.version} on ${report.device} (${withFlags(why, command)})`);
  print(`loaded in ${loadMs.toFixed(1)} ms, ran in ${runMs.toFixed(1)} ms`);
  print(
    table(
      ['output', 'type', 'dims', 'min', 'mean', 'max'],
      outputs.map(({ name, type, dims, min, mean, max }) => [
        name,
        type,
        dims.join('×'),
        ...[min, mean, max].map((value) => (value === null ? '' : value.toPrecision(6))),
      ]),
    ),
  );
}
