import { invalidArgType } from '../base/errors.js';

/** Between text and a model's tokens. */
export interface Tokenizer {
  /** `specialTokens`: with those that a text of its own begins or ends with, e.g. `<s>`. Default true. */
  encode(text: string, options?: { specialTokens?: boolean }): number[];
  /** Without special tokens. What is not UTF-8 becomes U+FFFD. */
  decode(tokens: readonly number[]): string;
  /**
   * The UTF-8 that a token adds to a text; none of a special token. Needed where a token may be a part of a character:
   * `decode()` can't tell these.
   */
  tokenBytes?(token: number): Uint8Array;
}

/** @throws TypeError ERR_INVALID_ARG_TYPE where a caller's tokenizer lacks a method */
export function checkTokenizer(tokenizer: unknown, path: string): asserts tokenizer is Tokenizer {
  if (typeof tokenizer !== 'object' || tokenizer === null) {
    throw invalidArgType(path, 'a tokenizer: { encode(text), decode(tokens) }', tokenizer);
  }
  for (const method of ['encode', 'decode'] as const) {
    const value = (tokenizer as Partial<Tokenizer>)[method];
    if (typeof value !== 'function') throw invalidArgType(`${path}.${method}`, 'a function', value);
  }
  const { tokenBytes } = tokenizer as Partial<Tokenizer>;
  if (tokenBytes !== undefined && typeof tokenBytes !== 'function') {
    throw invalidArgType(`${path}.tokenBytes`, 'a function', tokenBytes);
  }
}

/** The token that a text is, where it is one. */
export function tokenOf(text: string, tokenizer: Tokenizer): number | undefined {
  const tokens = tokenizer.encode(text, { specialTokens: false });
  return tokens.length === 1 ? tokens[0] : undefined;
}

/** The token that a text is, where it is one of those that answers don't show. */
export function specialToken(text: string, tokenizer: Tokenizer): number | undefined {
  const token = tokenOf(text, tokenizer);
  if (token === undefined) return undefined;
  const shown = tokenizer.tokenBytes ? tokenizer.tokenBytes(token).length : tokenizer.decode([token]).length;
  return shown === 0 ? token : undefined;
}
