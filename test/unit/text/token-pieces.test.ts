import { describe, expect, test } from 'vitest';
import { tokenPieces } from '../../../dist/text/token-pieces.js';
import { checkTokenizer, type Tokenizer } from '../../../dist/text/tokenizer.js';

describe('tokenizers that a caller gives', () => {
  /** One token per word, with the space before it; decode() trims. */
  const words = ['<end>', ' a', ' é', ' 🦊', 's', ' a\ufffd'];
  const given: Tokenizer = {
    encode: (text) => [...text.matchAll(/ ?\S+/g)].map(([word]) => words.indexOf(` ${word.trim()}`)),
    decode: (tokens) =>
      tokens
        .map((token) => (token === 0 ? '' : words[token]))
        .join('')
        .trimStart(),
  };
  const textOf = ({ bytes, offsets }: ReturnType<typeof tokenPieces>, token: number) =>
    Buffer.from(bytes.subarray(offsets[token], offsets[token + 1])).toString();

  test("a piece is what a token adds to another's text", () => {
    const pieces = tokenPieces(given, 5);
    expect([0, 1, 2, 3, 4].map((token) => textOf(pieces, token))).toEqual(['', ' a', ' é', ' 🦊', 's']);
    expect(pieces.stripLeadingSpace).toBe(false);
  });

  test('a tokenizer whose tokens may be parts of characters must give their bytes', () => {
    expect(() => tokenPieces(given, 6)).toThrowError(
      expect.objectContaining({
        code: 'ERR_INVALID_ARG_VALUE',
        message: expect.stringContaining('tokenBytes'),
      }),
    );
    const tokenBytes = (token: number) => (token === 5 ? Uint8Array.of(0xf0, 0x9f) : Buffer.from('x'));
    const pieces = tokenPieces({ ...given, tokenBytes }, 6);
    expect([...pieces.bytes.subarray(pieces.offsets[5])]).toEqual([0xf0, 0x9f]);
    expect(() => tokenPieces({ ...given, tokenBytes: () => 'a' as never }, 2)).toThrowError(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
    );
  });

  test('an invalid tokenizer is refused', () => {
    for (const value of [null, 'gpt2', {}, { encode: () => [] }]) {
      expect(() => checkTokenizer(value, 'options.tokenizer')).toThrowError(
        expect.objectContaining({
          code: 'ERR_INVALID_ARG_TYPE',
          message: expect.stringContaining('options.tokenizer'),
        }),
      );
    }
    checkTokenizer(given, 'options.tokenizer');
    expect(() => checkTokenizer({ ...given, tokenBytes: 5 }, 'options.tokenizer')).toThrowError(
      /^options\.tokenizer\.tokenBytes must be a function, not 5/,
    );
  });

  test('a method that returns no tokens, or no text, is refused by name', () => {
    const async = { encode: async () => [1], decode: async () => 'a' };
    for (const [odd, message] of [
      [{ encode: async.encode }, /^options\.tokenizer\.encode\('a'\) must be .* not a Promise/],
      [{ encode: () => Int32Array.of(1) }, /^options\.tokenizer\.encode\('a'\) must be .* not an Int32Array/],
      [{ decode: async.decode }, /^options\.tokenizer\.decode\(tokens\) must be a string, not a Promise/],
    ] as const) {
      expect(() => tokenPieces({ ...given, tokenBytes: undefined, ...odd } as never, 2)).toThrowError(
        expect.objectContaining({
          code: 'ERR_INVALID_ARG_TYPE',
          message: expect.stringMatching(message),
        }),
      );
    }
  });
});
