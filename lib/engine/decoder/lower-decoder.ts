import type { DecoderGraph } from '../../base/decoder-graph.js';
import { uniformNumbers } from '../../base/random.js';
import { Tensor } from '../../execution/tensor.js';
import { withLogitsIndex } from '../../onnx/decoder/last-position.js';
import { cacheType, type LowerAttentionOptions, lowerAttention } from '../../onnx/decoder/lower-attention.js';
import { addTopKHead } from '../../onnx/decoder/top-k-head.js';
import type { FloatType } from '../../onnx/format/float-tensor.js';
import type { ExternalDataOptions } from '../../onnx/format/initializer.js';
import type { ModelProto } from '../../onnx/format/model.js';
import { valueType } from '../../onnx/graph/declared-values.js';
import { raiseOpset } from '../../onnx/graph/raise-opset.js';
import { isMatMulNBits, lowerMatMulNBits } from '../../onnx/passes/lower-matmul-nbits.js';
import { lowerNormalization } from '../../onnx/passes/lower-normalization.js';
import { castToBfloat16, castToFloat16 } from '../../onnx/precision/cast-precision.js';
import type { CastBfloat16Report, CastFloat16Report } from '../../onnx/precision/cast-report.js';
import { defaultMaxValue } from '../../onnx/precision/range-rule.js';
import type { Ranges } from '../../onnx/precision/ranges.js';
import { type Feeds, measureRanges } from '../measure-ranges.js';

/** How to lower a decoder. */
export interface LowerDecoderOptions extends ExternalDataOptions {
  /** The attention that the compiling TensorRT has: see {@link LowerAttentionOptions}. */
  readonly attention: LowerAttentionOptions['attention'];
  /** Tokens that a row of the cache holds. */
  readonly capacity: number;
  /** How many tokens of a row are used. Defaults to `capacity`. */
  readonly length?: number;
  /** The types to compute in. */
  readonly precision: 'fp32' | 'fp16' | 'bf16';
  /** The type of caches and attention. 'auto' is that of `precision`, if the values of keys and values allow it. */
  readonly cache: 'auto' | 'fp16' | 'fp32';
  /** Nodes that stay in FP32, by name or operator type. Defaults to none. */
  readonly keepFp32?: readonly string[];
}

/** A decoder that TensorRT compiles. */
export interface LoweredDecoder {
  /** The rewritten model. */
  readonly model: ModelProto;
  /** The way in which it is driven. */
  readonly graph: DecoderGraph;
  /** The type of its caches. */
  readonly cacheType: FloatType;
  /** With 'fp16' and 'bf16': the type that every node got, and why. */
  readonly cast?: CastFloat16Report | CastBfloat16Report;
}

/** ONNX's operator set with TensorScatter and Attention up to a length. */
const opset = 24;

/** Keys, values and queries beyond this part of FP16's maximum, 65504, may exceed it with other tokens. */
const safeFloat16 = 65504 / 16;

/** The lengths of the random prompts that ranges are measured with. */
const sampleLengths = [8, 33];

/**
 * Lowers a decoder to what TensorRT compiles: caches of fixed capacity that its KV-cache layers update, int4 weights,
 * 16-bit precision, an input that says whose logits are wanted, and the best logits of each row as outputs. The decoder's
 * attention must be GroupQueryAttention, updated in place, and its logits the last position's: see `rewriteDecoder`.
 *
 * @throws (rejects) TensorRTError ERR_MODEL_UNSUPPORTED, which names the node and the reason; what `measureRanges` rejects
 *   with
 */
