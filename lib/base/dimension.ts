/** A size in a profile: the smallest, the one tuned for, the largest. */
export type SizeRange = readonly [min: number, opt: number, max: number];

/** A dimension's size, as the name that an exporter gave it says: `batch`, `past + sequence`, `2*s0`. */
export type Dimension =
  | { readonly kind: 'size'; readonly value: number }
  | { readonly kind: 'symbol'; readonly name: string }
  | {
      readonly kind: 'operation';
      readonly operator: Operator;
      readonly operands: readonly [Dimension, Dimension];
    };

type Operator = '+' | '-' | '*' | '/';

/** The loosest first. Of minus and division, which also occur within names, only what stands alone is one. */
const operators: readonly (readonly [RegExp, (found: string) => Operator])[] = [
  [/^(.+?)(\s*\+\s*|\s+-\s+)(?!.*(\+|\s-\s))(.+)$/, (found) => found as Operator],
  [/^(.+?)(\s*\*\s*|\s+\/\/?\s+)(?!.*(\*|\s\/\/?\s))(.+)$/, (found) => found[0] as Operator],
];

/** A term that can't be taken apart remains a symbol. */
export function parseDimension(text: string): Dimension {
  const name = text.trim();
  if (/^\d{1,10}$/.test(name)) return { kind: 'size', value: Number(name) };
  // Parentheses and functions, as in `floor((s0 - 1)/2)`, are beyond what profiles need.
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

/** The names in a dimension, in order, without repetitions. */
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

/** The dimension's range, each side from the same side of its symbols; undefined if one of them is not known. */
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
 * The range of the one symbol of a sum that is not known, from the sum's own; undefined where there is not exactly
 * one, or where there are more than sums.
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
