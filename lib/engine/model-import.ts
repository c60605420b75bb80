import path from 'node:path';
import { checkExternalData } from '../onnx/format/initializer.js';
import type { GraphProto, ModelProto, NodeProto } from '../onnx/format/model.js';
import { readModel, writeModel } from '../onnx/format/model-file.js';
import { captured, subgraphs } from '../onnx/graph/traverse.js';
import { scratchDirectory } from '../system/files/temporary-directory.js';
import { absolutePath } from '../system/files/working-directory.js';
import { findGpu, numberOf } from '../system/gpu.js';
import type { NativeParseResult } from '../system/native/plan-builder.js';
import { native } from '../system/native.js';
import type { Flavour } from '../system/nvidia-support.js';
import { findTensorRT } from '../system/tensorrt-library.js';
import { type LayerInfo, type TensorInfo, tensorInfo } from './manifest.js';
import { adaptToParser, misreadNodes, misreadReason } from './tensorrt-parser.js';

/** A node that TensorRT can't import. */
export interface ImportFailure {
  /** The node's name; '' if it has none, or if the reason doesn't concern one node. */
  readonly node: string;
  /** e.g. 'com.microsoft.GroupQueryAttention'; '' if the reason doesn't concern one node. */
  readonly operator: string;
  /** The reason, as a sentence. */
  readonly reason: string;
}

/** The result of importing an ONNX model with TensorRT's parser. */
export interface ModelImport {
  readonly library: { readonly flavour: Flavour; readonly version: string };
  /** The network that TensorRT would compile; null if a node can't be imported. */
  readonly network: {
    readonly inputs: readonly TensorInfo[];
    readonly outputs: readonly TensorInfo[];
    readonly layers: readonly LayerInfo[];
  } | null;
  /** Every node that can't be imported, except those in `unchecked`. */
  readonly failures: readonly ImportFailure[];
  /**
   * Nodes that could not be checked, since they need the output of a failing node and the model doesn't record its
   * shape. Given by name, or by output if unnamed.
   */
  readonly unchecked: readonly string[];
}

/**
 * Parses an ONNX file with TensorRT's own parser, since the parser's list of supported operators promises too much. The
 * parser stops at the first node whose attributes or inputs it can't use, so it is run again without the failed nodes
 * until no others fail.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_LIBRARY_NOT_FOUND,
 *   ERR_LIBRARY_UNSUPPORTED, ERR_NO_GPU (TensorRT needs a GPU to parse; TensorRT-RTX doesn't), ERR_OUT_OF_MEMORY; the
 *   signal's reason
 */
export async function importModel(
  file: string,
  options: {
    libraryPath?: string;
    runtime?: 'auto' | 'tensorrt' | 'tensorrt-rtx';
    /** CUDA's number of the GPU that TensorRT parses on; TensorRT-RTX needs none. Default: the first. */
    device?: number;
    signal?: AbortSignal;
  } = {},
): Promise<ModelImport> {
  const { libraryPath, runtime = 'auto', device, signal } = options;
  if (device !== undefined) await findGpu(device);
  const here = (await native().probeCuda()).gpus[device ?? 0];
  const gpu = here && numberOf(here);
  const targets = gpu === undefined ? [] : [gpu];
  const library = await findTensorRT({ libraryPath, runtime, targets, gpu });
  const modelPath = absolutePath(file);
  const on = device === undefined || library.capabilities.aheadOfTime ? {} : { device };
  const parse = async (model: string): Promise<NativeParseResult> => {
    signal?.throwIfAborted();
    const parsed = await native().parseModel({ library: library.path, model, modelPath, ...on });
    signal?.throwIfAborted();
    return parsed;
  };
  const { flavour, version } = library;
  const model = await readModel(file);
  const folder = path.dirname(modelPath);
  checkExternalData(model, { directory: folder });
  const { isAdapted } = adaptToParser(model, folder);
  const { errors, layers, inputs, outputs } = isAdapted
    ? await parseWritten(model, parse)
    : await parse(modelPath);
  const misread = misreadNodes(model.graph);
  if (errors.length > 0 || misread.length > 0) {
    const { failures, unchecked } = await findFailures(model, errors, parse);
    const wrong = misread.map(({ name = '' }) => ({
      node: name,
      operator: 'Attention',
      reason: misreadReason,
    }));
    return { library: { flavour, version }, network: null, failures: [...failures, ...wrong], unchecked };
  }
  const network = {
    inputs: inputs.map(tensorInfo),
    outputs: outputs.map(tensorInfo),
    layers: layers.map((layer) => ({ ...layer, outputs: layer.outputs.map(tensorInfo) })),
  };
  return { library: { flavour, version }, network, failures: [], unchecked: [] };
}

