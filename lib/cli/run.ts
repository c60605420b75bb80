import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Command } from 'commander';
import type { DataType } from '../data-type.js';
import { Engine, isEngineFile } from '../engine.js';
import { invalidArgValue, TensorRTError } from '../errors.js';
import { InferenceSession, type SessionOptions, type ValueMetadata } from '../session.js';
import { Tensor } from '../tensor.js';
import { parseNpy, serializeNpy } from './npy.js';
import { print, table, UsageError } from './output.js';

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

async function run(model: string, flags: RunFlags): Promise<void> {
  if (!/^(auto|cpu|cuda(:\d+)?)$/.test(flags.device)) {
    throw new UsageError(`--device must be auto, cpu, cuda or cuda:N, not '${flags.device}'.`);
  }
  const pairs = flags.input.map(splitInput);
  const sources = new Map(pairs);
  if (sources.size < pairs.length) throw new UsageError('--input gives one input twice.');
  const started = performance.now();
  const source = isEngineFile(model) ? await Engine.load(model) : model;
  const session = await InferenceSession.create(source, { device: flags.device as SessionOptions['device'] });
  try {
    const loaded = performance.now();
    const unknown = [...sources.keys()].find((name) => !session.inputNames.includes(name));
    if (unknown !== undefined) {
      throw invalidArgValue(
        '--input',
        `names '${unknown}', which is not an input of this model. Its inputs are ${session.inputNames.join(', ')}.`,
      );
    }
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
    print(`${report.runtime.name} ${report.runtime.version} on ${report.device} (${report.why})`);
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

function splitInput(text: string): [name: string, source: string] {
  const split = text.indexOf('=');
  if (split <= 0) throw new UsageError(`--input must be NAME=FILE.npy or NAME=random:DIMS, not '${text}'.`);
  return [text.slice(0, split), text.slice(split + 1)];
}

async function readInput(input: ValueMetadata, source: string | undefined): Promise<Tensor> {
  if (source === undefined) {
    const dynamic = input.shape.some((size) => typeof size !== 'number');
    if (!dynamic) return randomTensor(input.type, input.shape as number[]);
    const shape = input.shape.map((size) => size || '?').join('x');
    throw invalidArgValue(
      '--input',
      `is needed for '${input.name}', whose dimensions are dynamic: --input ${input.name}=random:${shape} with numbers.`,
    );
  }
  const random = /^random:((?:\d+(?:x\d+)*)?)$/.exec(source);
  if (random) return randomTensor(input.type, random[1] ? random[1].split('x').map(Number) : []);
  if (source.startsWith('random')) {
    throw new UsageError(`--input ${input.name}=${source}: write random:1x3x224x224.`);
  }
  let bytes: Uint8Array;
  try {
    bytes = await readFile(source);
  } catch (cause) {
    throw new TensorRTError('ERR_IO', `Could not read ${source}: ${(cause as Error).message}`, { cause });
  }
  return parseNpy(bytes, source);
}

/** Floats are uniform in [-1, 1), 16-bit ones in [0.5, 1); integers and booleans are 0 or 1: fit for ids and masks. */
function randomTensor(type: DataType, dims: readonly number[]): Tensor {
  let state = 1;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator: the same every time
    return state / 2 ** 32;
  };
  const elements = { length: dims.reduce((product, size) => product * size, 1) };
  if (elements.length > 2 ** 31) throw new UsageError(`random:${dims.join('x')} has too many elements.`);
  switch (type) {
    case 'string':
      throw invalidArgValue('--input', 'cannot be random for an input of strings.');
    case 'float32':
      return new Tensor(
        type,
        Float32Array.from(elements, () => 2 * uniform() - 1),
        dims,
      );
    case 'float64':
      return new Tensor(
        type,
        Float64Array.from(elements, () => 2 * uniform() - 1),
        dims,
      );
    // Exponent bits of 0.5, any mantissa.
    case 'float16':
      return new Tensor(
        type,
        Uint16Array.from(elements, () => 0x3800 | (uniform() * 0x400)),
        dims,
      );
    case 'bfloat16':
      return new Tensor(
        type,
        Uint16Array.from(elements, () => 0x3f00 | (uniform() * 0x80)),
        dims,
      );
    case 'int64':
    case 'uint64':
      return new Tensor(
        type,
        Array.from(elements, () => BigInt(Math.round(uniform()))),
        dims,
      );
    default:
      return new Tensor(
        type,
        Array.from(elements, () => Math.round(uniform())),
        dims,
      );
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
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, serializeNpy(tensor));
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
