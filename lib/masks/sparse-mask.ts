import { dataTypes } from '../base/data-type.js';
import { invalidArgType, invalidArgValue, TensorRTError } from '../base/errors.js';
import { abortSignal, boolean, bytesOf, onAbort, readOptions, refuseCloning } from '../base/options.js';
import type { Dims, TensorLike } from '../base/tensor-like.js';
import { checkTensor, elementCount } from '../execution/check-tensor.js';
import { Tensor } from '../execution/tensor.js';
import { type NumericArray, typedArray } from '../execution/tensor-elements.js';
import { hostBufferOf } from '../execution/tensor-memory.js';
import type { NativeMask, NativeMaskRequest, NativeUpdatedMask, NativeWork } from '../system/native/mask.js';
import { native } from '../system/native.js';
import {
  checkDivides,
  checkSameDims,
  elementsOf,
  type MaskPattern,
  type MaskRule,
  type MaskUpdateOptions,
  product,
  type RandomRule,
  readAxis,
  readMagnitudes,
  readPattern,
  readRandomRule,
  readRule,
  readStructuredRule,
  readUpdateOptions,
  requireHostMemory,
  type StructuredRule,
} from './mask-rule.js';

/** The result of {@link SparseMask.check}. */
export interface PatternCheck {
  /** True if no group keeps too many elements. */
  readonly ok: boolean;
  /** How many groups there are. */
  readonly groups: number;
  /** How many of them keep too many elements. */
  readonly violations: number;
  /** The index of the first element of the first such group, one number per dimension. */
  readonly first?: number[];
}

/** The result of {@link SparseMask.update}. */
export interface MaskUpdate {
  /** The new mask, which keeps as many elements as before. */
  readonly mask: SparseMask;
  /** The row-major numbers of elements that the new mask no longer keeps, in order. */
  readonly dropped: Uint32Array;
  /**
   * The row-major numbers of elements that only the new mask keeps, in order. They begin at zero, and an optimizer
   * forgets what it knows about them.
   */
  readonly grown: Uint32Array;
}

const applyOptions = { inPlace: boolean(false) };

/** The options of work on a thread. */
export interface MaskWorkOptions {
  /** Ends the work. The promise rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** The mask behind a SparseMask, for other files of this package. */
export const nativeMaskOf = (mask: SparseMask): NativeMask => nativeMasks.get(mask)!;
const nativeMasks = new WeakMap<SparseMask, NativeMask>();

/** Made by this file and the files beside it, not by users. */
const fromNative = Symbol('from native');

/** Wraps a mask that the addon made. */
export function toSparseMask(mask: NativeMask, dims: Dims): SparseMask {
  return new (SparseMask as unknown as new (key: symbol, mask: NativeMask, dims: Dims) => SparseMask)(
    fromNative,
    mask,
    dims,
  );
}

/**
 * A sparse mask: one bit for each element of a weight, 1 to keep it and 0 to make it zero. Masks don't change; methods
 * return new ones.
 *
 * Masks are made by rules, on native threads: `magnitude` keeps the largest |w|, `saliency` the largest |w · g|,
 * `structured` whole rows or columns, and `random` any elements. Scores that tie go to the element that comes first.
 * Counts are exact: a density of d keeps round(d · n) of n elements. Weights are float32, float16 or bfloat16, and
 * finite.
 *
 * Each method that returns a promise has a twin that blocks, named …Sync. Don't write to a tensor before the promise that
 * reads it is settled; a buffer that is transferred or resized meanwhile makes it reject. Tensors from `Tensor.allocate`
 * are read on the threads alone; for an array of more than 4 MiB the event loop copies pieces, each in a fraction of a
 * millisecond.
 *
 * @example
 * ```js
 * import { SparseMask, Tensor } from 'node-tensorrt';
 *
 * const weights = new Tensor('float32', [0.1, -2, 3, 0.4, 5, 0.6, -0.7, 8], [2, 4]);
 * const mask = await SparseMask.magnitude(weights, { pattern: '2:4' });
 * console.log(mask.density, mask.check('2:4').ok); // 0.5 true
 * console.log((await mask.apply(weights)).data); // 0 -2 3 0 5 0 0 8
 * ```
 */
export class SparseMask {
  /** The dimensions of the weight that the mask is for. */
  readonly dims: Dims;
  /** How many elements there are. */
  readonly size: number;
  /** How many elements are kept. */
  readonly kept: number;
  /** The share of elements that are kept, from 0 to 1; 0 if there are none. */
  readonly density: number;