/** Parses a model that isn't in a file yet. */
async function parseWritten(
  model: ModelProto,
  parse: (file: string) => Promise<NativeParseResult>,
): Promise<NativeParseResult> {
  const directory = await scratchDirectory();
  try {
    const file = path.join(directory.path, 'model.onnx');
    await writeModel(model, file);
    return await parse(file);
  } finally {
    await directory.remove();
  }
}

/** Finds the nodes that fail besides those that the parser named first. */
async function findFailures(
  model: ModelProto,
  errors: readonly ParserError[],
  parse: (model: string) => Promise<NativeParseResult>,
): Promise<Pick<ModelImport, 'failures' | 'unchecked'>> {
  const failed = new Map<NodeProto, ImportFailure>();
  const others: ImportFailure[] = [];
  let graph = model.graph;
  for (let found = errors; found.length > 0; ) {
    const before = failed.size;
    for (const error of found) {
      const node = failingNode(graph, error);
      const domain = node?.opType === error.op && node.domain ? `${node.domain}.` : '';
      const failure = { node: error.name, operator: domain + error.op, reason: error.reason };
      if (!node) others.push(failure);
      else if (!failed.has(node)) failed.set(node, failure);
    }
    // The errors don't name a node that could be left out, so nothing more can be found.
    if (failed.size === before) break;
    graph = withoutNodes(model.graph, failed);
    if (graph.node.length === 0) break;
    found = (await parseWritten({ ...model, graph }, parse)).errors;
  }
  const checked = new Set(graph.node);
  return {
    failures: [...model.graph.node.flatMap((node) => failed.get(node) ?? []), ...others],
    unchecked: model.graph.node
      .filter((node) => !checked.has(node) && !failed.has(node))
      .map(({ name, output }) => name || (output[0] ?? '')),
  };
}

type ParserError = NativeParseResult['errors'][number];

/** The graph's node that an error concerns, or that contains the node it concerns. */
function failingNode(graph: GraphProto, { node: index, name, op }: ParserError): NodeProto | undefined {
  const matches = (node: NodeProto) => (node.name ?? '') === name && node.opType === op;
  const at = graph.node[index];
  if (at && matches(at)) return at;
  const holds = (node: NodeProto): boolean =>
    subgraphs(node).some((body) => body.node.some((inner) => matches(inner) || holds(inner)));
  return graph.node.find(matches) ?? graph.node.find(holds);
}

/**
 * The graph without some nodes. Their outputs become inputs if the model records type and shape; otherwise the nodes
 * that need them are removed too.
 */
function withoutNodes(graph: GraphProto, removed: ReadonlyMap<NodeProto, unknown>): GraphProto {
  const recorded = new Map(graph.valueInfo.map((value) => [value.name, value]));
  const input = [...graph.input];
  const gone = new Set<string>();
  const lost = new Set<string>();
  const node = graph.node.filter((candidate) => {
    const isLost = [...candidate.input, ...captured(candidate)].some((name) => lost.has(name));
    if (!isLost && !removed.has(candidate)) return true;
    for (const name of candidate.output.filter((output) => output !== '')) {
      gone.add(name);
      const value = recorded.get(name);
      if (value?.type?.tensorType?.shape) input.push(value);
      else lost.add(name);
    }
    return false;
  });
  return { ...graph, input, node, output: graph.output.filter(({ name }) => !gone.has(name)) };
}
