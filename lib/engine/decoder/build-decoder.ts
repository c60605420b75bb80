import type { DecoderGraph } from '../../base/decoder-graph.js';
import { TensorRTError } from '../../base/errors.js';
import { buildEngineOn } from '../build-engine-on.js';
import type { BuildSettings } from '../build-options.js';
import type { Engine } from '../engine.js';
import type { LowerDecoderOptions } from './lower-decoder.js';

/** A decoder to compile for TensorRT. */
export interface DecoderBuildRequest {
  /** The ONNX file with lifted attention, as `prepareDecoder` returns it. */
  readonly file: string;
  readonly graph: DecoderGraph;
  /** A sentence: if the cache isn't updated in place, the reason. */
  readonly why: string;
  /** Tokens per row. The plan's fixed capacity may be a few more. */
  readonly capacity: number;
  /** The most rows that decode together. */
  readonly rows: number;
  /** The most prompt tokens that one step reads. */
  readonly chunkSize: number;
  /**
   * The element type of the caches and of attention. 'auto': the precision's type, if the range of keys and values
   * allows it.
   */
  readonly cache: LowerDecoderOptions['cache'];
  /** The plan records each layer's inputs and outputs for native's `inspectPlan`. Default false. */
  readonly detailed?: boolean;
}

/**
 * Compiles a decoder with TensorRT's KV-cache layers into an engine with two profiles: rows that each decode one token,
 * and one row that reads a chunk of its prompt. All work is done on other threads. The cache's memory must be
 * initialised with finite numbers, for example zeros: masked values are multiplied by zero, which doesn't remove a NaN.
 *
 * @param ordinal CUDA's number of the GPU; undefined for `options.target`
 * @throws (rejects) the errors of `buildEngine`; TensorRTError ERR_MODEL_UNSUPPORTED if the cache can't be updated in
 *   place, or with the node that TensorRT can't run and the reason; ERR_LIBRARY_UNSUPPORTED for a TensorRT without
 *   KV-cache layers
 */
export async function buildDecoder(
  ordinal: number | undefined,
  { file, graph, why, capacity, rows, chunkSize, cache, detailed }: DecoderBuildRequest,
  settings: Omit<BuildSettings, 'shapes' | 'calibration'>,
): Promise<{ engine: Engine; graph: DecoderGraph }> {
  if (graph.mode !== 'in-place') {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `TensorRT only runs decoders whose cache can be updated in place. ${why}`,
    );
  }
  const tokens = Object.keys(graph.inputs).find((name) => graph.inputs[name] === 'input_ids')!;
  const most = Math.min(chunkSize, capacity);
  // The dimensions of all other inputs have the same names.
  const shapes = [
    { [tokens]: { min: [1, 1], opt: [rows, 1], max: [rows, 1] } },
    { [tokens]: { min: [1, 1], opt: [1, most], max: [1, most] } },
  ];
  const lowering = { graph, capacity: alignedCapacity(graph, capacity), length: capacity, cache, detailed };
  const engine = await buildEngineOn(
    ordinal,
    file,
    { ...settings, shapes, calibration: undefined },
    lowering,
  );
  return { engine, graph: engine.manifest.decoder! };
}

/**
 * Rows are bound at their place in the cache, and each must begin at a multiple of 256 bytes
 * (IExecutionContext::setTensorAddress).
 */
function alignedCapacity({ caches }: DecoderGraph, capacity: number): number {
  const alignment = 256;
  const smallestElement = 2;
  let step = 1;
  for (const { kvHeads, headDim } of caches) {
    while ((step * kvHeads * headDim * smallestElement) % alignment !== 0) step *= 2;
  }
  return Math.ceil(capacity / step) * step;
}
