import { invalidArgType } from '../base/errors.js';

/** Turns text into a model's tokens and back. */
export interface Tokenizer {
  /**
   * Turns text into tokens.
   * @param options.specialTokens adds the special tokens that a text of its own begins or ends with, such as `<s>`.
   *   Defaults to true
   */
  encode(text: string, options?: { specialTokens?: boolean }): number[];
  /** Turns tokens into text, without special tokens. Bytes that aren't UTF-8 become U+FFFD. */
  decode(tokens: readonly number[]): string;
  /**
   * Returns the UTF-8 bytes that a token adds to a text; none for a special token. It is needed if a token may be a part
   * of a character, because `decode()` can't return that.
   */
  tokenBytes?(token: number): Uint8Array;
}

/** Checks that a caller's tokenizer has the methods. @throws TypeError ERR_INVALID_ARG_TYPE */
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

/** Returns the token that stands for a whole text; undefined if it takes several. */
export function tokenOf(text: string, tokenizer: Tokenizer): number | undefined {
  const tokens = tokenizer.encode(text, { specialTokens: false });
  return tokens.length === 1 ? tokens[0] : undefined;
}

/** Returns the special token that stands for a whole text; undefined if there is none. Answers don't show these. */
export function specialToken(text: string, tokenizer: Tokenizer): number | undefined {
  const token = tokenOf(text, tokenizer);
  if (token === undefined) return undefined;
  const shown = tokenizer.tokenBytes ? tokenizer.tokenBytes(token).length : tokenizer.decode([token]).length;
  return shown === 0 ? token : undefined;
}
