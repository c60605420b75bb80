import type { ModelProto } from '../onnx/format/model.js';
import { native } from '../system/native.js';
import { type Chosen, type FloatType, namesOf, recordOf, scored, unwantedReason } from './chosen-weight.js';
import { type InputNorms, measureInputNorms } from './input-norms.js';
import type { MaskModelSettings } from './mask-model-options.js';
import type { MaskSetContents, SkippedWeight } from './mask-set-contents.js';
import { findMlps, type Mlp, type NeuronTensor } from './mlps.js';
import { type ProductWeight, productWeights } from './prunable-weights.js';
import { finished, toSparseMask } from './sparse-mask.js';
import { withWeightBytes } from './weight-bytes.js';

/** A matrix of an MLP: one that makes the neurons, or one that they are multiplied by. */
interface Matrix extends NeuronTensor {
  readonly weight: Chosen;
  readonly isDown: boolean;
}

/**
 * Makes masks that drop whole neurons of a model's MLPs.
 * @throws (rejects) as `MaskSet.forModel`
 */
export async function maskNeurons(
  model: ModelProto,
  directory: string,
  settings: MaskModelSettings,
): Promise<MaskSetContents> {
  const { onProgress, signal, saliency, inputs } = settings;
  const { mlps, others } = findMlps(model.graph);
  const weights = new Map(productWeights(model.graph).map((weight) => [weight.tensor, weight]));
  const skipped: SkippedWeight[] = [...others].map(([weight, reason]) =>
    skippedWeight(weight, `it belongs to no MLP: ${reason}`),
  );
  const chosen = mlps.flatMap((mlp) => {
    const matrices = matricesOf(mlp, weights);
    const reasons = matrices.map(({ weight }) => unwantedReason(weight, settings));
    if (reasons.every((reason) => reason === undefined)) return [matrices];
    matrices.forEach(({ weight }, i) => {
      skipped.push(skippedWeight(weight, reasons[i] ?? 'options leave another matrix of its MLP out'));
    });
    return [];
  });
  const down = chosen.flat().filter(({ isDown }) => isDown);
  const norms: InputNorms =
    saliency === 'wanda'
      ? await measureInputNorms(
          model,
          down.map(({ weight }) => weight),
          inputs!,
          { directory, signal },
        )
      : new Map();
  const entries: MaskSetContents['entries'] = new Map();
  for (const [done, matrices] of chosen.entries()) {
    onProgress?.({ weight: matrices[0]!.weight.name, done, total: chosen.length });
    const kept = chooseNeurons(await scoresOf(matrices, norms, directory, signal), settings.density!);
    for (const { weight, axis, parts } of matrices) {
      signal?.throwIfAborted();
      const flags = new Uint8Array(parts * kept.length);
      for (let part = 0; part < parts; part++) flags.set(kept, part * kept.length);
      const { dims } = weight.tensor;
      const mask = toSparseMask(native().maskOfSlices(dims, axis, flags), dims);
      const record = await withWeightBytes(weight.tensor, weight.type, directory, (bytes) =>
        recordOf(weight, bytes),
      );
      entries.set(weight.name, { mask, weight: record });
    }
  }
  return { entries, skipped };
}

function skippedWeight({ name, tensor, readers }: ProductWeight, reason: string): SkippedWeight {
  return { weight: name, dims: tensor.dims, ...namesOf(readers), reason };
}

function matricesOf(
  { into, outOf }: Mlp,
  weights: ReadonlyMap<NeuronTensor['tensor'], ProductWeight>,
): Matrix[] {
  const matrix = (each: NeuronTensor, isDown: boolean): Matrix => {
    const weight = weights.get(each.tensor)!;
    const { axis } = weight.products[0]!;
    return { ...each, isDown, weight: { ...weight, type: weight.type as FloatType, axis } };
  };
  return [...into.map((each) => matrix(each, false)), ...outOf.map((each) => matrix(each, true))];
}

/** The score of each neuron: see `MaskModelOptions.structure`. */
async function scoresOf(
  matrices: readonly Matrix[],
  norms: InputNorms,
  directory: string,
  signal: AbortSignal | undefined,
): Promise<Float64Array> {
  const isWanda = norms.size > 0;
  let scores: Float64Array | undefined;
  for (const { weight, axis, parts } of matrices.filter(({ isDown }) => isDown || !isWanda)) {
    const sums = await withWeightBytes(weight.tensor, weight.type, directory, (bytes) =>
      finished(
        native().sliceSums({ tensor: scored(weight, bytes, norms), axis, norm: isWanda ? 1 : 2 }),
        signal,
      ),
    );
    const neurons = sums.length / parts;
    scores ??= new Float64Array(neurons);
    for (let i = 0; i < sums.length; i++) scores[i % neurons]! += sums[i]!;
  }
  return scores!;
}

/** Flags the neurons with the largest scores; of equal ones the first. */
function chooseNeurons(scores: Float64Array, density: number): Uint8Array {
  const order = Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
  const kept = new Uint8Array(scores.length);
  for (const neuron of order.slice(0, Math.round(density * scores.length))) kept[neuron] = 1;
  return kept;
}
