import path from 'node:path';
import { checkPath } from '../base/options.js';
import { checkExternalData } from '../onnx/format/initializer.js';
import type { ModelProto } from '../onnx/format/model.js';
import { readModel } from '../onnx/format/model-file.js';
import { absolutePath } from '../system/files/working-directory.js';
import type { NativeBytes } from '../system/native/bytes.js';
import type { NativeSelection } from '../system/native/mask.js';
import { type Chosen, type FloatType, namesOf, recordOf, scored, unwantedReason } from './chosen-weight.js';
import { type InputNorms, measureInputNorms } from './input-norms.js';
import { type MaskModelSettings, readMaskModelOptions } from './mask-model-options.js';
import { maskNeurons } from './mask-neurons.js';
import { product } from './mask-rule.js';
import type { MaskSetContents, SkippedWeight } from './mask-set-contents.js';
import { type ProductWeight, productWeights } from './prunable-weights.js';
import { makeMasks, toSparseMask } from './sparse-mask.js';
import { withWeightBytes } from './weight-bytes.js';

/**
 * Makes the masks of a model's weights.
 * @throws (rejects) as `MaskSet.forModel`
 */
export async function maskModel(file: string, options: unknown): Promise<MaskSetContents> {
  checkPath(file, 'model');
  const settings = readMaskModelOptions(options);
  const { signal, onProgress, scope, density } = settings;
  signal?.throwIfAborted();
  const model = await readModel(file);
  const directory = path.dirname(absolutePath(file));
  checkExternalData(model, { directory });
  if (settings.structure) return maskNeurons(model, directory, settings);
  const { chosen, skipped } = choose(model, settings);
  const norms = await inputNorms(model, chosen, settings, directory);
  const entries: MaskSetContents['entries'] = new Map();
  const add = async (
    weight: Chosen,
    mask: Awaited<ReturnType<typeof makeMasks>>[number],
    bytes: NativeBytes,
  ) =>
    entries.set(weight.name, {
      mask: toSparseMask(mask, weight.tensor.dims),
      weight: await recordOf(weight, bytes),
    });
  if (scope === 'global') {
    const keep = Math.round(density! * chosen.reduce((sum, { tensor }) => sum + product(tensor.dims), 0));
    await withAll(chosen, directory, async (all) => {
      const tensors = chosen.map((weight, i) => scored(weight, all[i]!, norms));
      const masks = await makeMasks({ tensors, keep }, signal);
      for (const [done, weight] of chosen.entries()) {
        onProgress?.({ weight: weight.name, done, total: chosen.length });
        signal?.throwIfAborted();
        await add(weight, masks[done]!, all[done]!);
      }
    });
    return { entries, skipped };
  }
  for (const [done, weight] of chosen.entries()) {
    onProgress?.({ weight: weight.name, done, total: chosen.length });
    signal?.throwIfAborted();
    await withWeightBytes(weight.tensor, weight.type, directory, async (bytes) => {
      const request = { tensors: [scored(weight, bytes, norms)], ...selectionOf(weight, settings) };
      const [mask] = await makeMasks(request, signal);
      await add(weight, mask!, bytes);
    });
  }
  return { entries, skipped };
}

/** Opens several weights at once. */
async function withAll(
  weights: readonly Chosen[],
  directory: string,
  use: (all: readonly NativeBytes[]) => Promise<void>,
  opened: readonly NativeBytes[] = [],
): Promise<void> {
  const [next, ...rest] = weights;
  if (!next) return use(opened);
  await withWeightBytes(next.tensor, next.type, directory, (bytes) =>
    withAll(rest, directory, use, [...opened, bytes]),
  );
}

function selectionOf({ tensor, axis }: Chosen, settings: MaskModelSettings): NativeSelection {
  const { pattern, density, saliency } = settings;
  if (pattern) return { pattern, axis };
  const { dims } = tensor;
  // Wanda's comparison group: the elements that one output sums over.
  if (saliency === 'wanda') return { pattern: [Math.round(density! * dims[axis]!), dims[axis]!], axis };
  return { keep: Math.round(density! * product(dims)) };
}

/** Divides the weights into those that get a mask and those that don't. */
function choose(
  { graph }: ModelProto,
  { include, exclude, pattern, saliency }: MaskModelSettings,
): { chosen: Chosen[]; skipped: SkippedWeight[] } {
  const chosen: Chosen[] = [];
  const skipped: SkippedWeight[] = [];
  for (const weight of productWeights(graph)) {
    const { name, tensor, products, readers, problem } = weight;
    const unwanted = unwantedReason(weight, { include, exclude });
    const reason =
      unwanted ||
      (problem && !(include && problem.isAdvice) && problem.reason) ||
      ((pattern ?? saliency === 'wanda') && unfit(weight, pattern)) ||
      undefined;
    if (reason) skipped.push({ weight: name, dims: tensor.dims, ...namesOf(readers), reason });
    else chosen.push({ ...weight, type: weight.type as FloatType, axis: products[0]!.axis });
  }
  return { chosen, skipped };
}

/** Why groups along the summed axis can't be made. */
function unfit({ tensor, products }: ProductWeight, pattern: readonly [number, number] | undefined) {
  const [first, ...others] = products.map(({ axis }) => axis);
  if (others.some((axis) => axis !== first)) return 'its nodes sum over different axes';
  const of = pattern?.[1] ?? 1;
  const size = tensor.dims[first!]!;
  if (size % of === 0) return undefined;
  return `its dimension ${first}, which is summed over, has ${size} elements, and ${of} don't divide it`;
}

async function inputNorms(
  model: ModelProto,
  chosen: readonly Chosen[],
  { saliency, inputs, signal }: MaskModelSettings,
  directory: string,
): Promise<InputNorms> {
  if (saliency !== 'wanda') return new Map();
  return measureInputNorms(model, chosen, inputs!, { directory, signal });
}
