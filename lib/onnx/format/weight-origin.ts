import type { GraphProto, TensorProto } from './model.js';

/**
 * A change to a weight. 'cast': each element was rounded to another type and kept its place. 'recoded': quantized
 * numbers were written in another form. 'computed': nodes computed the constant from the weight.
 */
export type WeightChange = 'cast' | 'recoded' | 'computed';

/** A constant that replaces weights of the model in a rewritten graph. */
export interface MadeWeight {
  /** The constant's name in the rewritten graph. */
  readonly weight: string;
  /**
   * The names that the weights have in the model from which it was made: initializers, or outputs of Constant nodes.
   * The weight that was changed comes first, followed by the weights that it was changed with, such as zero points.
   */
  readonly from: readonly string[];
  /** The changes to the first of these weights, in order. */
  readonly changes: readonly WeightChange[];
}

// The origin is kept in the tensor's metadata, ONNX's own place for such information. It stays with the tensor through
// any number of passes and through files.
const key = 'node-tensorrt.origin';

type Origin = Pick<MadeWeight, 'from' | 'changes'>;

/**
 * Returns the tensor with a record of its origin: the weights of the model from which it was made, directly or through
 * others.
 */
export function madeFrom(
  tensor: TensorProto,
  sources: readonly TensorProto[],
  change: WeightChange,
): TensorProto {
  const origins = sources.map((source) => originOf(source) ?? { from: [source.name!], changes: [] });
  const origin: Origin = {
    from: [...new Set(origins.flatMap(({ from }) => from))],
    changes: [...(origins[0]?.changes ?? []), change],
  };
  const others = (tensor.metadataProps ?? []).filter((entry) => entry.key !== key);
  return { ...tensor, metadataProps: [...others, { key, value: JSON.stringify(origin) }] };
}

/**
 * Lists the constants of a rewritten graph that were made from weights of the model. Other constants are unchanged
 * weights, or don't come from weights at all, as is the case for shapes.
 */
export function madeWeights({ initializer }: GraphProto): MadeWeight[] {
  return initializer.flatMap((tensor) => {
    const origin = originOf(tensor);
    return origin && origin.from.length > 0 ? [{ weight: tensor.name!, ...origin }] : [];
  });
}

/**
 * Makes a graph the origin of its weights, by removing the records of where they came from. The graph is changed in
 * place.
 */
export function forgetOrigins({ initializer }: GraphProto): void {
  for (const tensor of initializer) {
    if (tensor.metadataProps) {
      tensor.metadataProps = tensor.metadataProps.filter((entry) => entry.key !== key);
    }
  }
}

/** Returns a tensor's record; undefined if there is none, or if it isn't valid, because files may contain anything. */
function originOf({ metadataProps }: TensorProto): Origin | undefined {
  const text = metadataProps?.find((entry) => entry.key === key)?.value;
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isOrigin(value) ? { from: value.from, changes: value.changes } : undefined;
  } catch {
    return undefined;
  }
}

/** True if parsed JSON is a record of a weight's origin. */
export function isOrigin(value: unknown): value is Origin {
  const { from, changes } = (value ?? {}) as Partial<Origin>;
  const isText = (element: unknown) => typeof element === 'string';
  return Array.isArray(from) && from.every(isText) && Array.isArray(changes) && changes.every(isText);
}
