import { invalidArgType } from '../base/errors.js';
import { checkPath, refuseCloning } from '../base/options.js';
import type { Dims } from '../base/tensor-like.js';
import type { MaskModelOptions } from './mask-model-options.js';
import { product } from './mask-rule.js';
import { isTwoFour, type MaskSetContents } from './mask-set-contents.js';
import { SparseMask } from './sparse-mask.js';

/** A line of {@link MaskSet.report}. */
export interface LayerReport {
  /** The weight's name. */
  readonly weight: string;
  /** Its dimensions. */
  readonly dims: Dims;
  /** How many elements it has. */
  readonly size: number;
  /** How many elements its mask keeps; all of them if it has none. */
  readonly kept: number;
  /** The share of elements that are kept, from 0 to 1. */
  readonly density: number;
  /** The nodes that read it; empty if that isn't known. */
  readonly nodes: readonly string[];
  /** Their operator; '' if that isn't known. */
  readonly operator: string;
  /**
   * True if the mask keeps at most 2 of every 4 elements along the axis that TensorRT's sparse kernels need, which makes
   * the layer eligible for them. Whether one is chosen is TensorRT's decision.
   */
  readonly twoFour: boolean;
  /** Why the weight has no mask; null if it has one. */
  readonly skipped: string | null;
}

const contents = new WeakMap<MaskSet, MaskSetContents>();

/** The entries behind a MaskSet. */
export function contentsOf(masks: MaskSet, path: string): MaskSetContents {
  const known = contents.get(masks);
  if (!known) throw invalidArgType(path, 'a MaskSet', masks);
  return known;
}

/** Makes a set of what a file or a model gave. */
export function maskSetOf(made: MaskSetContents): MaskSet {
  const masks = new MaskSet();
  contents.set(masks, made);
  return masks;
}

// Importing the package doesn't load the code that reads models and files. The first call loads it without waiting, so
// that arguments are read before the call returns.
const files = () => require('./mask-file.js') as typeof import('./mask-file.js');
const making = () => require('./mask-model.js') as typeof import('./mask-model.js');

/**
 * The masks of one model, by weight name.
 *
 * @example
 * ```js
 * import { MaskSet, pruneModel } from 'node-tensorrt';
 *
 * const masks = await MaskSet.forModel('llama/model.onnx', { pattern: '2:4' });
 * for (const { weight, density, skipped } of masks.report()) console.log(weight, density, skipped ?? '');
 * await masks.save('masks.safetensors');
 * await pruneModel('llama/model.onnx', masks, 'pruned.onnx');
 * ```
 */
export class MaskSet {
  /** Makes an empty set, to be filled by {@link set}. */
  constructor() {
    contents.set(this, { entries: new Map(), skipped: [] });
    refuseCloning(this);
  }

  /**
   * Makes masks for the weights of a model's convolutions and matrix products. Embeddings, the model's head, depthwise
   * convolutions, small weights, and weights whose dimensions a pattern doesn't divide are left out; {@link report} says
   * why. Weights in other files are read there piece by piece, so the model isn't loaded as a whole.
   * @param model the path of an `.onnx` file
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, also for weights that are NaN or
   *   infinite; TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO; the signal's reason
   */
  static async forModel(model: string, options: MaskModelOptions): Promise<MaskSet> {
    return maskSetOf(await making().maskModel(model, options));
  }

  /** The names of the weights that have masks. */
  names(): string[] {
    return [...contentsOf(this, 'this').entries.keys()];
  }

  /** The mask of a weight; undefined if it has none. */
  get(weight: string): SparseMask | undefined {
    return contentsOf(this, 'this').entries.get(weight)?.mask;
  }

  /**
   * Sets or replaces the mask of a weight. A mask that replaces one keeps its record of the weight, if its dimensions are
   * the same.
   * @throws TypeError ERR_INVALID_ARG_TYPE
   */
  set(weight: string, mask: SparseMask): void {
    if (typeof weight !== 'string') throw invalidArgType('weight', "a weight's name", weight);
    if (!(mask instanceof SparseMask)) throw invalidArgType('mask', 'a SparseMask', mask);
    const { entries } = contentsOf(this, 'this');
    const before = entries.get(weight);
    const isSame = before && String(before.mask.dims) === String(mask.dims);
    entries.set(weight, { mask, weight: isSame ? before.weight : undefined });
  }

  /** Describes every weight that has a mask, and those that {@link forModel} left out, each with the reason. */
  report(): LayerReport[] {
    const { entries, skipped } = contentsOf(this, 'this');
    const masked = [...entries].map(([name, { mask, weight }]): LayerReport => {
      const { dims, size, kept, density } = mask;
      const { nodes = [], operator = '' } = weight ?? {};
      const twoFour = weight !== undefined && isTwoFour(mask, weight.axis);
      return { weight: name, dims, size, kept, density, nodes, operator, twoFour, skipped: null };
    });
    const others = skipped.filter(({ weight }) => !entries.has(weight));
    return [
      ...masked,
      ...others.map(({ reason, dims, ...rest }): LayerReport => {
        const size = product(dims);
        return { ...rest, dims, size, kept: size, density: 1, twoFour: false, skipped: reason };
      }),
    ];
  }

  /**
   * Writes a safetensors file: for each weight its mask's bits as {@link SparseMask.bits} returns them, and the weights'
   * dimensions, types and SHA-256 in the metadata. If writing fails, no partial file is left.
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; TensorRTError ERR_IO
   */
  async save(path: string): Promise<void> {
    checkPath(path, 'path');
    await files().writeMasks(path, contentsOf(this, 'this'));
  }

  /**
   * Reads a file that {@link save} wrote.
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID if the file is
   *   damaged or something else, ERR_IO
   */
  static async load(path: string): Promise<MaskSet> {
    checkPath(path, 'path');
    return maskSetOf(await files().readMasks(path));
  }
}
