/**
 * A size, or an element of a shape. It is a polynomial with integer coefficients in the sizes that are known only at
 * run time: `4`, `rows`, `past + new`, `2*rows*new`.
 */
export class Size {
  /**
   * Coefficients by monomial. A monomial is written as its symbols, sorted and joined by `*`; '' is the constant. No
   * coefficient is zero.
   */
  readonly #terms: ReadonlyMap<string, number>;

  private constructor(terms: Map<string, number>) {
    for (const [monomial, factor] of terms) if (factor === 0) terms.delete(monomial);
    this.#terms = terms;
  }

  static of(value: number | string): Size {
    return new Size(typeof value === 'number' ? new Map([['', value]]) : new Map([[value, 1]]));
  }

  /** The size as a number; undefined if it isn't the same in every run. */
  get constant(): number | undefined {
    if (this.#terms.size === 0) return 0;
    return this.#terms.size === 1 ? this.#terms.get('') : undefined;
  }

  plus(other: Size): Size {
    const terms = new Map(this.#terms);
    for (const [monomial, factor] of other.#terms) terms.set(monomial, (terms.get(monomial) ?? 0) + factor);
    return new Size(terms);
  }

  minus(other: Size): Size {
    return this.plus(other.times(Size.of(-1)));
  }

  times(other: Size): Size {
    const terms = new Map<string, number>();
    for (const [a, x] of this.#terms) {
      for (const [b, y] of other.#terms) {
        const monomial = [...symbols(a), ...symbols(b)].sort().join('*');
        terms.set(monomial, (terms.get(monomial) ?? 0) + x * y);
      }
    }
    return new Size(terms);
  }

  /** Returns the quotient if the divisor is a single term and leaves no remainder, and undefined otherwise. */
  dividedBy(divisor: Size): Size | undefined {
    if (divisor.#terms.size !== 1) return undefined;
    const [[monomial, factor]] = divisor.#terms as unknown as [[string, number]];
    const terms = new Map<string, number>();
    for (const [each, x] of this.#terms) {
      const rest = symbols(each);
      for (const symbol of symbols(monomial)) {
        const at = rest.indexOf(symbol);
        if (at < 0) return undefined;
        rest.splice(at, 1);
      }
      if (x % factor !== 0) return undefined;
      terms.set(rest.join('*'), x / factor);
    }
    return new Size(terms);
  }

  equals(other: Size): boolean {
    return this.minus(other).#terms.size === 0;
  }

  /** True if the size can't be negative, because none of its terms is subtracted. */
  get isCount(): boolean {
    return [...this.#terms.values()].every((factor) => factor > 0);
  }

  dependsOn(symbol: string): boolean {
    return [...this.#terms.keys()].some((monomial) => symbols(monomial).includes(symbol));
  }

  evaluate(values: Readonly<Record<string, number>>): number {
    let sum = 0;
    for (const [monomial, factor] of this.#terms) {
      sum += symbols(monomial).reduce((product, symbol) => product * values[symbol]!, factor);
    }
    return sum;
  }

  toString(): string {
    const terms = [...this.#terms].map(([monomial, factor]) =>
      monomial === '' ? `${factor}` : factor === 1 ? monomial : `${factor}*${monomial}`,
    );
    return terms.join(' + ') || '0';
  }
}

function symbols(monomial: string): string[] {
  return monomial === '' ? [] : monomial.split('*');
}

export function product(sizes: readonly Size[]): Size {
  return sizes.reduce((all, size) => all.times(size), Size.of(1));
}

/** True if the sizes equal the expected ones, which are numbers, or polynomials in the form that `toString` writes. */
export function isShape(shape: readonly Size[] | undefined, expected: readonly (string | number)[]): boolean {
  return (
    shape?.length === expected.length &&
    expected.every((dim, i) => (typeof dim === 'number' ? shape[i]!.constant === dim : `${shape[i]}` === dim))
  );
}
