import type { Tokenizer as HuggingFaceEncoder } from '@huggingface/tokenizers';
import { describe, invalidArgType, invalidArgValue } from '../base/errors.js';
import { boolean, type OptionTable, readOptions, refuseCloning } from '../base/options.js';
import type { TokenPieces } from './piece-writer.js';
import type { Tokenizer } from './tokenizer.js';

const encodeOptions = { specialTokens: boolean(true) } satisfies OptionTable<{ specialTokens?: boolean }>;

/**
 * The tokenizer of a tokenizer.json. @huggingface/tokenizers turns text into tokens; `pieces` turns
 * tokens back into text.
 */
export class FileTokenizer implements Tokenizer {
  readonly #pieces: TokenPieces;
  readonly #encoder: HuggingFaceEncoder;
  /** Like Rust's from_utf8_lossy: one U+FFFD for each maximal invalid part of a character. */
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(encoder: HuggingFaceEncoder, pieces: TokenPieces) {
    this.#encoder = encoder;
    this.#pieces = pieces;
    refuseCloning(this);
  }

  // A getter, so that JSON and console.log don't show the whole vocabulary.
  get pieces(): TokenPieces {
    return this.#pieces;
  }

  encode(text: string, options: { specialTokens?: boolean } = {}): number[] {
    if (typeof text !== 'string') throw invalidArgType('text', 'a string', text);
    const { specialTokens } = readOptions(options, 'options', encodeOptions);
    const { ids } = this.#encoder.encode(text, { add_special_tokens: specialTokens });
    // Without an unknown token, a text that isn't in the vocabulary has no id.
    return (ids as (number | undefined)[]).filter((id) => id !== undefined);
  }

  decode(tokens: readonly number[]): string {
    if (!Array.isArray(tokens)) throw invalidArgType('tokens', 'an array of tokens', tokens);
    const odd = tokens.findIndex((token) => !Number.isInteger(token) || token < 0);
    if (odd >= 0) throw invalidArgValue(`tokens[${odd}]`, `must be a token, not ${describe(tokens[odd])}.`);
    const bytes = Buffer.concat(tokens.map((token) => this.tokenBytes(token)));
    const begin = this.pieces.stripLeadingSpace && bytes[0] === 0x20 ? 1 : 0;
    return this.#utf8.decode(bytes.subarray(begin));
  }

  tokenBytes(token: number): Uint8Array {
    const { bytes, offsets } = this.pieces;
    return bytes.subarray(offsets[token] ?? bytes.length, offsets[token + 1] ?? bytes.length);
  }
}
