// Constructs that TensorRT's ONNX parser handles differently from the standard. Where possible they are adapted;
// otherwise they are refused by name.

import { TensorRTError } from '../base/errors.js';
import { straightenLocations } from '../onnx/format/initializer.js';
import type { GraphProto, ModelProto, NodeProto } from '../onnx/format/model.js';
import { subgraphs } from '../onnx/graph/traverse.js';
import { completeLoops } from '../onnx/passes/complete-loops.js';

/**
 * Rewrites, in place, constructs that TensorRT's parser handles differently from the standard.
 * @param directory the folder of its external data
 * @returns whether anything was rewritten, and whether a loop has no trip count
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED, ERR_MODEL_INVALID
 */
export function adaptToParser(
  model: ModelProto,
  directory: string | undefined,
): { isAdapted: boolean; isUnbounded: boolean } {
  const isStraightened = directory !== undefined && straightenLocations(model, directory);
  const { isChanged, isUnbounded } = completeLoops(model);
  return { isAdapted: isStraightened || isChanged, isUnbounded };
}

/**
 * Refuses constructs for which TensorRT's own errors don't name the cause and sometimes not even the input.
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED
 */
export function refuseWhatTensorRTCannotName(graph: GraphProto): void {
  for (const { name, type } of graph.input) {
    if (type && !type.tensorType) {
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `The input "${name}" is not a tensor, and TensorRT only takes tensors.`,
      );
    }
    if (type?.tensorType && !type.tensorType.shape) {
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `The input "${name}" has no shape: TensorRT needs its rank.`,
      );
    }
    if (graph.output.some((output) => output.name === name)) {
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `"${name}" is an input and an output at once, which TensorRT can't tell apart: put an Identity node between them.`,
      );
    }
  }
}

/**
 * Refuses nodes without outputs. The standard requires an output; TensorRT's parser relies on it and crashes the
 * process.
 * @throws TensorRTError ERR_MODEL_INVALID
 */
export function requireOutputs(graph: GraphProto): void {
  for (const node of graph.node) {
    if (!node.output.some((name) => name !== '')) {
      throw new TensorRTError(
        'ERR_MODEL_INVALID',
        `The node "${node.name ?? ''}" (${node.opType}) has no output.`,
      );
    }
    for (const inner of subgraphs(node)) requireOutputs(inner);
  }
}

/**
 * Nodes that TensorRT's parser accepts but misreads. It ignores the seventh input of ONNX's Attention, the number of
 * keys per row, and attends to all keys (see its importer in onnx-tensorrt; TensorRT-RTX 1.7 does the same).
 */
export function misreadNodes(graph: GraphProto): NodeProto[] {
  return graph.node.flatMap((node) => [
    ...(node.opType === 'Attention' && !node.domain && node.input[6] ? [node] : []),
    ...subgraphs(node).flatMap(misreadNodes),
  ]);
}

export const misreadReason =
  "TensorRT's parser ignores nonpad_kv_seqlen and would attend to the whole cache. LanguageModel.load compiles " +
  'decoders with such a cache.';

/** @throws TensorRTError ERR_MODEL_UNSUPPORTED for nodes that the parser misreads */
export function refuseMisread(graph: GraphProto): void {
  const [node] = misreadNodes(graph);
  if (!node) return;
  throw new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `TensorRT can't run the node "${node.name || node.output[0]}" (Attention): ${misreadReason}`,
  );
}
