/** A size's range in a profile: the smallest, the one tuned for, the largest. */
export type SizeRange = readonly [min: number, opt: number, max: number];

/** A dimension's size, parsed from the name that an exporter gave it: `batch`, `past + sequence`, `2*s0`. */
export type Dimension =
  | { readonly kind: 'size'; readonly value: number }
  | { readonly kind: 'symbol'; readonly name: string }
  | {
      readonly kind: 'operation';
      readonly operator: Operator;
      readonly operands: readonly [Dimension, Dimension];
    };

type Operator = '+' | '-' | '*' | '/';

/**
 * The loosest operator first. Minus signs and slashes also occur within names, so they count only with spaces around
 * them.
 */
const operators: readonly (readonly [RegExp, (found: string) => Operator])[] = [
  [/^(.+?)(\s*\+\s*|\s+-\s+)(?!.*(\+|\s-\s))(.+)$/, (found) => found as Operator],
  [/^(.+?)(\s*\*\s*|\s+\/\/?\s+)(?!.*(\*|\s\/\/?\s))(.+)$/, (found) => found[0] as Operator],
];

/** Parses a dimension's name. A name that can't be parsed is a symbol. */
export function parseDimension(text: string): Dimension {
  const name = text.trim();
  if (/^\d{1,10}$/.test(name)) return { kind: 'size', value: Number(name) };
  // Profiles don't need parentheses and functions, as in `floor((s0 - 1)/2)`.
  if (!/[()]/.test(name)) {
    for (const [pattern, operator] of operators) {
      const [, left, found, , right] = pattern.exec(name) ?? [];
      if (left === undefined || found === undefined || right === undefined) continue;
      const operands = [parseDimension(left), parseDimension(right)] as const;
      return { kind: 'operation', operator: operator(found.trim()), operands };
    }
  }
  return { kind: 'symbol', name };
}

/** The symbols in a dimension, in order, without repetitions. */
export function symbolsIn(dimension: Dimension): string[] {
  switch (dimension.kind) {
    case 'size':
      return [];
    case 'symbol':
      return [dimension.name];
    case 'operation':
      return [...new Set(dimension.operands.flatMap(symbolsIn))];
  }
}

/**
 * The dimension's range: its minimum from the symbols' minimums, and so on. Undefined if a symbol's range isn't known.
 */
export function rangeOfDimension(
  dimension: Dimension,
  rangeOf: (symbol: string) => SizeRange | undefined,
): SizeRange | undefined {
  if (dimension.kind === 'size') return [dimension.value, dimension.value, dimension.value];
  if (dimension.kind === 'symbol') return rangeOf(dimension.name);
  const [left, right] = dimension.operands.map((operand) => rangeOfDimension(operand, rangeOf));
  if (!left || !right) return undefined;
  return eachSide((side) => calculate(dimension.operator, left[side], right[side]));
}

function calculate(operator: Operator, left: number, right: number): number {
  switch (operator) {
    case '+':
      return left + right;
    case '-':
      return left - right;
    case '*':
      return left * right;
    case '/':
      return Math.floor(left / right);
  }
}

/**
 * Solves a sum for its one unknown symbol, given the sum's range. Undefined if the number of unknown symbols isn't one,
 * or if the dimension holds anything but sums.
 */
export function solveForSymbol(
  dimension: Dimension,
  range: SizeRange,
  rangeOf: (symbol: string) => SizeRange | undefined,
): { symbol: string; range: SizeRange } | undefined {
  const terms = termsOf(dimension);
  const unknown = terms?.filter((term) => term.kind === 'symbol' && !rangeOf(term.name));
  const [symbol] = unknown ?? [];
  if (!terms || unknown?.length !== 1 || symbol?.kind !== 'symbol') return undefined;
  const others = terms.filter((term) => term !== symbol).map((term) => rangeOfDimension(term, rangeOf));
  if (!others.every((other) => other !== undefined)) return undefined;
  const rest = (side: 0 | 1 | 2) => others.reduce((sum, other) => sum + other[side], 0);
  return { symbol: symbol.name, range: eachSide((side) => range[side] - rest(side)) };
}

function termsOf(dimension: Dimension): Dimension[] | undefined {
  if (dimension.kind !== 'operation') return [dimension];
  if (dimension.operator !== '+') return undefined;
  const [left, right] = dimension.operands.map(termsOf);
  return left && right && [...left, ...right];
}

function eachSide(value: (side: 0 | 1 | 2) => number): SizeRange {
  return [value(0), value(1), value(2)];
}
