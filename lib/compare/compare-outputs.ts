import { invalidArgValue, shapeMismatch } from '../base/errors.js';
import type { Dims } from '../base/tensor-like.js';
import type { Tensor } from '../execution/tensor.js';
import type { ComparedModel } from './compared-model.js';
import type { OutputDifference } from './comparison.js';
import { type Difference, differenceOf, differenceOfStrings, numbersOf, worst } from './difference.js';
import { scoreAgreement, scoreKind } from './logits.js';

/** The outputs of two models that correspond. */
export interface OutputPairs {
  /** From a to b. */
  readonly names: ReadonlyMap<string, string>;
  readonly pairedBy: OutputDifference['pairedBy'];
  readonly unpaired: { readonly a: readonly string[]; readonly b: readonly string[] };
}

/**
 * Pairs outputs of the same name; if there are none, and both models have as many outputs, by position.
 * @throws RangeError ERR_INVALID_ARG_VALUE
 */
export function pairOutputs(a: ComparedModel, b: ComparedModel): OutputPairs {
  const names = a.outputs.map(({ name }) => name);
  const others = b.outputs.map(({ name }) => name);
  const common = names.filter((name) => others.includes(name));
  if (common.length > 0) {
    const isCommon = (name: string) => common.includes(name);
    return {
      names: new Map(common.map((name) => [name, name])),
      pairedBy: 'name',
      unpaired: { a: names.filter((name) => !isCommon(name)), b: others.filter((name) => !isCommon(name)) },
    };
  }
  if (names.length !== others.length) {
    throw invalidArgValue(
      'b',
      `has no output in common with a: a gives ${names.join(', ')}, and b ${others.join(', ')}.`,
    );
  }
  return {
    names: new Map(names.map((name, i) => [name, others[i]!])),
    pairedBy: 'position',
    unpaired: { a: [], b: [] },
  };
}

/** A run's results, by output name. */
export type Outputs = Readonly<Record<string, Tensor>>;

/**
 * Compares one output of one sample.
 * @throws RangeError ERR_SHAPE_MISMATCH
 */
export function tensorDifference(name: string, reference: Tensor, other: Tensor): Difference {
  const [x, y] = [reference.dims, other.dims];
  if (x.length !== y.length || x.some((size, i) => size !== y[i])) {
    throw shapeMismatch(
      `The output "${name}" has dimensions [${x}] in a and [${y}] in b: only outputs of the same dimensions can be compared.`,
    );
  }
  const [a, b] = [numbersOf(reference), numbersOf(other)];
  if (a && b) return differenceOf(a, b);
  return differenceOfStrings(
    reference.data as unknown as readonly string[],
    other.data as unknown as readonly string[],
  );
}

/** Collects how an output differs, sample by sample. */
export class OutputComparison {
  readonly #name: string;
  readonly #other: string;
  readonly #pairedBy: OutputDifference['pairedBy'];
  readonly #samples: Difference[] = [];
  #dims: Dims = [];
  #kind: OutputDifference['rows'];
  #rows = 0;
  #agreeing = 0;
  #divergence = 0;

  constructor(name: string, other: string, pairedBy: OutputDifference['pairedBy']) {
    this.#name = name;
    this.#other = other;
    this.#pairedBy = pairedBy;
  }

  add(reference: Tensor, other: Tensor): void {
    const isFirst = this.#samples.length === 0;
    this.#samples.push(tensorDifference(this.#name, reference, other));
    if (isFirst) this.#dims = reference.dims;
    const columns = reference.dims.at(-1) ?? 1;
    if (columns < 2 || !/float/.test(reference.type) || !/float/.test(other.type)) return;
    const [a, b] = [numbersOf(reference)!, numbersOf(other)!];
    if (isFirst) this.#kind = scoreKind(this.#name, reference.dims, a);
    const { agreeing, rows, divergence } = scoreAgreement(a, b, columns, this.#kind);
    this.#rows += rows;
    this.#agreeing += agreeing;
    this.#divergence += divergence;
  }

  get result(): OutputDifference {
    return {
      name: this.#name,
      other: this.#other,
      pairedBy: this.#pairedBy,
      dims: this.#dims,
      ...worst(this.#samples),
      ...(this.#rows > 0 ? { top1: this.#agreeing / this.#rows } : {}),
      ...(this.#rows > 0 && this.#kind ? { rows: this.#kind, kl: this.#divergence / this.#rows } : {}),
    };
  }
}