  /** @internal */
  private constructor(key: symbol, mask: NativeMask, dims: Dims) {
    if (key !== fromNative) {
      throw invalidArgType('SparseMask', 'made by one of its static methods, such as magnitude()', key);
    }
    this.dims = Object.freeze([...dims]);
    this.size = product(dims);
    this.kept = mask.kept;
    this.density = this.size === 0 ? 0 : this.kept / this.size;
    nativeMasks.set(this, mask);
    refuseCloning(this);
  }

  /**
   * Keeps elements at random, each with the same chance: `{ density: 0.1 }` keeps exactly a tenth of them.
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE; the signal's reason
   */
  static async random(dims: Dims, options: RandomRule & MaskWorkOptions): Promise<SparseMask> {
    const { rule, signal } = withoutSignal(options);
    return made(randomRequest(dims, rule), dims, signal);
  }

  /** The blocking form of {@link SparseMask.random}. */
  static randomSync(dims: Dims, options: RandomRule): SparseMask {
    return madeSync(randomRequest(dims, options), dims);
  }

  /**
   * Keeps the elements with the largest magnitudes: a share of all, a share of blocks, or some of every few neighbours.
   * With a pattern such as '2:4', each group of four keeps its two largest elements.
   *
   * The result equals PyTorch's `prune.l1_unstructured` for a density, and torchao's `WeightNormSparsifier` for a pattern
   * (and for blocks, with `norm: 2`), where scores don't tie.
   *
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, also for weights that are NaN or
   *   infinite; RangeError ERR_SHAPE_MISMATCH if groups or blocks don't divide the tensor; the signal's reason
   */
  static async magnitude(weights: TensorLike, options: MaskRule & MaskWorkOptions): Promise<SparseMask> {
    const { rule, signal } = withoutSignal(options);
    return made(magnitudeRequest(weights, rule), weights.dims, signal);
  }

  /** The blocking form of {@link SparseMask.magnitude}. */
  static magnitudeSync(weights: TensorLike, options: MaskRule): SparseMask {
    return madeSync(magnitudeRequest(weights, options), weights.dims);
  }

  /**
   * Keeps the elements with the largest |w · g|, computed in float32: those whose loss the loss function would feel most
   * (first-order saliency; Molchanov et al., 2017). Takes the rules of {@link SparseMask.magnitude}.
   * @param gradients of the loss by the weights, with the same dimensions
   * @throws (rejects) as {@link SparseMask.magnitude}
   */
  static async saliency(
    weights: TensorLike,
    gradients: TensorLike,
    options: MaskRule & MaskWorkOptions,
  ): Promise<SparseMask> {
    const { rule, signal } = withoutSignal(options);
    return made(saliencyRequest(weights, gradients, rule), weights.dims, signal);
  }

  /** The blocking form of {@link SparseMask.saliency}. */
  static saliencySync(weights: TensorLike, gradients: TensorLike, options: MaskRule): SparseMask {
    return madeSync(saliencyRequest(weights, gradients, options), weights.dims);
  }

  /**
   * Keeps whole slices along an axis, those with the largest norms: rows of a matrix along axis 0, columns along axis 1,
   * output channels of a convolution along axis 0.
   * @throws (rejects) as {@link SparseMask.magnitude}
   */
  static async structured(
    weights: TensorLike,
    options: StructuredRule & MaskWorkOptions,
  ): Promise<SparseMask> {
    const { rule, signal } = withoutSignal(options);
    return made(structuredRequest(weights, rule), weights.dims, signal);
  }

