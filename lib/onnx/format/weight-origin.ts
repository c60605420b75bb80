import type { GraphProto, TensorProto } from './model.js';

/**
 * A change to a weight: 'cast' rounded each element to another type, in place; 'recoded' wrote quantized numbers in
 * another way; 'computed' took it from the nodes that computed it.
 */
export type WeightChange = 'cast' | 'recoded' | 'computed';

/** A constant that replaces weights of the model in a rewritten graph. */
export interface MadeWeight {
  /** Its name in the rewritten graph. */
  readonly weight: string;
  /**
   * The names that the weights which it was made from have in the model: initializers, or what Constant nodes give. The one
   * that the changes were done to is first, and what they were done with, such as zero points, follows.
   */
  readonly from: readonly string[];
  /** The changes to the first of these weights, in order. */
  readonly changes: readonly WeightChange[];
}

// ONNX's own place for what there is to say about a tensor: it goes where the tensor goes, through any number of passes and
// through files.
const key = 'node-tensorrt.origin';

type Origin = Pick<MadeWeight, 'from' | 'changes'>;

/**
 * The tensor, which says of itself what it was made from: weights of the model, what was made from such itself, or nothing
 * of the kind.
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
 * Lists the constants of a rewritten graph that were made from weights of the model. Other constants are unchanged weights,
 * or don't come from weights at all, such as shapes.
 */
export function madeWeights({ initializer }: GraphProto): MadeWeight[] {
  return initializer.flatMap((tensor) => {
    const origin = originOf(tensor);
    return origin && origin.from.length > 0 ? [{ weight: tensor.name!, ...origin }] : [];
  });
}

/** Makes a graph one that weights are made from: where its own came from is forgotten. In place. */
export function forgetOrigins({ initializer }: GraphProto): void {
  for (const tensor of initializer) {
    if (tensor.metadataProps) {
      tensor.metadataProps = tensor.metadataProps.filter((entry) => entry.key !== key);
    }
  }
}

/** undefined where there is none, or what isn't one: files may say anything. */
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

/** True if parsed JSON says what a weight was made from. */
export function isOrigin(value: unknown): value is Origin {
  const { from, changes } = (value ?? {}) as Partial<Origin>;
  const isText = (element: unknown) => typeof element === 'string';
  return Array.isArray(from) && from.every(isText) && Array.isArray(changes) && changes.every(isText);
}
