import { loadGraph } from '../../execution/load-graph.js';
import type { Decoder } from '../../onnx/decoder/decoder.js';
import { fuseNormalization } from '../../onnx/decoder/fuse-normalization.js';
import { keepLastPosition } from '../../onnx/decoder/last-position.js';
import type { Lift } from '../../onnx/decoder/lift.js';
import { type LiftOptions, liftAttention } from '../../onnx/decoder/lift-attention.js';
import { liftGroupQueryAttention } from '../../onnx/decoder/lift-group-query-attention.js';
import { liftTensorScatter } from '../../onnx/decoder/lift-tensor-scatter.js';
import { packQueries } from '../../onnx/decoder/pack-queries.js';
import type { ModelProto } from '../../onnx/format/model.js';
import { label, operatorName } from '../../onnx/graph/operators.js';

/** Operators that quantize activations by the largest and the least element of a whole tensor. */
const scaledByAll = new Set(['DynamicQuantizeLinear', 'com.microsoft.DynamicQuantizeMatMul']);

/**
 * Rewrites a decoder so that GroupQueryAttention updates its caches in place, and so that it computes the logits of the
 * last position only, with as few nodes as a decode step needs. The caller must check that it still computes the same.
 *
 * @throws (rejects) the errors of loading and running parts of the model
 */
export async function rewriteDecoder(
  model: ModelProto,
  decoder: Decoder,
  options: Omit<LiftOptions, 'loadPart'>,
): Promise<Lift> {
  const lifted = await lift(model, decoder, { ...options, loadPart });
  if (lifted.reason !== undefined) return lifted;
  const { graph } = lifted;
  const packed = packQueries(lifted.model);
  const fused = fuseNormalization(packed, graph);
  return { model: keepLastPosition(fused, graph), graph };
}

const loadPart: LiftOptions['loadPart'] = (part, { directory }) => loadGraph(part, { directory, threads: 1 });

/** Chooses the lift by the operators that the exporter wrote attention with. */
async function lift(model: ModelProto, decoder: Decoder, options: LiftOptions): Promise<Lift> {
  const dynamic = model.graph.node.find((node) => scaledByAll.has(operatorName(node)));
  if (dynamic) {
    return {
      reason: `${label(dynamic)} takes its scale from all rows and positions of a step: together, rows would change each other's answers`,
    };
  }
  const operators = new Set(model.graph.node.map(operatorName));
  if (operators.has('com.microsoft.GroupQueryAttention')) return liftGroupQueryAttention(model, decoder);
  if (operators.has('TensorScatter')) return liftTensorScatter(model, decoder, options);
  return liftAttention(model, decoder, options);
}