  /** The blocking form of {@link SparseMask.structured}. */
  static structuredSync(weights: TensorLike, options: StructuredRule): SparseMask {
    return madeSync(structuredRequest(weights, options), weights.dims);
  }

  /**
   * Keeps the elements of a tensor that aren't zero. Takes any numeric type; a negative zero is a zero.
   * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH
   */
  static fromDense(tensor: TensorLike): SparseMask {
    checkTensor(tensor, 'tensor');
    requireNumeric(tensor, 'tensor');
    const elements = elementsOf(tensor, 'tensor');
    return toSparseMask(
      native().maskOfNonZero(elements, dataTypes[tensor.type].onnx, tensor.dims),
      tensor.dims,
    );
  }

  /**
   * Makes a mask from its bits, as {@link SparseMask.bits} returns them. They are copied.
   * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE if there are too few or too many
   */
  static fromBits(bits: Uint8Array, dims: Dims): SparseMask {
    elementCount(dims, 'dims');
    const bytes = bytesOf(bits, 'bits');
    if (!bytes) throw invalidArgType('bits', 'a Uint8Array', bits);
    return toSparseMask(
      asArgumentError(() => new (native().NativeMask)(bytes, dims)),
      dims,
    );
  }

  /**
   * The mask's bits: element i, row-major, is bit `i % 8` of byte `i >> 3`, counted from the lowest. NumPy's
   * `packbits(mask, bitorder='little')` gives the same bytes.
   */
  bits(): Uint8Array {
    return nativeMaskOf(this).bits();
  }

