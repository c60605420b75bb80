import { invalidArgType, TensorRTError } from '../base/errors.js';
import { type Bytes, bytesOf, checkPath } from '../base/options.js';
import { copied } from '../engine/calibration.js';
import { randomInputs } from '../execution/random-inputs.js';
import type { LowPrecision } from '../onnx/precision/low-type.js';
import { bisectCast } from './bisect.js';
import { castOf } from './cast-model.js';
import { compareLayers } from './compare-layers.js';
import type { SampleInputs } from './compare-options.js';
import {
  type CompareOptions,
  type CompareSettings,
  readCompareOptions,
  readSamples,
} from './compare-options.js';
import { type ComparedModel, readComparedModel } from './compared-model.js';
import type { ComparedInputs, Comparison } from './comparison.js';
import { findParting } from './find-parting.js';
import { ModelPair } from './model-pair.js';

/** A model's cast to 16 bits, by the rules of `castToFloat16` or `castToBfloat16` without measured ranges. */
export interface CastOf {
  precision: LowPrecision;
}

/** Random inputs are tried this many times, in different shapes. */
const randomSamples = 2;

/** See {@link CompareOptions.tolerance}. */
const tolerances: Readonly<Record<LowPrecision | 'fp32', number>> = {
  fp32: 1e-5,
  fp16: 2 ** -6,
  bf16: 2 ** -3,
};

/**
 * Compares two ONNX models on the CPU: their outputs, with `layers` the values inside and the node where they part, and
 * with `bisect` the nodes of a that a cast to 16 bits must leave in FP32. Models in FP16 and BF16 are simulated: every
 * value is computed in float32 and rounded, so that overflows show, which ONNX Runtime's own kernels hide.
 *
 * @param a the reference: the path of an ONNX file, or the bytes of a model without external data
 * @param b the other model; or `{ precision: 'fp16' }` or `{ precision: 'bf16' }` for a cast of a by this package
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO,
 *   ERR_LIBRARY_NOT_FOUND, ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY; RangeError ERR_INVALID_ARG_VALUE for models
 *   without common outputs, ERR_SHAPE_MISMATCH for outputs of other dimensions; TypeError ERR_INVALID_ARG_TYPE; the
 *   signal's reason
 * @example
 * ```js
 * import { compareModels } from 'node-tensorrt';
 *
 * const { agree, outputs, parted } = await compareModels('model.onnx', { precision: 'fp16' }, { layers: true });
 * for (const { name, relative, cosine } of outputs) console.log(name, relative, cosine);
 * console.log(agree ? 'they agree' : `they part at ${parted?.node}`);
 * ```
 */
export async function compareModels(
  a: string | Bytes,
  b: string | Bytes | CastOf,
  options: CompareOptions = {},
): Promise<Comparison> {
  const [first, second] = [readArgument(a, 'a'), isCast(b) ? readCast(b) : readArgument(b, 'b')];
  const settings = readCompareOptions(options);
  settings.signal?.throwIfAborted();
  const given = settings.inputs && (await readSamples(settings.inputs, copied));
  const reference = await readComparedModel('a', first);
  const cast = isCast(second) ? second.precision : undefined;
  const other = isCast(second)
    ? castOf(reference, second.precision, [])
    : await readComparedModel('b', second);
  return compare(reference, other, settings, given, cast);
}

async function compare(
  a: ComparedModel,
  b: ComparedModel,
  settings: CompareSettings,
  given: SampleInputs[] | undefined,
  cast: LowPrecision | undefined,
): Promise<Comparison> {
  const { seed, signal, bisect, layers, onProgress } = settings;
  const samples = given ?? randomSamplesOf(a, seed);
  const inputs: ComparedInputs = given
    ? { source: 'given', samples: samples.length }
    : { source: 'random', samples: samples.length, seed };
  const progress = (phase: string) => (step: number, steps: number) => onProgress?.({ phase, step, steps });
  const models = new ModelPair(a, b, samples, signal);
  const precision = lowest(a, b);
  const tolerance = settings.tolerance ?? tolerances[precision];

  const onOutputs = progress('Comparing outputs');
  onOutputs(0, 2);
  const { names, unpaired } = models.outputs;
  const references = await models.runWhole('a', [...names.keys()]);
  onOutputs(1, 2);
  const outputs = models.compareOutputs(references, await models.runWhole('b', [...names.values()]));
  onOutputs(2, 2);
  const total = outputs.reduce((most, { relative }) => Math.max(most, relative), 0);

  const found = layers ? await compareLayers(models, progress('Comparing layers')) : undefined;
  const parted =
    found &&
    (await findParting(models, found, { tolerance, references, total }, progress('Finding the node')));
  const matched = new Set(found?.pairs.map(({ node }) => node));
  return {
    precision: { a: a.precision, b: b.precision },
    inputs,
    tolerance,
    agree: total <= tolerance,
    outputs,
    unpaired,
    ...(found
      ? {
          layers: found.comparable.map(({ difference }) => difference),
          unmatched: found.a.computing
            .filter((node) => !matched.has(node))
            .map((node) => node.name || node.output[0] || node.opType),
          parted: parted!,
        }
      : {}),
    ...(bisect
      ? {
          bisect: await bisectCast(models, references, {
            ...bisect,
            precision: cast,
            onStep: progress('Bisecting'),
          }),
        }
      : {}),
  };
}

/** The lowest precision of two models. */
function lowest(a: ComparedModel, b: ComparedModel): LowPrecision | 'fp32' {
  const both = [a.precision, b.precision];
  return both.includes('bf16') ? 'bf16' : both.includes('fp16') ? 'fp16' : 'fp32';
}

function randomSamplesOf(model: ComparedModel, seed: number): SampleInputs[] {
  try {
    return [...randomInputs(model.given, { ...model.where, seed, samples: randomSamples })];
  } catch (error) {
    if (!(error instanceof TensorRTError)) throw error;
    throw new TensorRTError(error.code, error.message.replace('options.calibration', 'options.inputs'));
  }
}

/** Bytes are copied, because the caller may change them once the function has returned. */
function readArgument(model: unknown, name: 'a' | 'b'): string | Uint8Array {
  if (typeof model === 'string') {
    checkPath(model, name);
    return model;
  }
  const bytes = bytesOf(model, name);
  const more = name === 'b' ? " or { precision: 'fp16' }" : '';
  if (bytes === undefined) throw invalidArgType(name, `a path, a Uint8Array, an ArrayBuffer${more}`, model);
  return new Uint8Array(bytes);
}

function isCast(model: unknown): model is CastOf {
  return typeof model === 'object' && model !== null && 'precision' in model;
}

function readCast({ precision }: CastOf): CastOf {
  if (precision !== 'fp16' && precision !== 'bf16') {
    throw invalidArgType('b.precision', "'fp16' or 'bf16'", precision);
  }
  return { precision };
}
