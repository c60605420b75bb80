import { dataTypes } from '../base/data-type.js';
import { label, operatorName } from '../onnx/graph/operators.js';
import type { NativeBytes } from '../system/native/bytes.js';
import type { NativeScoredTensor } from '../system/native/mask.js';
import type { InputNorms } from './input-norms.js';
import type { MaskModelSettings } from './mask-model-options.js';
import type { MaskedWeight } from './mask-set-contents.js';
import type { ProductWeight } from './prunable-weights.js';

export type FloatType = 'float32' | 'float16' | 'bfloat16';

/** A weight that gets a mask. */
export interface Chosen extends ProductWeight {
  readonly type: FloatType;
  /** The axis over which its products are summed. */
  readonly axis: number;
}

/** A weight's elements and what scores them, for the addon. */
export function scored(
  { name, type, tensor, axis }: Chosen,
  data: NativeBytes,
  norms: InputNorms,
): NativeScoredTensor {
  const values = norms.get(name);
  return {
    dims: tensor.dims,
    weights: { name: `The weight "${name}"`, type: dataTypes[type].onnx, data },
    ...(values ? { factors: { values, axis } } : {}),
  };
}

/** The record of the weight that a mask is made for. */
export async function recordOf({ type, axis, readers }: Chosen, bytes: NativeBytes): Promise<MaskedWeight> {
  const sha256 = Buffer.from(await bytes.sha256(new Uint8Array(0))).toString('hex');
  return { type, sha256, axis, ...namesOf(readers) };
}

/** The names of nodes, and their operator. */
export function namesOf(readers: ProductWeight['readers']): { nodes: string[]; operator: string } {
  return { nodes: readers.map((node) => node.name || label(node)), operator: operatorName(readers[0]!) };
}

/** Why `include` and `exclude` leave a weight out; undefined if they don't. */
export function unwantedReason(
  { name, readers }: ProductWeight,
  { include, exclude }: Pick<MaskModelSettings, 'include' | 'exclude'>,
): string | undefined {
  const names = [name, ...readers.map((node) => node.name ?? '')];
  // A copy of each expression, because one with the flag g remembers where it stopped.
  const matches = (list: readonly RegExp[]) =>
    list.some((expression) => names.some((each) => new RegExp(expression).test(each)));
  if (include && !matches(include)) return 'no expression of options.include matches it';
  return exclude && matches(exclude) ? 'an expression of options.exclude matches it' : undefined;
}