  /** Keeps the elements that both masks keep. @throws RangeError ERR_SHAPE_MISMATCH for other dimensions */
  and(other: SparseMask): SparseMask {
    return toSparseMask(nativeMaskOf(this).and(this.#same(other)), this.dims);
  }

  /** Keeps the elements that either mask keeps. @throws RangeError ERR_SHAPE_MISMATCH for other dimensions */
  or(other: SparseMask): SparseMask {
    return toSparseMask(nativeMaskOf(this).or(this.#same(other)), this.dims);
  }

  /** Keeps the elements that this mask drops. */
  not(): SparseMask {
    return toSparseMask(nativeMaskOf(this).not(), this.dims);
  }

  /** True if the other mask has the same dimensions and keeps the same elements. */
  equals(other: SparseMask): boolean {
    return nativeMaskOf(this).equals(nativeOther(other));
  }

  /**
   * Checks that no group of neighbours keeps more elements than a pattern allows. Groups begin at the axis's start.
   * @param pattern such as '2:4': at most 2 of every 4
   * @param axis negative ones count from the end. Defaults to -1, the last axis
   * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH if groups don't fill the
   *   axis
   */
  check(pattern: MaskPattern, axis?: number): PatternCheck {
    const group = readPattern(pattern, 'pattern');
    const along = readAxis(axis, 'axis', this.dims, -1);
    checkDivides(group[1], this.dims, along, 'pattern');
    const { groups, violations, first } = nativeMaskOf(this).check(group, along);
    const found = { ok: violations === 0, groups, violations };
    return first === undefined ? found : { ...found, first: indexOf(first, this.dims) };
  }

  /**
   * Returns the tensor with zeros (positive ones) where the mask drops elements: weights, or gradients in sparse training
   * (`sparse_grad = grad * mask`). Takes any numeric type, and returns a tensor of the same type. A tensor from
   * `Tensor.allocate` is masked on native threads; any other before the call returns, in one pass over its elements.
   * @param options.inPlace changes the given tensor instead of making one, and returns it. Defaults to false
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH
   */
  async apply<T extends TensorLike>(tensor: T, options: { inPlace?: boolean } = {}): Promise<T> {
    const { elementBytes, inPlace } = this.#readApply(tensor, options);
    const buffer = hostBufferOf(tensor);
    if (!buffer) return this.applySync(tensor, options);
    return masked(tensor, await nativeMaskOf(this).applyOnThread(buffer, elementBytes, inPlace));
  }

  /** The blocking form of {@link SparseMask.apply}. */
  applySync<T extends TensorLike>(tensor: T, options: { inPlace?: boolean } = {}): T {
    const { elementBytes, inPlace } = this.#readApply(tensor, options);
    return masked(tensor, nativeMaskOf(this).apply(tensor.data as ArrayBufferView, elementBytes, inPlace));
  }

  /**
   * Changes which elements are kept, as sparse training does every few hundred steps, and keeps as many: drops the kept
   * elements with the smallest |w|, then grows as many among all that are dropped, where the gradient is largest (RigL:
   * Evci et al., 2020) or at random (SET: Mocanu et al., 2018). An element that was just dropped may come back; then it
   * is in neither list.
   * @param gradients of the loss by the weights, dense: also by those that are dropped. Unused for random growth
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH; the signal's
   *   reason
   */
  async update(
    weights: TensorLike,
    gradients: TensorLike | undefined,
    options: MaskUpdateOptions & MaskWorkOptions,
  ): Promise<MaskUpdate> {
    const { rule, signal } = withoutSignal(options);
    const request = this.#updateRequest(weights, gradients, rule);
    return this.#updated(await finished(native().updateMask(request, false), signal));
  }

  /** The blocking form of {@link SparseMask.update}. */
  updateSync(weights: TensorLike, gradients: TensorLike | undefined, options: MaskUpdateOptions): MaskUpdate {
    const request = this.#updateRequest(weights, gradients, options);
    return this.#updated(asArgumentError(() => native().updateMask(request, true)));
  }

  #updateRequest(weights: TensorLike, gradients: TensorLike | undefined, options: MaskUpdateOptions) {
    const { dims, size } = this;
    const { dropFraction, grow, seed } = readUpdateOptions(options, 'options');
    if (size >= 2 ** 32) throw invalidArgValue('weights', 'has more elements than a Uint32Array can number.');
    const growth =
      grow === 'random'
        ? { dims, seed }
        : { dims, weights: readMagnitudes(gradients as TensorLike, 'gradients', dims) };
    return {
      mask: nativeMaskOf(this),
      weights: { dims, weights: readMagnitudes(weights, 'weights', dims) },
      growth,
      count: Math.round(dropFraction * this.kept),
    };
  }

  #updated({ mask, dropped, grown }: NativeUpdatedMask): MaskUpdate {
    return { mask: toSparseMask(mask, this.dims), dropped, grown };
  }

  #same(other: SparseMask): NativeMask {
    const mask = nativeOther(other);
    checkSameDims(other.dims, this.dims, 'other.dims');
    return mask;
  }

  #readApply(tensor: TensorLike, options: { inPlace?: boolean }) {
    const { inPlace } = readOptions(options, 'options', applyOptions);
    checkTensor(tensor, 'tensor');
    requireNumeric(tensor, 'tensor');
    checkSameDims(tensor.dims, this.dims, 'tensor.dims');
    return { elementBytes: dataTypes[tensor.type].byteSize, inPlace };
  }
}

function requireNumeric(
  tensor: TensorLike,
  path: string,
): asserts tensor is TensorLike & { type: Exclude<keyof typeof dataTypes, 'string'> } {
  requireHostMemory(tensor, path);
  if (tensor.type === 'string') throw invalidArgValue(`${path}.type`, "can't be string.");
}

function nativeOther(other: SparseMask): NativeMask {
  const mask = nativeMasks.get(other);
  if (!mask) throw invalidArgType('other', 'a SparseMask', other);
  return mask;
}

/** Row-major number → one number per dimension. */
function indexOf(element: number, dims: Dims): number[] {
  const index: number[] = [];
  let left = element;
  for (const dim of dims.toReversed()) {
    index.unshift(left % dim);
    left = Math.floor(left / dim);
  }
  return index;
}

/** The given tensor if its elements were changed in place, else one like it with the masked elements. */
function masked<T extends TensorLike>(tensor: T, elements: ArrayBuffer | undefined): T {
  if (!elements) return tensor;
  const type = tensor.type as Exclude<keyof typeof dataTypes, 'string'>;
  const data = typedArray(type, elements) as unknown as NumericArray;
  const isPlain = Object.getPrototypeOf(tensor) === Object.prototype;
  return (isPlain ? { ...tensor, data } : new Tensor(type, data as never, tensor.dims)) as unknown as T;
}

function withoutSignal<Rule extends object>(options: Rule & MaskWorkOptions) {
  const { signal, ...rule } = (options ?? {}) as Rule & MaskWorkOptions;
  return { rule: (options ? rule : options) as Rule, signal: abortSignal(signal, 'options.signal') };
}

function randomRequest(dims: Dims, rule: RandomRule): NativeMaskRequest {
  elementCount(dims, 'dims');
  const { keep, seed } = readRandomRule(rule, 'options', dims);
  return { tensors: [{ dims, seed }], keep };
}

function magnitudeRequest(weights: TensorLike, rule: MaskRule): NativeMaskRequest {
  const magnitudes = readMagnitudes(weights, 'weights');
  const { dims } = weights;
  return { tensors: [{ dims, weights: magnitudes }], ...readRule(rule, 'options', dims) };
}

function saliencyRequest(weights: TensorLike, gradients: TensorLike, rule: MaskRule): NativeMaskRequest {
  const magnitudes = readMagnitudes(weights, 'weights');
  const { dims } = weights;
  const tensor = { dims, weights: magnitudes, gradients: readMagnitudes(gradients, 'gradients', dims) };
  return { tensors: [tensor], ...readRule(rule, 'options', dims) };
}

function structuredRequest(weights: TensorLike, rule: StructuredRule): NativeMaskRequest {
  const magnitudes = readMagnitudes(weights, 'weights');
  const { dims } = weights;
  const tensors = [{ dims, weights: magnitudes }];
  return { tensors, ...readStructuredRule(rule, 'options', dims) };
}

async function made(request: NativeMaskRequest, dims: Dims, signal?: AbortSignal): Promise<SparseMask> {
  const [mask] = await makeMasks(request, signal);
  return toSparseMask(mask!, dims);
}

function madeSync(request: NativeMaskRequest, dims: Dims): SparseMask {
  const [mask] = asArgumentError(() => native().makeMasks(request, true));
  return toSparseMask(mask!, dims);
}

/** Makes one mask for each tensor of a request, on threads. */
export function makeMasks(request: NativeMaskRequest, signal?: AbortSignal): Promise<NativeMask[]> {
  signal?.throwIfAborted();
  return finished(native().makeMasks(request, false), signal);
}

/** Waits for work on a thread, which the signal can stop. */
export async function finished<Result>(
  work: NativeWork<Result>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  const stopListening = onAbort(signal, () => work.cancel());
  try {
    const result = await work.result;
    if (result === undefined) signal?.throwIfAborted();
    return result!;
  } catch (error) {
    throw toArgumentError(error);
  } finally {
    stopListening();
  }
}

function asArgumentError<Result>(make: () => Result): Result {
  try {
    return make();
  } catch (error) {
    throw toArgumentError(error);
  }
}

/** The addon's errors about arguments are RangeErrors, like those of this file. */
function toArgumentError(error: unknown): unknown {
  if (!(error instanceof TensorRTError) || error.code !== 'ERR_INVALID_ARG_VALUE') return error;
  const { message } = error;
  return Object.assign(new RangeError(message), { code: 'ERR_INVALID_ARG_VALUE' });
}
