import { TensorRTError } from '../base/errors.js';
import { copied } from '../engine/calibration.js';
import { randomInputs } from '../execution/random-inputs.js';
import type { LowPrecision } from '../onnx/precision/low-type.js';
import { bisectCast } from './bisect.js';
import { castOf } from './cast-model.js';
import { compareLayers } from './compare-layers.js';
import { type CompareSettings, readSamples, type SampleInputs } from './compare-options.js';
import { type ComparedModel, readComparedModel } from './compared-model.js';
import type { ComparedInputs, Comparison } from './comparison.js';
import { findParting } from './find-parting.js';
import { ModelPair } from './model-pair.js';

/** Random inputs are tried this many times, in different shapes. */
const randomSamples = 2;

/** See {@link CompareOptions.tolerance}. */
const tolerances: Readonly<Record<LowPrecision | 'fp32', number>> = {
  fp32: 1e-5,
  fp16: 2 ** -6,
  bf16: 2 ** -3,
};

/**
 * Implements `compareModels`.
 * @throws as it does
 */
export async function compareGiven(
  reference: string | Uint8Array,
  other: string | Uint8Array | { precision: LowPrecision },
  settings: CompareSettings,
): Promise<Comparison> {
  const given = settings.inputs && (await readSamples(settings.inputs, copied));
  const a = await readComparedModel('a', reference);
  const cast = typeof other === 'object' && 'precision' in other ? other.precision : undefined;
  const b = cast ? castOf(a, cast, []) : await readComparedModel('b', other as string | Uint8Array);
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
