import { smallestNormalFloat16 } from '../../base/float16.js';
import type { GraphFacts } from './graph-facts.js';
import type { LowType } from './low-type.js';

/** The effect of rounding a float32 constant to 16 bits. */
export interface Rounding {
  /** The reason why the constant can't be rounded at all. */
  readonly refusal?: string;
  /**
   * 'some': rounding makes some of the values zero. 'all': all of the values are zero or too small for FP16's full
   * precision.
   */
  readonly vanishing: 'none' | 'some' | 'all';
}

/** The effects of rounding a graph's constants. Each constant is read once. */
export class WeightRounding {
  readonly #facts: GraphFacts;
  readonly #type: LowType;
  readonly #known = new Map<string, Rounding>();

  constructor(facts: GraphFacts, type: LowType) {
    this.#facts = facts;
    this.#type = type;
  }

  of(constant: string): Rounding {
    let rounding = this.#known.get(constant);
    if (!rounding) {
      const values = this.#facts.elements(constant);
      const refusal = this.#refusal(constant, values);
      rounding =
        refusal === undefined ? { vanishing: this.#vanishing(values) } : { refusal, vanishing: 'none' };
      this.#known.set(constant, rounding);
    }
    return rounding;
  }

  #refusal(constant: string, values: Float32Array): string | undefined {
    const { label, limit, isExceededBy } = this.#type;
    if (isExceededBy(values)) return `"${constant}" has values beyond ${label}'s largest${limit}`;
    return values.length >= 16 && values.every((value, i) => value === i)
      ? `"${constant}" holds positions, which ${label} rounds once multiplied`
      : undefined;
  }

  #vanishing(values: Float32Array): Rounding['vanishing'] {
    if (this.#type.precision === 'bf16') return 'none';
    let [some, largest] = [false, 0];
    for (let i = 0; i < values.length; i++) {
      const magnitude = Math.abs(values[i]!);
      // Half of FP16's smallest number, 2^-24, is rounded to zero.
      if (magnitude > 0 && magnitude <= 2 ** -25) some = true;
      if (magnitude > largest) largest = magnitude;
    }
    if (largest > 0 && largest < smallestNormalFloat16) return 'all';
    return some ? 'some' : 'none';
  }
}
