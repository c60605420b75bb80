import path from 'node:path';
import type { Command } from 'commander';
import { TensorRTError } from '../../base/errors.js';
import { Engine } from '../../engine/engine.js';
import { isEngineFile } from '../../engine/engine-file.js';
import type { Tensor } from '../../execution/tensor.js';
import { InferenceSession } from '../../session/session.js';
import { writeAtomically } from '../../system/files/atomic-file.js';
import { makeDirectories } from '../../system/files/promises.js';
import { checkInputFlags, parseDevice, parseInputFlags, readInput } from './model-input.js';
import { serializeNpy } from './npy.js';
import { print, table, withFlags } from './output.js';

interface RunFlags {
  input: string[];
  output?: string;
  device: string;
  json: boolean;
}

/** `run MODEL`: executes a model once and says what came out. */
export function addRunCommand(program: Command): void {
  program
    .command('run')
    .description('run a model once, on .npy files or random input, and show its outputs')
    .argument('<model>', 'ONNX file, or engine file')
    .option(
      '--input <name=source>',
      'an input: NAME=FILE.npy or NAME=random:1x3x224x224; static inputs default to random',
      (value: string, all: string[]) => [...all, value],
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
  const started = performance.now();
  const source = isEngineFile(model) ? await Engine.load(model) : model;
  const session = await InferenceSession.create(source, { device });
  try {
    const loaded = performance.now();
    const sources = parseInputFlags(flags.input, session.inputNames);
    const files = flags.output === undefined ? undefined : outputFiles(flags.output, session.outputNames);
    const feeds: Record<string, Tensor> = {};
    for (const input of session.inputMetadata) {
      feeds[input.name] = await readInput(input, sources.get(input.name));
    }
    const before = performance.now();
    const outputs = await session.run(feeds);
    const runMs = performance.now() - before;

    const report = {
      model,
      device: session.device,
      why: session.why,
      runtime: session.runtime,
      loadMs: loaded - started,
      runMs,
      inputs: Object.entries(feeds).map(([name, { type, dims }]) => ({ name, type, dims })),
      outputs: await Promise.all(
        Object.entries(outputs).map(async ([name, tensor]) => {
          const { type, dims } = tensor;
          const file = files?.get(name);
          if (file !== undefined) await writeOutput(file, tensor);
          return { name, type, dims, ...statistics(tensor), ...(file === undefined ? {} : { file }) };
        }),
      ),
    };
    if (flags.json) return print(JSON.stringify(report, null, 2));
    print(
      `${report.runtime.name} ${report.runtime.version} on ${report.device} (${withFlags(report.why, command)})`,
    );
    print(`loaded in ${report.loadMs.toFixed(1)} ms, ran in ${report.runMs.toFixed(1)} ms`);
    print(
      table(
        ['output', 'type', 'dims', 'min', 'mean', 'max'],
        report.outputs.map(({ name, type, dims, min, mean, max }) => [
          name,
          type,
          dims.join('×'),
          ...[min, mean, max].map((value) => (value === null ? '' : value.toPrecision(6))),
        ]),
      ),
    );
  } finally {
    await session.dispose();
  }
}

/** A file for each output; names that would be one file are told apart by numbers. */
function outputFiles(directory: string, names: readonly string[]): Map<string, string> {
  const files = new Map<string, string>();
  for (const name of names) {
    const base = path.join(directory, name.replaceAll(/[^\w.-]/g, '_'));
    const taken = new Set(files.values());
    let file = `${base}.npy`;
    for (let i = 1; taken.has(file); i++) file = `${base}.${i}.npy`;
    files.set(name, file);
  }
  return files;
}

async function writeOutput(file: string, tensor: Tensor): Promise<void> {
  try {
    await makeDirectories(path.dirname(file));
    await writeAtomically(file, [serializeNpy(tensor)], 'output');
  } catch (cause) {
    if (cause instanceof TensorRTError) throw cause;
    throw new TensorRTError('ERR_IO', `Could not write ${file}: ${(cause as Error).message}`, { cause });
  }
}

/** null where there are no numbers: strings, an empty tensor, and 16-bit patterns on a host without Float16Array. */
function statistics(tensor: Tensor): { min: number | null; mean: number | null; max: number | null } {
  const isBits = /float16/.test(tensor.type) && tensor.data instanceof Uint16Array;
  if (tensor.type === 'string' || tensor.size === 0 || isBits) return { min: null, mean: null, max: null };
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  let sum = 0;
  for (const element of tensor.data as unknown as Iterable<number | bigint>) {
    const value = Number(element);
    min = Math.min(min, value);
    max = Math.max(max, value);
    sum += value;
  }
  return { min, mean: sum / tensor.size, max };
}