export async function lowerDecoder(
  lifted: ModelProto,
  decoder: DecoderGraph,
  options: LowerDecoderOptions,
): Promise<LoweredDecoder> {
  const { precision, cache, capacity, length = capacity, attention, keepFp32 = [], ...where } = options;
  const { model, graph } = withLogitsIndex(lifted, decoder, where);
  const own = cacheType(model, graph);
  const standard = lowerNormalization(raiseOpset(model, opset), own);
  const attend = (given: ModelProto, form: LowerAttentionOptions['attention'], type: FloatType) =>
    lowerAttention(given, graph, { attention: form, capacity, length, type });

  // This graph has values of the same names, and ONNX Runtime can run it: it has MatMulNBits.
  const measured = async () => {
    const runnable = attend(standard, 'mask', 'float32');
    const calibration = samples(runnable.model, runnable.graph);
    const { values } = await measureRanges(runnable.model, { ...where, calibration });
    const report = { source: 'random', samples: sampleLengths.length, seed: 0 } as const;
    return { ranges: { report, values }, runnable: runnable.model };
  };
  // A model that was exported in 16 bits stays as it is.
  const casts = own === 'float32' && precision !== 'fp32';
  const low = casts ? ({ fp16: 'float16', bf16: 'bfloat16' } as const)[precision] : own;
  const measurement = low === 'float16' && casts ? await measured() : undefined;
  const ownType = cache === 'auto' ? low : cache === 'fp16' ? 'float16' : 'float32';
  const isTooLarge = cache === 'auto' && measurement !== undefined && attentionOverflows(measurement);
  const type = isTooLarge ? 'float32' : ownType;
  const exact = exactProducts(standard, graph.logits, measurement?.ranges);
  const lowered = attend(
    lowerMatMulNBits(standard, { ...where, from: own, type: low, exact }),
    attention,
    type,
  );
  const cast = measurement
    ? castToFloat16(lowered.model, { ...where, keepFp32, ranges: measurement.ranges })
    : casts
      ? castToBfloat16(lowered.model, { ...where, keepFp32 })
      : undefined;
  const headed = addTopKHead(cast?.model ?? lowered.model, lowered.graph);
  return { ...headed, cacheType: type, ...(cast ? { cast: cast.report } : {}) };
}

/** Does what goes into attention come near the largest number of FP16? */
function attentionOverflows({ ranges, runnable }: { ranges: Ranges; runnable: ModelProto }): boolean {
  const names = runnable.graph.node.flatMap(({ opType, input, output }) =>
    opType === 'TensorScatter' ? [input[1]!] : opType === 'Attention' ? [input[0]!, output[0]!] : [],
  );
  return names.some((name) => {
    const range = ranges.values.get(name);
    return range !== undefined && Math.max(-range.least, range.most) > safeFloat16;
  });
}

/**
 * Lists the outputs of quantized products that aren't rounded: products that make the logits, which are compared with
 * each other, and products that `castToFloat16` would leave in FP32 because of the size of their values.
 */
function exactProducts(
  { graph: { node } }: ModelProto,
  logits: string,
  ranges: Ranges | undefined,
): Set<string> {
  const exact = new Set<string>();
  const makers = new Map(node.flatMap((each) => each.output.map((name) => [name, each] as const)));
  let last = makers.get(logits);
  while (last && !isMatMulNBits(last)) last = makers.get(last.input[0] ?? '');
  if (last) exact.add(last.output[0]!);
  for (const { input, output } of node.filter(isMatMulNBits)) {
    const isLarge = [input[0]!, output[0]!].some((name) => {
      const range = ranges?.values.get(name);
      return range !== undefined && Math.max(-range.least, range.most) > defaultMaxValue;
    });
    if (isLarge) exact.add(output[0]!);
  }
  return exact;
}

/** Prompts of random tokens, into an empty cache. */
function* samples({ graph: { input, output } }: ModelProto, graph: DecoderGraph): Generator<Feeds> {
  const logits = output.find(({ name }) => name === graph.logits)!;
  const vocabulary = Number(valueType(logits).shape?.at(-1)) || 1;
  const uniform = uniformNumbers(0);
  for (const length of sampleLengths) {
    const sizes: Record<string, number> = { rows: 1, new: length };
    const step = Array.from({ length }, (_, i) => i);
    const values = {
      input_ids: step.map(() => Math.floor(uniform() * vocabulary)),
      position_ids: step,
      past_lengths: [0],
      total_lengths: [length],
      last_indices: [length - 1],
      longest: [length],
      logits_index: [length - 1],
      attention_mask: step.map(() => 1),
    };
    yield Object.fromEntries(
      input.map((each) => {
        const { name, type, shape } = valueType(each);
        const dims = shape!.map((dim) => (typeof dim === 'number' ? dim : sizes[dim]!));
        const role = graph.inputs[name];
        if (!role)
          return [name, new Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b, 1)), dims)];
        const data =
          type === 'int32' ? Int32Array.from(values[role]) : BigInt64Array.from(values[role], BigInt);
        return [name, new Tensor(type!, data, dims)];
      }),
    );
  }
}
