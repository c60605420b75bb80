import { dataTypes } from '../base/data-type.js';
import { describe, invalidArgType, invalidArgValue, shapeMismatch } from '../base/errors.js';
import { integer, type OptionTable, oneOf, optional, readOptions, real } from '../base/options.js';
import { checkSeed } from '../base/random.js';
import type { Dims, TensorLike } from '../base/tensor-like.js';
import { checkTensor, elementCount } from '../execution/check-tensor.js';
import { deviceTensorOf, hostBufferOf } from '../execution/tensor-memory.js';
import type { NativeMagnitudes, NativeSelection } from '../system/native/mask.js';
import type { HostBuffer } from '../system/native/tensor.js';

/** At most n of every m neighbours are kept: '2:4', '1:4', '4:8' … */
export type MaskPattern = `${number}:${number}`;

/** Which elements a mask keeps: a share of all, a share of the blocks, or some of every few neighbours. */
export type MaskRule =
  | {
      /** The share of elements to keep, from 0 to 1: of n elements, round(density · n) are kept. */
      density: number;
    }
  | {
      /** The share of blocks to keep, from 0 to 1: of n blocks, round(density · n) are kept. */
      density: number;
      /** The block's dimensions, as many as the tensor's. Each divides the tensor's. */
      block: Dims;
      /** The norm that compares blocks: 1 for the sum of scores, 2 for the sum of their squares. Defaults to 1 */
      norm?: 1 | 2;
    }
  | {
      /** How many of how many neighbours to keep, such as '2:4'. */
      pattern: MaskPattern;
      /** The axis along which neighbours lie; negative ones count from the end. Defaults to -1, the last axis */
      axis?: number;
    };

/** The rule of a mask that keeps whole slices: rows, columns or channels. */
export interface StructuredRule {
  /** The axis whose positions are kept or dropped: 0 for the rows of a matrix. Negative ones count from the end. */
  axis: number;
  /** The share of positions to keep, from 0 to 1: of n positions, round(density · n) are kept. */
  density: number;
  /** The norm that compares slices: 1 for the sum of |w|, 2 for the sum of w². Defaults to 1 */
  norm?: 1 | 2;
}

/** The rule of a random mask. */
export interface RandomRule {
  /** The share of elements to keep, from 0 to 1: of n elements, round(density · n) are kept. */
  density: number;
  /** The same seed gives the same mask. Defaults to 0 */
  seed?: number;
}

/** How to change a mask during sparse training. */
export interface MaskUpdateOptions {
  /** The share of kept elements to drop, from 0 to 1: of n kept elements, round(dropFraction · n) are dropped. */
  dropFraction: number;
  /** Grow where the gradient is largest (RigL), or anywhere (SET). */
  grow: 'gradient' | 'random';
  /** The seed of random growth. Defaults to 0 */
  seed?: number;
}

const share = (value: unknown, path: string): number => {
  if (value === undefined) throw invalidArgType(path, 'a number', value);
  return real(0, 0, 1)(value, path);
};

const norm = (value: unknown, path: string): 1 | 2 => {
  if (value === undefined || value === 1) return 1;
  if (value === 2) return 2;
  throw invalidArgValue(path, `must be 1 or 2, not ${describe(value)}.`);
};

export const seed = (value: unknown = 0, path = 'seed'): number => {
  checkSeed(value, path);
  return value;
};

const randomOptions = { density: share, seed } satisfies OptionTable<RandomRule>;
const structuredOptions = {
  axis: (value: unknown) => value,
  density: share,
  norm,
} satisfies OptionTable<StructuredRule>;
const updateOptions = {
  dropFraction: share,
  grow: (value: unknown, path: string) => {
    if (value === undefined) throw invalidArgType(path, "'gradient' or 'random'", value);
    return oneOf(['gradient', 'random'])(value, path);
  },
  seed,
} satisfies OptionTable<MaskUpdateOptions>;
const ruleOptions = {
  density: optional(share),
  pattern: optional(readPattern),
  axis: (value: unknown) => value,
  block: (value: unknown) => value as Dims | undefined,
  norm: optional(norm),
};

/**
 * Reads 'n:m'.
 * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE unless 1 ≤ n ≤ m
 */
export function readPattern(value: unknown, path: string): readonly [keep: number, of: number] {
  if (typeof value !== 'string') throw invalidArgType(path, "a pattern such as '2:4'", value);
  const [keep, of] = (/^(\d{1,9}):(\d{1,9})$/.exec(value) ?? []).slice(1).map(Number);
  if (keep === undefined || of === undefined || keep < 1 || keep > of) {
    throw invalidArgValue(
      path,
      `must be 'n:m' with n from 1 to m, such as '2:4' (keep 2 of every 4), not ${describe(value)}.`,
    );
  }
  return [keep, of];
}

/** Reads an axis of a tensor. Negative ones count from the end. */
export function readAxis(value: unknown, path: string, dims: Dims, fallback?: number): number {
  const axis = integer(fallback, -dims.length, dims.length - 1)(value, path);
  if (axis === undefined) throw invalidArgType(path, 'a number', value);
  return axis < 0 ? axis + dims.length : axis;
}

