import { invalidArgType, invalidArgValue } from '../base/errors.js';
import { FileTokenizer } from './file-tokenizer.js';
import { PieceWriter, type TokenPieces } from './piece-writer.js';
import type { Tokenizer } from './tokenizer.js';

/**
 * The UTF-8 of every token. For a tokenizer without `tokenBytes()`, it is the text that `decode()` adds for the token
 * after another one.
 * @param vocabulary the number of tokens to ask for, if the caller gave the tokenizer
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function tokenPieces(tokenizer: Tokenizer, vocabulary: number): TokenPieces {
  if (tokenizer instanceof FileTokenizer) return tokenizer.pieces;
  const bytesOf = tokenizer.tokenBytes?.bind(tokenizer) ?? bytesByDecoding(tokenizer);
  const writer = new PieceWriter(vocabulary, 8 * vocabulary);
  for (let token = 0; token < vocabulary; token++) {
    const bytes: unknown = bytesOf(token);
    if (!(bytes instanceof Uint8Array)) {
      throw invalidArgType(`options.tokenizer.tokenBytes(${token})`, 'a Uint8Array', bytes);
    }
    writer.bytes(bytes);
    writer.next();
  }
  return writer.pieces(false);
}

/**
 * The text that a token adds to another one's. Some tokenizers trim a text, so a token decoded alone would lose its
 * space.
 */
function bytesByDecoding(tokenizer: Tokenizer): (token: number) => Uint8Array {
  const encoded: unknown = tokenizer.encode('a');
  if (!Array.isArray(encoded)) {
    throw invalidArgType("options.tokenizer.encode('a')", 'an array of tokens', encoded);
  }
  const decode = (tokens: readonly number[]) => {
    const text: unknown = tokenizer.decode(tokens);
    if (typeof text !== 'string') throw invalidArgType('options.tokenizer.decode(tokens)', 'a string', text);
    return text;
  };
  const anchor = encoded.slice(-1);
  const alone = decode(anchor);
  if (alone === '')
    throw invalidArgValue('options.tokenizer', "encodes 'a' as tokens that it decodes to an empty text.");
  const utf8 = new TextEncoder();
  return (token) => {
    const both = decode([...anchor, token]);
    const problem = !both.startsWith(alone)
      ? 'changes the text of the token before it'
      : both.includes('\ufffd')
        ? 'is a part of a character'
        : undefined;
    if (problem) {
      throw invalidArgValue(
        'options.tokenizer',
        `needs a method tokenBytes(token): in what decode() gives, token ${token} ${problem}.`,
      );
    }
    return utf8.encode(both.slice(alone.length));
  };
}
