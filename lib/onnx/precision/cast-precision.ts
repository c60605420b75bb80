import type { GraphProto, ModelProto } from '../format/model.js';
import { operatorName } from '../graph/operators.js';
import { standardOpset, subgraphs } from '../graph/traverse.js';
import { type CastBfloat16Report, type CastFloat16Report, castReport, countLow } from './cast-report.js';
import { type CastOptions, choosePrecision } from './choose-precision.js';
import { GraphFacts } from './graph-facts.js';
import { type LowPrecision, lowTypes } from './low-type.js';
import { settleByCasts } from './settle-by-casts.js';
import { WeightRounding } from './weight-rounding.js';
import { writeCasts } from './write-casts.js';

/**
 * Casts a model to mixed precision by the rules of ModelOpt's AutoCast. Everything computes in FP16, except:
 *
 * - sums over many elements, powers and exponentials (softmax, normalisations, reductions …), unknown operators and
 *   bodies of control flow;
 * - nodes with weights beyond ±65504, nodes with an input or output that reached more than `maxValue` in
 *   `options.ranges`, and nodes whose numbers are so small or so close together that FP16 has few bits for them;
 * - the last product before an output named logits, because greedy decoding compares numbers there that FP16 makes
 *   equal, and the table with a row for each logit, because every layer's sums start from it;
 * - values cast from 32- or 64-bit integers (positions, which FP16 holds exactly only up to 2048), squares, and
 *   products of dequantized values;
 * - nodes that `options.keepFp32` names;
 * - nodes whose neighbours are in FP32, if casting them would add more casts than it saves. Of all assignments that put
 *   every eligible product in FP16, this one has the fewest casts.
 *
 * The graph's inputs and outputs stay as they are. The given model isn't changed; weights that need no conversion are
 * shared with it. Without ranges, only products, element-wise nodes after them and embedding tables are cast.
 *
 * @throws TensorRTError ERR_MODEL_INVALID, ERR_MODEL_NOT_FOUND or ERR_IO for weights that can't be read
 * @example
 * ```js
 * import { castToFloat16, measureRanges, readModel, writeModel } from 'node-tensorrt/onnx';
 *
 * const model = await readModel('model.onnx');
 * const cast = castToFloat16(model, { ranges: await measureRanges(model), keepFp32: ['Softmax*'] });
 * console.log(cast.report.float16, cast.report.kept);
 * await writeModel(cast.model, 'model-fp16.onnx');
 * ```
 */
export function castToFloat16(
  model: ModelProto,
  options: CastOptions = {},
): { model: ModelProto; report: CastFloat16Report } {
  const { graph, counts, report } = cast(model, 'fp16', options);
  // Before version 4 of the format, weights also had to be inputs. The weights added here aren't inputs.
  const irVersion = Math.max(model.irVersion, 4);
  return { model: { ...model, irVersion, graph }, report: { ...report, float16: counts } };
}

/**
 * Casts a model to BF16 in the way that {@link castToFloat16} casts it to FP16. BF16 has float32's range and 8 bits of
 * precision, so measured ranges don't matter. If the meaning of its operators doesn't change, the model is raised to
 * operator set 22, which has BF16 in convolutions and pooling; otherwise, operators that lack BF16 in the model's own
 * set stay in FP32.
 *
 * @throws the errors of {@link castToFloat16}
 */
export function castToBfloat16(
  model: ModelProto,
  options: Omit<CastOptions, 'ranges' | 'maxValue'> = {},
): { model: ModelProto; report: CastBfloat16Report } {
  const newer = withOpset22(model);
  const { graph, counts, report } = cast(newer, 'bf16', options);
  return { model: { ...newer, graph }, report: { ...report, bfloat16: counts } };
}

function cast(model: ModelProto, precision: LowPrecision, options: CastOptions) {
  const type = lowTypes[precision];
  const facts = new GraphFacts(model, options);
  const rounding = new WeightRounding(facts, type);
  const choices = settleByCasts(choosePrecision(facts, rounding, type, options), facts, type);
  const written = writeCasts(facts, rounding, type, choices);
  const report = castReport(choices, precision, options.ranges, written);
  return { graph: written.graph, counts: countLow(choices), report };
}

/** Operators whose meaning changed between operator sets 18 and 22 (https://onnx.ai/onnx/operators/). */
const changedBefore22 = new Set(['DFT', 'GridSample', 'GroupNormalization']);

/** The version of the file format that came with operator set 22 (onnx/helper.py, VERSION_TABLE). */
const irVersion22 = 10;

function withOpset22(model: ModelProto): ModelProto {
  const opset = standardOpset(model);
  const irVersion = Math.max(model.irVersion, irVersion22);
  const changes = (graph: GraphProto): boolean =>
    graph.node.some((node) => changedBefore22.has(operatorName(node)) || subgraphs(node).some(changes));
  if (opset < 18 || opset >= 22 || changes(model.graph)) {
    return { ...model, irVersion: Math.max(model.irVersion, 4) };
  }
  const opsetImport = model.opsetImport.map((entry) =>
    !entry.domain || entry.domain === 'ai.onnx' ? { ...entry, version: 22 } : entry,
  );
  return { ...model, irVersion, opsetImport };
}
