import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { dataTypeFromOnnx, dataTypes } from '../../base/data-type.js';
import { TensorRTError } from '../../base/errors.js';
import type { Dims } from '../../base/tensor-like.js';
import { Engine, planByteLength } from '../../engine/engine.js';
import { type Ancestor, findAncestors } from '../../engine/engine-ancestors.js';
import { EngineCache } from '../../engine/engine-cache.js';
import { isEngineFile } from '../../engine/engine-file.js';
import type { EngineManifest, LayerInfo } from '../../engine/manifest.js';
import { importModel, type ModelImport } from '../../engine/model-import.js';
import { hashWeights } from '../../onnx/format/hash-weights.js';
import { isExternal, tensorSize } from '../../onnx/format/initializer.js';
import { parseModel, readModel } from '../../onnx/format/model-file.js';
import { graphInputs, type ValueType, valueType } from '../../onnx/graph/declared-values.js';
import { readWhole } from '../../system/files/file-range.js';
import { productOf } from '../../system/nvidia-support.js';
import { parseGpu } from './model-input.js';
import { bytes, castLines, print, table, UsageError, withFlags } from './output.js';

interface InspectFlags {
  model?: string;
  device?: string;
  layers: boolean;
  json: boolean;
}

/** `inspect FILE`: what an ONNX model or an engine file holds, and whether it is what it says it is. */
export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .description('show what an ONNX model or an engine file holds, and where an engine comes from')
    .argument('<file>', 'ONNX model or engine file')
    .option('--model <file>', 'of an engine, the ONNX model to compare with; default: that name beside it')
    .option('--device <device>', "of an ONNX model, the GPU on which TensorRT parses it, 'cuda:N'")
    .option('--layers', 'of an engine, list every layer', false)
    .option('--json', 'print one JSON document', false)
    .action(inspect);
}

async function inspect(file: string, flags: InspectFlags, command: Command): Promise<void> {
  const isEngine = isEngineFile(file) || path.extname(file) === '.engine';
  return isEngine ? inspectEngine(file, flags) : inspectModel(file, flags, command);
}

async function inspectEngine(file: string, flags: InspectFlags): Promise<void> {
  if (flags.device !== undefined)
    throw new UsageError('--device is for ONNX models: no GPU reads an engine.');
  const engine = await Engine.load(file);
  const { id, manifest, inputs, outputs, byteLength } = engine;
  const layers = (await engine.inspect()).map((layer) => ({ ...layer, ...layerSizes(layer) }));
  const folder = path.dirname(file);
  const verified = await verifyModel(manifest.model, flags.model, folder);
  const ancestors = await findAncestors(engine, [folder, new EngineCache().directory]);
  const planBytes = planByteLength(engine);
  const constantBytes = layers
    .filter(({ type }) => type === 'CONSTANT')
    .reduce((sum, layer) => sum + (layer.outputBytes ?? 0), 0);
  // Another model than the one that was named is what the caller wanted to know; one found beside it may be newer.
  if (flags.model !== undefined && verified && !verified.matches) process.exitCode = 1;
  if (flags.json) {
    const sizes = { byteLength, planBytes, constantBytes };
    const report = { file, id, ...sizes, manifest, model: verified, ancestors, inputs, outputs, layers };
    return print(JSON.stringify(report, null, 2));
  }
  const { library, targets, precision, model, created, options, warnings, lineage } = manifest;
  print(`${file}: engine, ${bytes(byteLength)}, checksum verified`);
  print(`id         ${id}`);
  print(
    `compiled   ${created} by ${productOf(library.flavour)} ${library.version} (node-tensorrt ${manifest.builder})`,
  );
  print(`for        ${targets.join(', ')}, ${precision}`);
  print(
    `from       ${model.name ?? 'bytes'}, SHA-256 ${model.sha256}${model.producer ? `, by ${model.producer}` : ''}`,
  );
  print(`weights    SHA-256 ${model.weightsSha256}`);
  if (verified) print(`model      ${verified.file} ${comparison(verified)}`);
  for (const ancestor of ancestors) print(`parent     ${ancestorText(ancestor)}`);
  if (lineage) print(`lineage    ${JSON.stringify(lineage)}`);
  if (manifest.cast) for (const line of castLines(manifest.cast)) print(line);
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
    // Of inputs and outputs, TensorRT's default, which this package leaves as it is; within, the compiler's choice.
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
    return print(table(['layer', 'type', 'precision', 'dims', 'size'], each));
  }
  const kinds = count(layers.map(({ type, precision }) => `${type}\t${precision}`));
  print(
    table(
      ['layers', 'type', 'precision'],
      kinds.map(([n, kind]) => [n, ...kind.split('\t')]),
    ),
  );
}

/** What a layer of the network puts out. */
function layerSizes({ outputs }: LayerInfo): { precision: string; outputBytes: number | null } {
  const sizes = outputs.map(({ type, dims }) =>
    // A dynamic size, or one of a type whose elements this package doesn't know.
    type === null || type === 'string' || dims.some((size) => size < 0)
      ? null
      : dims.reduce((product, size) => product * size, dataTypes[type].byteSize),
  );
  const known = sizes.every((size) => size !== null);
  return {
    precision: [...new Set(outputs.map(({ type }) => type ?? '?'))].join(', '),
    outputBytes: known ? sizes.reduce((sum, size) => sum + size, 0) : null,
  };
}

