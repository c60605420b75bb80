import path from 'node:path';
import type { Command } from 'commander';
import { dataTypeFromOnnx } from '../data-type.js';
import { Engine, isEngineFile } from '../engine.js';
import { productOf } from '../nvidia-support.js';
import { isExternal, tensorSize } from '../onnx/initializer.js';
import { readModel } from '../onnx/model.js';
import type { Dims } from '../tensor.js';
import { bytes, castLines, print, table } from './output.js';

/** `inspect FILE`: what an ONNX model or an engine file holds. */
export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .description('show what an ONNX model or an engine file holds')
    .argument('<file>', 'ONNX model or engine file')
    .option('--json', 'print one JSON document', false)
    .action(inspect);
}

async function inspect(file: string, flags: { json: boolean }): Promise<void> {
  const isEngine = isEngineFile(file) || path.extname(file) === '.engine';
  return isEngine ? inspectEngine(file, flags.json) : inspectModel(file, flags.json);
}

async function inspectEngine(file: string, json: boolean): Promise<void> {
  const engine = await Engine.load(file);
  const { manifest, inputs, outputs, byteLength } = engine;
  const layers = await engine.inspect();
  if (json) return print(JSON.stringify({ file, byteLength, manifest, inputs, outputs, layers }, null, 2));
  const { library, targets, precision, model, created, options, warnings } = manifest;
  print(`${file}: engine, ${bytes(byteLength)}, checksum verified`);
  print(
    `compiled   ${created} by ${productOf(library.flavour)} ${library.version} (node-tensorrt ${manifest.builder})`,
  );
  print(`for        ${targets.join(', ')}, ${precision}`);
  print(
    `from       ${model.name ?? 'bytes'}, SHA-256 ${model.sha256}${model.producer ? `, by ${model.producer}` : ''}`,
  );
  if (manifest.cast) for (const line of castLines(manifest.cast)) print(line);
  if (Object.keys(options).length > 0) print(`options    ${JSON.stringify(options)}`);
  for (const warning of warnings) print(`warning    ${warning}`);
  print('');
  const range = (dims: Dims) => dims.join('×');
  const rows = [...inputs, ...outputs].map(({ name, type, dims, profiles }, i) => [
    i < inputs.length ? 'input' : 'output',
    name,
    type ?? '?',
    dims.map((size) => (size === -1 ? '?' : size)).join('×'),
    profiles.map(({ min, opt, max }) => [min, opt, max].map(range).join(' to ')).join('; '),
  ]);
  print(table(['', 'name', 'type', 'dims', 'profiles'], rows));
  print('');
  print(table(['layers', 'type'], count(layers.map((layer) => layer.type))));
}

async function inspectModel(file: string, json: boolean): Promise<void> {
  const { graph, irVersion, opsetImport, producerName, producerVersion } = await readModel(file);
  const weights = new Set(graph.initializer.map((tensor) => tensor.name));
  const values = (list: typeof graph.input) =>
    list.map(({ name, type }) => {
      const tensor = type?.tensorType;
      return {
        name,
        type: dataTypeFromOnnx(tensor?.elemType ?? 0) ?? null,
        shape: tensor?.shape?.dim.map((dim) => dim.dimValue ?? dim.dimParam ?? '') ?? null,
      };
    });
  const report = {
    file,
    irVersion,
    opsets: Object.fromEntries(opsetImport.map(({ domain, version }) => [domain || 'ai.onnx', version])),
    producer: [producerName, producerVersion].filter(Boolean).join(' '),
    inputs: values(graph.input.filter(({ name }) => !weights.has(name))),
    outputs: values(graph.output),
    parameters: graph.initializer.reduce((sum, tensor) => sum + tensorSize(tensor), 0),
    weights: weightsByType(graph.initializer),
    externalData: graph.initializer.some(isExternal),
    operators: Object.fromEntries(
      count(graph.node.map(({ domain, opType }) => (domain ? `${domain}.${opType}` : opType))).map(
        ([n, type]) => [type, Number(n)],
      ),
    ),
  };
  if (json) return print(JSON.stringify(report, null, 2));
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
