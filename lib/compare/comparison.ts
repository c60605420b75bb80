import type { Dims } from '../base/tensor-like.js';
import type { Difference } from './difference.js';

/** The differences between two models that `compareModels` found. Each is the worst of all samples. */
export interface Comparison {
  /** The lowest precision that each model computes in. 16 bits are simulated on the CPU: every value is rounded to them. */
  readonly precision: Readonly<Record<'a' | 'b', 'fp32' | 'fp16' | 'bf16'>>;
  /** The source of the inputs. Random ones may miss what real ones show. */
  readonly inputs: ComparedInputs;
  /** The relative difference up to which values count as equal. */
  readonly tolerance: number;
  /** True if every output's relative difference is within the tolerance. */
  readonly agree: boolean;
  /** The outputs that both models have, in the order of a. */
  readonly outputs: readonly OutputDifference[];
  /** Outputs that only one model has. */
  readonly unpaired: { readonly a: readonly string[]; readonly b: readonly string[] };
  /** With `options.layers`: the values that both models compute, in the order of a. */
  readonly layers?: readonly LayerDifference[];
  /** With `options.layers`: nodes of a whose values have no counterpart in b. */
  readonly unmatched?: readonly string[];
  /** With `options.layers`: the node where the models part; null if none does. */
  readonly parted?: PartedNode | null;
  /** With `options.bisect`. */
  readonly bisect?: Bisection;
}

/** The source of the inputs that models were compared on. */
export type ComparedInputs =
  | { readonly source: 'given'; readonly samples: number }
  | { readonly source: 'random'; readonly samples: number; readonly seed: number };

/** The difference of one output. */
export interface OutputDifference extends Difference {
  /** Its name in a. */
  readonly name: string;
  /** Its name in b. */
  readonly other: string;
  /** 'position' if no output has the same name in both models. */
  readonly pairedBy: 'name' | 'position';
  /** Its dimensions in the first sample. */
  readonly dims: Dims;
  /** The part of the rows whose largest element is at the same place in both, from 0 to 1; undefined without rows. */
  readonly top1?: number;
  /** The kind of the rows, guessed from the name, dimensions and values; undefined if they are neither. */
  readonly rows?: 'logits' | 'probabilities';
  /** The mean Kullback–Leibler divergence of b's rows from those of a, in nats; logits go through a softmax first. */
  readonly kl?: number;
}

/** The difference of one value inside the models. */
export interface LayerDifference extends Difference {
  /** The node of a that computes it, by name; by its first output if it has none. */
  readonly node: string;
  /** The node's operator. */
  readonly operator: string;
  /** The value's name in a. */
  readonly value: string;
  /** The value's name in b. */
  readonly other: string;
  /** Its dimensions in the first sample. */
  readonly dims: Dims;
  /**
   * How far b's node is off when it reads what a computed: the largest difference of an element, divided by its own
   * magnitude or the value's usual one. The other differences also have what b's earlier nodes add.
   */
  readonly error: number;
}

/** The node where two models part: the first whose own error matters to the outputs. */
export interface PartedNode {
  /** Its name in a; that of its first output if it has none. */
  readonly node: string;
  /** Its operator. */
  readonly operator: string;
  /** The first later value that both models have. */
  readonly value: string;
  /** All nodes of a between that value and those before it that agree. */
  readonly nodes: readonly string[];
  /**
   * 'overflow': a finite number becomes infinite or NaN. 'missing': b lacks the node. 'shape': b's value has other
   * dimensions. 'value': the numbers differ.
   */
  readonly kind: 'overflow' | 'missing' | 'shape' | 'value';
  /** The value's `error`. */
  readonly error: number;
  /** The relative difference of the outputs that this error alone causes. */
  readonly effect: number;
}

/** A set of nodes to keep in FP32 that brings a cast model back within a tolerance. */
export interface Bisection {
  /**
   * What was tried. 'cast': this package's cast of a, with `keepFp32`. 'b': the model b, if it isn't that cast, with
   * these nodes put back to FP32.
   */
  readonly of: 'cast' | 'b';
  /** The 16-bit type of b. */
  readonly precision: 'fp16' | 'bf16';
  /** The relative difference of the outputs to stay within. */
  readonly tolerance: number;
  /**
   * Patterns for `buildEngine`'s `keepFp32`: names of nodes, or operators of nodes without a name. With them all the
   * outputs stay within the tolerance, without any one of them they don't. Empty if nothing needs to be kept.
   */
  readonly keepFp32: readonly string[];
  /** False if the outputs aren't within the tolerance even with every node in FP32; `keepFp32` then has them all. */
  readonly reached: boolean;
  /** The relative difference of the outputs without any node kept. */
  readonly before: number;
  /** The relative difference of the outputs with these kept. */
  readonly after: number;
  /** Sets of nodes that were tried. */
  readonly tried: number;
}