/** Reads what to keep of a tensor's elements. */
export function readRule(rule: unknown, path: string, dims: Dims): NativeSelection {
  const settings = readOptions(rule, path, ruleOptions);
  const { density, pattern, block } = settings;
  if ((density === undefined) === (pattern === undefined)) {
    throw invalidArgValue(path, "must have either a density or a pattern, such as '2:4'.");
  }
  if (pattern) {
    if (block !== undefined) throw invalidArgValue(`${path}.block`, 'goes with a density, not a pattern.');
    if (dims.length === 0) throw shapeMismatch(`${path}.pattern needs a tensor that isn't a scalar.`);
    const axis = readAxis(settings.axis, `${path}.axis`, dims, -1);
    checkDivides(pattern[1], dims, axis, `${path}.pattern`);
    return { pattern, axis };
  }
  if (settings.axis !== undefined) throw invalidArgValue(`${path}.axis`, 'goes with a pattern.');
  if (block === undefined) {
    if (settings.norm !== undefined) throw invalidArgValue(`${path}.norm`, 'goes with a block.');
    return { keep: Math.round(density! * product(dims)) };
  }
  checkBlock(block, dims, `${path}.block`);
  return { keep: Math.round((density! * product(dims)) / product(block)), block, norm: settings.norm ?? 1 };
}

/** @throws RangeError ERR_SHAPE_MISMATCH if groups of `of` neighbours don't fill the axis */
export function checkDivides(of: number, dims: Dims, axis: number, path: string): void {
  if (dims[axis]! % of === 0) return;
  throw shapeMismatch(
    `${path} needs a multiple of ${of} elements along the axis, but dimension ${axis} of [${dims}] has ${dims[axis]}.`,
  );
}

function checkBlock(block: unknown, dims: Dims, path: string): void {
  elementCount(block, path);
  const sizes = block as Dims;
  if (sizes.length !== dims.length) {
    throw shapeMismatch(`${path} has ${sizes.length} dimensions, but the tensor has ${dims.length}.`);
  }
  const odd = sizes.findIndex((size, d) => size === 0 || dims[d]! % size !== 0);
  if (odd < 0) return;
  throw shapeMismatch(
    `${path}[${odd}] must divide ${dims[odd]}, the tensor's size there; ${sizes[odd]} doesn't.`,
  );
}

/** Reads what to keep of a tensor's slices. */
export function readStructuredRule(rule: unknown, path: string, dims: Dims): NativeSelection {
  const { axis, density, norm } = readOptions(rule, path, structuredOptions);
  if (dims.length === 0) throw shapeMismatch('A scalar has no slices.');
  const along = readAxis(axis, `${path}.axis`, dims);
  const block = dims.map((dim, d) => (d === along ? 1 : Math.max(dim, 1)));
  return { keep: Math.round(density * dims[along]!), block, norm };
}

/** Reads the rule of a random mask. */
export function readRandomRule(rule: unknown, path: string, dims: Dims): { keep: number; seed: number } {
  const { density, seed } = readOptions(rule, path, randomOptions);
  return { keep: Math.round(density * product(dims)), seed };
}

/** Reads how to change a mask. */
export const readUpdateOptions = (options: unknown, path: string) =>
  readOptions(options, path, updateOptions);

/** How many elements dimensions hold. */
export const product = (dims: Dims): number => dims.reduce((count, dim) => count * dim, 1);

/** The elements of a checked tensor, where the addon finds them. */
export function elementsOf(tensor: TensorLike, path: string): ArrayBufferView | HostBuffer {
  requireHostMemory(tensor, path);
  return hostBufferOf(tensor) ?? (tensor.data as ArrayBufferView);
}

/** @throws RangeError ERR_INVALID_ARG_VALUE for a tensor on a GPU */
export function requireHostMemory(tensor: TensorLike, path: string): void {
  if (!deviceTensorOf(tensor)) return;
  throw invalidArgValue(path, 'is on the GPU: `await tensor.getData()` copies it to host memory.');
}

/**
 * Checks a tensor of weights or gradients.
 * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH
 */
export function readMagnitudes(tensor: TensorLike, name: string, dims?: Dims): NativeMagnitudes {
  checkTensor(tensor, name);
  if (!['float32', 'float16', 'bfloat16'].includes(tensor.type)) {
    throw invalidArgValue(`${name}.type`, `must be float32, float16 or bfloat16, not ${tensor.type}.`);
  }
  if (dims) checkSameDims(tensor.dims, dims, `${name}.dims`);
  return { name, type: dataTypes[tensor.type].onnx, data: elementsOf(tensor, name) };
}

/** @throws RangeError ERR_SHAPE_MISMATCH */
export function checkSameDims(dims: Dims, expected: Dims, path: string): void {
  if (dims.length === expected.length && dims.every((dim, d) => dim === expected[d])) return;
  throw shapeMismatch(`${path} is [${dims}], but must be [${expected}].`);
}
