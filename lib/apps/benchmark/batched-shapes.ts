import { invalidArgValue } from '../../base/errors.js';
import { checkProfiles, completeProfiles, type DeclaredInput, rangeOf } from '../../base/shapes.js';
import type { Dims } from '../../base/tensor-like.js';

/** A dynamic size is a name or -1. */
export const isDynamic = (size: number | string) => typeof size === 'string' || size < 0;

/**
 * Every input's shape at a batch size. The batch dimension is the leading one, identified by its name if it has one:
 * every dimension of that name gets the batch size. If no leading dimension is dynamic, the batch is the size that all
 * inputs lead with.
 */
export function batchedShapes(
  inputs: readonly DeclaredInput[],
  wanted: number | undefined,
  given: ReadonlyMap<string, Dims>,
): { batch: number; profile: Map<string, Dims> } {
  const leading = inputs
    .filter(({ shape }) => shape.length > 0)
    .map(({ name, shape }) => ({ name, size: shape[0]! }));
  const dynamic = leading.filter(({ size }) => isDynamic(size));
  const led = dynamic.find(({ size }) => /batch|^[nb]$/i.test(String(size))) ?? dynamic[0];
  const ranges = Object.fromEntries(
    [...given].map(([name, dims]) => [name, { min: dims, opt: dims, max: dims }]),
  );
  checkProfiles([ranges], inputs);
  const [complete = {}] = completeProfiles([ranges], inputs);
  const shapeOf = ({ name, shape }: DeclaredInput) => rangeOf(complete, name)?.opt ?? (shape as Dims);

  if (!led) {
    const sizes = new Set(leading.map(({ size }) => size as number));
    const batch = sizes.size === 1 ? [...sizes][0]! : 1;
    if (wanted !== undefined && wanted !== batch) {
      throw invalidArgValue('--batch', `is ${wanted}, but the model's is fixed at ${batch}.`);
    }
    return { batch, profile: new Map(inputs.map((input) => [input.name, shapeOf(input)])) };
  }
  const batch = wanted ?? given.get(led.name)?.[0] ?? 1;
  const isBatch = (size: number | string, i: number) =>
    size === led.size && ((size !== '' && size !== -1) || i === 0);
  const profile = inputs.map((input): [string, Dims] => [
    input.name,
    shapeOf(input).map((size, i) => (isBatch(input.shape[i]!, i) ? batch : size)),
  ]);
  return { batch, profile: new Map(profile) };
}
