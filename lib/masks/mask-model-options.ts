import { describe, invalidArgType, invalidArgValue } from '../base/errors.js';
import {
  abortSignal,
  callback,
  type OptionTable,
  oneOf,
  optional,
  readOptions,
  real,
} from '../base/options.js';
import type { TensorLike } from '../base/tensor-like.js';
import { type MaskPattern, readPattern } from './mask-rule.js';

/** What to mask, and how: either a density or a pattern. */
export interface MaskModelOptions {
  /** The share of each weight's elements to keep, from 0 to 1. */
  density?: number;
  /**
   * How many of how many neighbours to keep, such as '2:4', along the axis over which products are summed: the one that
   * TensorRT's sparse kernels need.
   */
  pattern?: MaskPattern;
  /**
   * Masks whole structures, which `pruneModel({ shrink: true })` then removes: 'mlp' drops neurons of multilayer
   * perceptrons, each with its columns of the matrices that make it and its row of the matrix that reads it. Goes with a
   * density, the share of neurons to keep. Neurons are compared by the sum of w² over their weights, or with 'wanda' by
   * the sum of |w| · ‖x‖ over their row. 'heads' isn't supported yet. Defaults to none: single elements.
   */
  structure?: 'mlp' | 'heads';
  /**
   * Which elements to keep: those with the largest |w| ('magnitude'), or with the largest |w| · ‖x‖, where x are the
   * values that an element is multiplied by ('wanda': Sun et al., A Simple and Effective Pruning Approach for Large
   * Language Models, 2023). Wanda compares the elements that belong to the same output with each other, and needs
   * `inputs`. Defaults to 'magnitude'.
   */
  saliency?: 'magnitude' | 'wanda';
  /** Inputs for 'wanda', which the CPU runs the model on: a tensor for each of the model's inputs, by name. */
  inputs?:
    | Iterable<Readonly<Record<string, TensorLike>>>
    | AsyncIterable<Readonly<Record<string, TensorLike>>>;
  /**
   * 'layer' keeps the same share of each weight, 'global' of all weights together, so that layers with small weights
   * lose more. 'global' goes with a density and 'magnitude'. Defaults to 'layer'.
   */
  scope?: 'layer' | 'global';
  /**
   * Mask only weights whose name, or the name of a node that reads them, matches one of these; also those that would be
   * left out as small, depthwise or a head. Defaults to all.
   */
  include?: readonly RegExp[];
  /** Leave out weights whose name, or the name of a node that reads them, matches one of these. Defaults to none. */
  exclude?: readonly RegExp[];
  /** Is called before each weight. */
  onProgress?: (progress: MaskProgress) => void;
  /** Aborting ends the work; it then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** How far a model's masks are. */
export interface MaskProgress {
  /** The weight that comes next. */
  readonly weight: string;
  /** How many weights are done. */
  readonly done: number;
  /** How many weights there are. */
  readonly total: number;
}

const expressions = (value: unknown, path: string): readonly RegExp[] | undefined => {
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) throw invalidArgType(path, 'an array of regular expressions', value);
  const odd = value.findIndex((each) => !(each instanceof RegExp));
  if (odd >= 0) throw invalidArgType(`${path}[${odd}]`, 'a regular expression', value[odd]);
  return value;
};

const feeds = (value: unknown, path: string): MaskModelOptions['inputs'] => {
  if (value === undefined) return undefined;
  const { [Symbol.iterator]: sync, [Symbol.asyncIterator]: async } = Object(value);
  if (typeof value === 'string' || (typeof sync !== 'function' && typeof async !== 'function')) {
    throw invalidArgType(path, 'an iterable of inputs by name', value);
  }
  return value as MaskModelOptions['inputs'];
};

const structureOption = (value: unknown, path: string): 'mlp' | undefined => {
  if (value === undefined || value === 'mlp') return value;
  if (value === 'heads') throw invalidArgValue(path, "can't be 'heads' in this version: it can be 'mlp'.");
  throw invalidArgValue(path, `must be 'mlp', not ${describe(value)}.`);
};

const table = {
  density: optional(real(0, 0, 1)),
  pattern: optional(readPattern),
  structure: structureOption,
  saliency: oneOf(['magnitude', 'wanda']),
  inputs: feeds,
  scope: oneOf(['layer', 'global']),
  include: expressions,
  exclude: expressions,
  onProgress: callback<NonNullable<MaskModelOptions['onProgress']>>,
  signal: abortSignal,
} satisfies OptionTable<MaskModelOptions>;

/** @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE */
export function readMaskModelOptions(options: unknown) {
  const settings = readOptions(options, 'options', table);
  const { density, pattern, structure, saliency, inputs, scope } = settings;
  if ((density === undefined) === (pattern === undefined)) {
    throw invalidArgValue('options', "must have either a density or a pattern, such as '2:4'.");
  }
  if (structure && (pattern || scope === 'global')) {
    throw invalidArgValue('options.structure', 'goes with a density in each layer.');
  }
  if (scope === 'global' && (pattern || saliency === 'wanda')) {
    throw invalidArgValue('options.scope', "can be 'global' only for a density by magnitude.");
  }
  if (saliency === 'wanda' && inputs === undefined) {
    throw invalidArgType('options.inputs', "given for 'wanda'", inputs);
  }
  if (saliency !== 'wanda' && inputs !== undefined) {
    throw invalidArgValue('options.inputs', "is only used by the saliency 'wanda'.");
  }
  return settings;
}

export type MaskModelSettings = ReturnType<typeof readMaskModelOptions>;
