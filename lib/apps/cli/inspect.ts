import type { Command } from 'commander';
import type { Dims } from '../../index.js';
import { type EngineReport, isEngine, reportEngine, type VerifiedModel } from '../inspect/engine-report.js';
import { type ModelReport, reportModel } from '../inspect/model-report.js';
import { parseGpu } from './input-flags.js';
import { bytes, castLines, maskLines, print, product, table, UsageError, withFlags } from './output.js';

interface InspectFlags {
  model?: string;
  device?: string;
  layers: boolean;
  json: boolean;
}

/** `inspect FILE`: shows the contents of an ONNX model or an engine file, and verifies an engine against its model. */
export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .description('show what an ONNX model or an engine file holds, and where an engine comes from')
    .argument('<file>', 'ONNX model or engine file')
    .option('--model <file>', 'for an engine: the ONNX model to compare with; default: the one beside it')
    .option('--device <device>', "for an ONNX model: the GPU on which TensorRT parses it, 'cuda:N'")
    .option('--layers', 'for an engine: list every layer', false)
    .option('--json', 'print one JSON document', false)
    .action(inspect);
}

async function inspect(file: string, flags: InspectFlags, command: Command): Promise<void> {
  if (isEngine(file)) {
    if (flags.device !== undefined)
      throw new UsageError('--device is for ONNX models: inspecting an engine needs no GPU.');
    const report = await reportEngine(file, flags.model);
    // If the user named a model, a mismatch is an error. A model found beside the engine may simply be newer.
    if (flags.model !== undefined && report.model && !report.model.matches) process.exitCode = 1;
    return flags.json ? print(JSON.stringify(report, null, 2)) : printEngine(report, flags);
  }
  if (flags.model !== undefined)
    throw new UsageError('--model is for engines: it names the model that one was compiled from.');
  const device = flags.device === undefined ? undefined : parseGpu(flags.device);
  const report = await reportModel(file, device);
  return flags.json ? print(JSON.stringify(report, null, 2)) : printModel(report, command);
}

function printEngine(report: EngineReport, flags: InspectFlags): void {
  const { file, id, byteLength, planBytes, constantBytes, manifest, ancestors, inputs, outputs, layers } =
    report;
  const { library, targets, precision, model, created, options, warnings, lineage } = manifest;
  print(`${file}: engine, ${bytes(byteLength)}, checksum verified`);
  print(`id         ${id}`);
  print(`compiled   ${created} by ${product(library)} (node-tensorrt ${manifest.builder})`);
  print(`for        ${targets.join(', ')}, ${precision}`);
  print(
    `from       ${model.name ?? 'bytes'}, SHA-256 ${model.sha256}${model.producer ? `, by ${model.producer}` : ''}`,
  );
  print(`weights    SHA-256 ${model.weightsSha256}`);
  if (report.model) print(`model      ${report.model.file} ${comparison(report.model)}`);
  for (const ancestor of ancestors) print(`parent     ${ancestorText(ancestor)}`);
  if (lineage) print(`lineage    ${JSON.stringify(lineage)}`);
  if (manifest.cast) for (const line of castLines(manifest.cast)) print(line);
  for (const line of maskLines(manifest)) print(line);
  if (Object.keys(options).length > 0) print(`options    ${JSON.stringify(options)}`);
  for (const warning of warnings) print(`warning    ${warning}`);
  print(`sizes      plan ${bytes(planBytes)}, constants before compiling ${bytes(constantBytes)}`);
  print('');
  const range = (dims: Dims) => dims.join('×');
  const rows = [...inputs, ...outputs].map(({ name, type, dims, profiles }, i) => [
    i < inputs.length ? 'input' : 'output',
    name,
    type ?? '?',
    shapeCell(dims),
    profiles.map(({ min, opt, max }) => [min, opt, max].map(range).join(' to ')).join('; '),
    // Inputs and outputs use TensorRT's default, which this package doesn't change; the compiler chooses the rest.
    'linear',
  ]);
  print(table(['', 'name', 'type', 'dims', 'profiles', 'format'], rows));
  print('');
  if (flags.layers) {
    const each = layers.map(({ name, type, outputs, precision, outputBytes }) => [
      name,
      type,
      precision,
      outputs.map(({ dims }) => shapeCell(dims)).join(', '),
      outputBytes === null ? '?' : bytes(outputBytes),
    ]);
    print(table(['layer', 'type', 'precision', 'dims', 'size'], each));
    return;
  }
  const kinds = count(layers.map(({ type, precision }) => `${type}\t${precision}`));
  print(
    table(
      ['layers', 'type', 'precision'],
      kinds.map(([n, kind]) => [n, ...kind.split('\t')]),
    ),
  );
}

function comparison({ sha256Matches, weightsMatch }: VerifiedModel): string {
  if (sha256Matches && weightsMatch) return 'is the model: its SHA-256 and that of its weights match';
  if (sha256Matches) return 'is the ONNX file, but its external data has other weights';
  return weightsMatch ? 'has the same weights in another graph' : 'is another model';
}

function ancestorText({ id, file, manifest }: EngineReport['ancestors'][number]): string {
  if (!file || !manifest) return `${id}, not found beside the engine or in the cache`;
  return `${id}, ${file}, from ${manifest.model.name ?? 'bytes'}, ${manifest.created}, checksum verified`;
}

function shapeCell(dims: Dims): string {
  return dims.map((size) => (size === -1 ? '?' : size)).join('×');
}

function printModel(report: ModelReport, command: Command): void {
  const opsets = Object.entries(report.opsets).map(([domain, version]) => `${domain} ${version}`);
  print(`${report.file}: ONNX model, IR version ${report.irVersion}, operator sets ${opsets.join(', ')}`);
  if (report.producer) print(`exported by ${report.producer}`);
  const types = Object.entries(report.weights).map(([type, { parameters }]) => `${parameters} ${type}`);
  print(
    `${report.parameters} parameters${types.length > 0 ? ` (${types.join(', ')})` : ''}` +
      `${report.externalData ? ', in external data' : ''}`,
  );
  print('');
  const rows = [...report.inputs, ...report.outputs].map(({ name, type, shape }, i) => [
    i < report.inputs.length ? 'input' : 'output',
    name,
    type ?? 'not a tensor of a known type',
    shape?.map((size) => (size === '' ? '?' : size)).join('×') ?? '',
  ]);
  print(table(['', 'name', 'type', 'shape'], rows));
  print('');
  print(
    table(
      ['nodes', 'operator'],
      Object.entries(report.operators).map(([type, n]) => [String(n), type]),
    ),
  );
  print('');
  for (const line of importLines(report.import)) print(withFlags(line, command));
}

function importLines(imported: ModelReport['import']): string[] {
  if ('error' in imported) {
    return [`whether TensorRT imports it is not known: ${imported.error.code}: ${imported.error.message}`];
  }
  const { library, layers, failures, unchecked } = imported;
  const parser = product(library);
  if (layers !== null) return [`${parser} imports it: a network of ${layers} layers`];
  const rows = failures.map(({ node, operator, reason }) => [node, operator, reason]);
  return [
    `${parser} can't import it:`,
    table(['node', 'operator', 'reason'], rows),
    ...(unchecked.length > 0
      ? [
          `not checked, since they need the outputs of these: ${unchecked.length} nodes, from ${unchecked[0]} on`,
        ]
      : []),
  ];
}

/** Counts each name; the most frequent comes first. */
function count(names: readonly string[]): [count: string, name: string][] {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([name, n]) => [String(n), name]);
}