interface Verified {
  readonly file: string;
  /** Whether both hashes are those of the manifest. */
  readonly matches: boolean;
  readonly sha256Matches: boolean;
  readonly weightsMatch: boolean;
}

/** Compares the model that is named, else the one beside the engine, with the manifest's hashes. */
async function verifyModel(
  model: EngineManifest['model'],
  named: string | undefined,
  folder: string,
): Promise<Verified | null> {
  // A manifest's name is a name, whatever the file it comes from claims.
  const beside = model.name === undefined ? undefined : path.join(folder, path.basename(model.name));
  const file = named ?? beside;
  if (file === undefined || (named === undefined && !existsSync(file))) return null;
  const content = await readWhole(file, 'model');
  const sha256Matches = createHash('sha256').update(content).digest('hex') === model.sha256;
  const { graph } = parseModel(content);
  const weightsMatch = hashWeights(graph, { directory: path.dirname(file) }) === model.weightsSha256;
  return { file, matches: sha256Matches && weightsMatch, sha256Matches, weightsMatch };
}

function comparison({ sha256Matches, weightsMatch }: Verified): string {
  if (sha256Matches && weightsMatch) return 'is the model: its SHA-256 and that of its weights match';
  if (sha256Matches) return 'is the ONNX file, but its external data has other weights';
  return weightsMatch ? 'has the same weights in another graph' : 'is another model';
}

function ancestorText({ id, file, manifest }: Ancestor): string {
  if (!file || !manifest) return `${id}, not found beside the engine or in the cache`;
  return `${id}, ${file}, from ${manifest.model.name ?? 'bytes'}, ${manifest.created}, checksum verified`;
}

function shapeCell(dims: Dims): string {
  return dims.map((size) => (size === -1 ? '?' : size)).join('×');
}

async function inspectModel(file: string, flags: InspectFlags, command: Command): Promise<void> {
  if (flags.model !== undefined) throw new UsageError('--model is for engines: it is what one came from.');
  const device = flags.device === undefined ? undefined : parseGpu(flags.device);
  const { graph, irVersion, opsetImport, producerName, producerVersion } = await readModel(file);
  const report = {
    file,
    irVersion,
    opsets: Object.fromEntries(opsetImport.map(({ domain, version }) => [domain || 'ai.onnx', version])),
    producer: [producerName, producerVersion].filter(Boolean).join(' '),
    inputs: graphInputs(graph).map(value),
    outputs: graph.output.map(valueType).map(value),
    parameters: graph.initializer.reduce((sum, tensor) => sum + tensorSize(tensor), 0),
    weights: weightsByType(graph.initializer),
    externalData: graph.initializer.some(isExternal),
    operators: Object.fromEntries(
      count(graph.node.map(({ domain, opType }) => (domain ? `${domain}.${opType}` : opType))).map(
        ([n, type]) => [type, Number(n)],
      ),
    ),
  };
  const imported = await tryImport(file, device);
  if (flags.json) return print(JSON.stringify({ ...report, import: imported }, null, 2));
  const opsets = Object.entries(report.opsets).map(([domain, version]) => `${domain} ${version}`);
  print(`${file}: ONNX model, IR version ${irVersion}, operator sets ${opsets.join(', ')}`);
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
  for (const line of importLines(imported)) print(withFlags(line, command));
}

type Import =
  | (Omit<ModelImport, 'network'> & { readonly layers: number | null })
  | { readonly error: { readonly code: string; readonly message: string } };

/** A real parse by TensorRT's parser; where it can't be had, why. */
async function tryImport(file: string, device: number | undefined): Promise<Import> {
  try {
    const { network, ...rest } = await importModel(file, device === undefined ? {} : { device });
    return { ...rest, layers: network?.layers.length ?? null };
  } catch (error) {
    if (!(error instanceof TensorRTError)) throw error;
    return { error: { code: error.code, message: error.message } };
  }
}

function importLines(imported: Import): string[] {
  if ('error' in imported) {
    return [`whether TensorRT imports it is not known: ${imported.error.code}: ${imported.error.message}`];
  }
  const { library, layers, failures, unchecked } = imported;
  const parser = `${productOf(library.flavour)} ${library.version}`;
  if (layers !== null) return [`${parser} imports it: a network of ${layers} layers`];
  const rows = failures.map(({ node, operator, reason }) => [node, operator, reason]);
  return [
    `${parser} can't import it:`,
    table(['node', 'operator', 'reason'], rows),
    ...(unchecked.length > 0
      ? [`not checked, as they need what these compute: ${unchecked.length} nodes, from ${unchecked[0]} on`]
      : []),
  ];
}

/** As JSON has it. */
function value({ name, type, shape }: ValueType) {
  return { name, type: type ?? null, shape: shape ?? null };
}

type Weights = Record<string, { tensors: number; parameters: number }>;

function weightsByType(tensors: readonly Parameters<typeof tensorSize>[0][]): Weights {
  const weights: Weights = {};
  for (const tensor of tensors) {
    const type = dataTypeFromOnnx(tensor.dataType) ?? `ONNX type ${tensor.dataType}`;
    weights[type] ??= { tensors: 0, parameters: 0 };
    weights[type].tensors++;
    weights[type].parameters += tensorSize(tensor);
  }
  return weights;
}

/** How often each name occurs, most often first. */
function count(names: readonly string[]): [count: string, name: string][] {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([name, n]) => [String(n), name]);
}
