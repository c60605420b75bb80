import type { Command } from 'commander';
import type {
  Bisection,
  CompareOptions,
  LayerDifference,
  OutputDifference,
  PartedNode,
} from '../../index.js';
import { compareFiles, type FileComparison } from '../compare/compare-files.js';
import { shellWord } from '../run/input-source.js';
import { print, progressLine, table, UsageError } from './output.js';

interface CompareFlags {
  inputs?: string;
  seed?: string;
  layers: boolean;
  tolerance?: string;
  bisect?: string;
  json: boolean;
}

/** `compare A B`: how the outputs of two models differ, where the models part, and what to keep in FP32. */
export function addCompareCommand(program: Command): void {
  program
    .command('compare')
    .description(
      'compare two ONNX models on the CPU, or one with its cast to 16 bits, and find where they part',
    )
    .argument('<a>', 'the reference, an ONNX file')
    .argument('<b>', 'the other ONNX file; fp16 or bf16 for a cast of the first')
    .option('--inputs <dir>', 'folder of NAME.npy for each input, or of such folders; default: random')
    .option('--seed <seed>', 'of random inputs', '0')
    .option('--layers', 'compare the values inside too, and find the node where the models part', false)
    .option(
      '--tolerance <tolerance>',
      'relative difference up to which values are equal; default: by precision',
    )
    .option(
      '--bisect <tolerance>',
      'find nodes which, kept in FP32, bring the outputs of a 16-bit model within a relative difference',
    )
    .option('--json', 'print one JSON document', false)
    .action(compare);
}

async function compare(a: string, b: string, flags: CompareFlags): Promise<void> {
  const progress = progressLine();
  const { inputs, layers, seed, tolerance, bisect } = flags;
  const options: Omit<CompareOptions, 'inputs'> = {
    layers,
    ...(seed === undefined ? {} : { seed: parseSeed(seed) }),
    ...(tolerance === undefined ? {} : { tolerance: parseTolerance('--tolerance', tolerance) }),
    ...(bisect === undefined ? {} : { bisect: { tolerance: parseTolerance('--bisect', bisect) } }),
    onProgress: ({ phase, step, steps }) => progress.show(`${phase} ${step}/${steps}`),
  };
  const comparison = await compareFiles(a, b, { ...options, inputs }).finally(progress.clear);
  if (flags.json) return print(JSON.stringify(comparison, withInfinity, 2));
  printComparison(comparison);
}

/** JSON has no infinity, and would print null. */
function withInfinity(_: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
}

function printComparison(comparison: FileComparison): void {
  const { a, b, precision, inputs, tolerance, agree, outputs, unpaired, layers, parted, bisect } = comparison;
  const described = (file: string, type: string) =>
    `${file} (${type.toUpperCase()}${type === 'fp32' ? '' : ', simulated'})`;
  const source = inputs.source === 'random' ? `random samples, seed ${inputs.seed}` : 'samples';
  print(`${described(a, precision.a)} and ${described(b, precision.b)}, on ${inputs.samples} ${source}`);
  print(`the outputs ${agree ? 'agree' : 'do not agree'} within ${number(tolerance)}`);
  print('');
  print(
    table(
      ['output', 'dims', 'largest', 'relative', 'mean', 'cosine', 'top-1', 'KL'],
      outputs.map((output) => [
        output.name === output.other ? output.name : `${output.name} / ${output.other}`,
        output.dims.join('×'),
        ...differences(output),
        output.top1 === undefined ? '' : `${number(100 * output.top1)} %`,
        output.kl === undefined ? '' : `${number(output.kl)} (${output.rows})`,
      ]),
    ),
  );
  for (const name of unpaired.a) print(`only in ${a}: ${name}`);
  for (const name of unpaired.b) print(`only in ${b}: ${name}`);
  if (layers) printLayers(layers, parted);
  if (bisect) printBisection(bisect);
}

function differences({ largest, relative, mean, cosine }: OutputDifference | LayerDifference): string[] {
  return [number(largest), number(relative), number(mean), cosine.toFixed(6)];
}

function printLayers(layers: readonly LayerDifference[], parted: PartedNode | null | undefined): void {
  print('');
  print(
    table(
      ['node', 'operator', 'dims', 'largest', 'relative', 'mean', 'cosine', 'own error'],
      layers.map((layer) => [
        layer.node,
        layer.operator,
        layer.dims.join('×'),
        ...differences(layer),
        number(layer.error),
      ]),
    ),
  );
  print('');
  if (!parted) {
    print('the models part nowhere');
    return;
  }
  const { node, operator, kind, error, effect, nodes } = parted;
  const what = {
    overflow: 'finite numbers become infinite or NaN',
    missing: 'the other model lacks it',
    shape: 'its value has other dimensions',
    value: `its error is ${number(error)}`,
  }[kind];
  print(
    `the models part at ${node} (${operator}): ${what}; that alone makes the outputs differ by ${number(effect)}`,
  );
  if (nodes.length > 1) print(`compared together: ${nodes.join(', ')}`);
}

function printBisection({
  keepFp32,
  reached,
  before,
  after,
  precision,
  tolerance,
  of,
  tried,
}: Bisection): void {
  print('');
  const type = precision.toUpperCase();
  const model = of === 'cast' ? `the cast to ${type}` : `the ${type} model`;
  if (!reached) {
    print(`${model} differs by ${number(after)}, beyond ${number(tolerance)}, even with every node in FP32`);
    return;
  }
  if (keepFp32.length === 0) {
    print(`${model} differs by ${number(before)}, within ${number(tolerance)}: no node needs FP32`);
    return;
  }
  print(
    `${model} differs by ${number(before)}; with ${keepFp32.length} nodes in FP32 by ${number(after)}, ` +
      `within ${number(tolerance)} (${tried} sets tried)`,
  );
  print(`keepFp32: ${JSON.stringify(keepFp32)}`);
  print(keepFp32.map((name) => `--keep-fp32 ${shellWord(name)}`).join(' '));
}

/** Three digits, or the name of what is no number. */
function number(value: number): string {
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))) : String(value);
}

function parseTolerance(flag: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0)
    throw new UsageError(`${flag} must be a number such as 0.01, not '${text}'.`);
  return value;
}

function parseSeed(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value))
    throw new UsageError(`--seed must be a whole number, not '${text}'.`);
  return value;
}
