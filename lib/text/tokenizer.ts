import path from 'node:path';
import type { Tokenizer as HuggingFaceEncoder } from '@huggingface/tokenizers';
import { describe, invalidArgType, invalidArgValue, TensorRTError } from '../base/errors.js';
import { checkOptions, refuseCloning } from '../base/options.js';
import { readJson } from '../system/files/text-file.js';

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

/** Every token's UTF-8, for native to make text of. */
export interface TokenPieces {
  /** Token i's is `bytes.subarray(offsets[i], offsets[i + 1])`. */
  readonly bytes: Uint8Array;
  readonly offsets: Uint32Array;
  /** Does a text lose the space that it begins with? */
  readonly stripLeadingSpace: boolean;
}

type Json = Readonly<Record<string, unknown>>;

/** What this reads of tokenizer.json; the rest is for @huggingface/tokenizers. */
interface TokenizerFile {
  readonly model: {
    readonly type?: string;
    readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[];
  };
  readonly added_tokens: readonly AddedToken[];
  readonly decoder: Json | null;
  readonly post_processor: Json | null;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/**
 * Reads tokenizer.json and tokenizer_config.json, as Hugging Face's libraries write them; undefined where there is no
 * tokenizer.json. Text is what `decode(…, clean_up_tokenization_spaces=False)` of transformers gives: what the model
 * wrote, with no space dropped before a comma.
 * @throws (rejects) TensorRTError ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO
 */
export async function readTokenizer(directory: string): Promise<Tokenizer | undefined> {
  const file = path.join(directory, 'tokenizer.json');
  const [values, config] = await Promise.all([readJson(file), readTokenizerConfig(directory)]);
  if (!values) return undefined;
  const { tokenizer, pieces, postProcessor } = parseTokenizer(values, config, file);
  // Only now: importing this package is to cost nothing.
  const { Tokenizer: Encoder } = await import('@huggingface/tokenizers');
  let encoder: HuggingFaceEncoder;
  try {
    encoder = new Encoder(
      { normalizer: null, pre_tokenizer: null, ...tokenizer, post_processor: postProcessor ?? null },
      config,
    );
  } catch (cause) {
    const message = `${file} can't be used: ${(cause as Error).message}. Give a tokenizer as options.tokenizer.`;
    throw new TensorRTError('ERR_MODEL_UNSUPPORTED', message, { cause });
  }
  return new FileTokenizer(encoder, pieces);
}

/** tokenizer_config.json, and what only special_tokens_map.json says. */
export async function readTokenizerConfig(directory: string): Promise<Json> {
  const [map = {}, config = {}] = await Promise.all(
    ['special_tokens_map.json', 'tokenizer_config.json'].map((name) => readJson(path.join(directory, name))),
  );
  const said = Object.entries(config).filter(([, value]) => value !== null);
  return { ...map, ...Object.fromEntries(said) };
}

/** The token that a text is, where it is one. */
function tokenOf(text: string, tokenizer: Tokenizer): number | undefined {
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

/**
 * The token that ends an answer, as the tokenizer's files beside a model name it; none where they don't, or where it is no
 * token.
 * @throws (rejects) TensorRTError ERR_MODEL_INVALID, ERR_IO
 */
export async function readEosToken(directory: string, tokenizer: Tokenizer | undefined): Promise<number[]> {
  const config = await readTokenizerConfig(directory);
  const text = tokenText(config.eos_token);
  if (text === undefined) return [];
  const added = Object.entries((config.added_tokens_decoder ?? {}) as Record<string, Json>);
  const [id] = added.find(([, token]) => token?.content === text) ?? [];
  const token = id === undefined ? tokenizer && tokenOf(text, tokenizer) : Number(id);
  return token !== undefined && Number.isInteger(token) ? [token] : [];
}

const modelTypes: readonly string[] = ['BPE', 'Unigram', 'WordPiece', 'WordLevel'];

/** @throws TensorRTError ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED */
function parseTokenizer(values: Json, config: Json, file: string) {
  try {
    const tokenizer = { ...values, added_tokens: allAddedTokens(values, config) } as unknown as TokenizerFile;
    const vocabulary = tokenizer.model?.vocab;
    if (typeof vocabulary !== 'object' || vocabulary === null) throw new Error('it has no vocabulary');
    // Of others @huggingface/tokenizers guesses what they are.
    const { type = 'BPE' } = tokenizer.model;
    if (!modelTypes.includes(type)) {
      const message = `${file}: the model ${type} is not supported. Give a tokenizer as options.tokenizer.`;
      throw new TensorRTError('ERR_MODEL_UNSUPPORTED', message);
    }
    const pieces = piecesOfFile(tokenizer, file);
    return { tokenizer, pieces, postProcessor: sentenceEnds(tokenizer, config) ?? tokenizer.post_processor };
  } catch (cause) {
    // A file that is valid JSON may have anything anywhere.
    if (cause instanceof TensorRTError) throw cause;
    const message = `${file} is no tokenizer: ${(cause as Error).message}.`;
    throw new TensorRTError('ERR_MODEL_INVALID', message, { cause });
  }
}

/**
 * Every token's UTF-8. Of a tokenizer that has no `tokenBytes()` it is what `decode()` shows of the token after another.
 * @param vocabulary how many tokens to ask a tokenizer for that a caller gave
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

class FileTokenizer implements Tokenizer {
  readonly #pieces: TokenPieces;
  readonly #encoder: HuggingFaceEncoder;
  /** As Rust's from_utf8_lossy: one U+FFFD for each maximal part of a character. */
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(encoder: HuggingFaceEncoder, pieces: TokenPieces) {
    this.#encoder = encoder;
    this.#pieces = pieces;
    refuseCloning(this);
  }

  // Not a property of its own: JSON and console.log would have the whole vocabulary.
  get pieces(): TokenPieces {
    return this.#pieces;
  }

  encode(text: string, options: { specialTokens?: boolean } = {}): number[] {
    if (typeof text !== 'string') throw invalidArgType('text', 'a string', text);
    checkOptions(options, 'options', ['specialTokens'], {});
    const { specialTokens = true } = options;
    if (typeof specialTokens !== 'boolean') {
      throw invalidArgType('options.specialTokens', 'a boolean', specialTokens);
    }
    const { ids } = this.#encoder.encode(text, { add_special_tokens: specialTokens });
    // What a vocabulary without an unknown token lacks has no id.
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

const roles = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];

/**
 * tokenizer.json's, and what transformers adds when it loads: those that only tokenizer_config.json has, and tokens with
 * a role.
 */
function allAddedTokens(tokenizer: Json, config: Json): AddedToken[] {
  const added = [...((tokenizer.added_tokens ?? []) as AddedToken[])];
  const ids = new Set(added.map((token) => token.id));
  for (const [id, token] of Object.entries((config.added_tokens_decoder ?? {}) as Record<string, Json>)) {
    if (!ids.has(Number(id))) added.push({ ...token, id: Number(id) } as unknown as AddedToken);
  }
  const vocabulary = (tokenizer.model as Json | undefined)?.vocab as Record<string, number> | undefined;
  for (const role of roles) {
    const content = tokenText(config[role]);
    if (content === undefined || added.some((token) => token.content === content)) continue;
    const id = Array.isArray(vocabulary)
      ? vocabulary.findIndex(([text]) => text === content)
      : (vocabulary?.[content] ?? -1);
    if (id >= 0) added.push({ id, content, special: true });
  }
  return added;
}

/**
 * The post-processor that transformers puts in place of the file's: LlamaTokenizerFast and its kin go by
 * `add_bos_token` and `add_eos_token` of tokenizer_config.json.
 */
function sentenceEnds(tokenizer: TokenizerFile, config: Json): Json | undefined {
  if (!/^(Llama|CodeLlama|Gemma|Cohere)Tokenizer(Fast)?$/.test(String(config.tokenizer_class)))
    return undefined;
  if (typeof config.add_bos_token !== 'boolean' && typeof config.add_eos_token !== 'boolean')
    return undefined;
  const special_tokens: Record<string, unknown> = {};
  const ending = (name: 'bos_token' | 'eos_token', isAdded: unknown) => {
    const id = tokenText(config[name]);
    if (!isAdded || id === undefined) return [];
    const token = tokenizer.added_tokens.find(({ content }) => content === id);
    if (!token) return [];
    special_tokens[id] = { id, ids: [token.id], tokens: [id] };
    return [{ SpecialToken: { id, type_id: 0 } }];
  };
  const single = [
    ...ending('bos_token', config.add_bos_token ?? true),
    { Sequence: { id: 'A', type_id: 0 } },
    ...ending('eos_token', config.add_eos_token),
  ];
  return { type: 'TemplateProcessing', single, pair: single, special_tokens };
}

/** A token as tokenizer_config.json names it: its text, or an object with it. */
export function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  const content = (token as Json | null | undefined)?.content;
  return typeof content === 'string' ? content : undefined;
}

/** What a decoder of tokenizer.json makes of a token, wherever in a text it is. */
interface Decoding {
  readonly steps: ((token: string) => string)[];
  /** How the result stands for bytes. 'byte-level': a character each (GPT-2's). 'byte-fallback': `<0x0A>` is one. */
  bytes: 'utf-8' | 'byte-level' | 'byte-fallback';
  /** What comes next sees the whole text. */
  isFused: boolean;
  stripLeadingSpace: boolean;
}

/** More than any vocabulary has; a damaged id must not cost gigabytes. */
const mostTokens = 2 ** 24;

function piecesOfFile(tokenizer: TokenizerFile, file: string): TokenPieces {
  const decoding: Decoding = { steps: [], bytes: 'utf-8', isFused: false, stripLeadingSpace: false };
  readDecoder(tokenizer.decoder ?? null, decoding, file);

  const texts: (string | undefined)[] = [];
  const add = (id: number, text: string) => {
    if (typeof text !== 'string' || !Number.isInteger(id) || id < 0 || id >= mostTokens) {
      throw new Error(`it has the token ${JSON.stringify(id)}, ${JSON.stringify(text)}`);
    }
    texts[id] = text;
  };
  const { vocab } = tokenizer.model;
  if (Array.isArray(vocab)) {
    vocab.forEach(([text], id) => {
      add(id, text);
    });
  } else {
    // Object.entries() takes three times as long.
    for (const text of Object.keys(vocab)) add((vocab as Record<string, number>)[text]!, text);
  }
  for (const { id, content } of tokenizer.added_tokens) add(id, content);
  let characters = 0;
  for (const { id, special } of tokenizer.added_tokens) if (special) texts[id] = undefined;
  for (let token = 0; token < texts.length; token++) characters += texts[token]?.length ?? 0;

  const writer = new PieceWriter(texts.length, 4 * characters);
  for (let token = 0; token < texts.length; token++) {
    let text = texts[token];
    if (text !== undefined) {
      for (const step of decoding.steps) text = step(text);
      const byte = decoding.bytes === 'byte-fallback' ? /^<0x([\dA-Fa-f]{2})>$/.exec(text) : null;
      if (byte) writer.bytes(Uint8Array.of(Number.parseInt(byte[1]!, 16)));
      else if (decoding.bytes !== 'byte-level' || !writer.byteLevel(text)) writer.text(text);
    }
    writer.next();
  }
  return writer.pieces(decoding.stripLeadingSpace);
}

/** Adds a decoder to `decoding`. What each does is said by tokenizers/src/decoders of Hugging Face's Rust library. */
function readDecoder(decoder: Json | null, decoding: Decoding, file: string): void {
  const unsupported = (problem: string) =>
    new TensorRTError('ERR_MODEL_UNSUPPORTED', `${file}: ${problem}. Give a tokenizer as options.tokenizer.`);
  const type = decoder?.type;
  if (decoding.isFused && type !== 'Strip')
    throw unsupported(`the decoder ${type} after Fuse is not supported`);
  const space = ' ';
  switch (type) {
    case undefined: // words, joined by spaces
      decoding.steps.push((token) => space + token);
      decoding.stripLeadingSpace = true;
      return;
    case 'Sequence':
      for (const each of decoder!.decoders as Json[]) readDecoder(each, decoding, file);
      return;
    case 'ByteLevel':
      decoding.bytes = 'byte-level';
      return;
    case 'ByteFallback':
      decoding.bytes = 'byte-fallback';
      return;
    case 'Fuse':
      decoding.isFused = true;
      return;
    case 'Replace': {
      const pattern = (decoder!.pattern as Json | undefined)?.String;
      if (typeof pattern !== 'string')
        throw unsupported('its decoder Replace has a pattern that is no string');
      const content = String(decoder!.content ?? '');
      decoding.steps.push((token) => token.replaceAll(pattern, content));
      return;
    }
    case 'Metaspace': {
      const replacement = String(decoder!.replacement ?? '▁');
      decoding.steps.push((token) => token.replaceAll(replacement, space));
      // Older files say it with add_prefix_space.
      decoding.stripLeadingSpace = decoder!.prepend_scheme
        ? decoder!.prepend_scheme !== 'never'
        : decoder!.add_prefix_space !== false;
      return;
    }
    case 'WordPiece': {
      const prefix = String(decoder!.prefix ?? '##');
      decoding.steps.push((token) => (token.startsWith(prefix) ? token.slice(prefix.length) : space + token));
      if (decoder!.cleanup !== false) decoding.steps.push(withoutSpaceBeforePunctuation);
      decoding.stripLeadingSpace = true;
      return;
    }
    case 'Strip': {
      const [content, start, stop] = [
        String(decoder!.content),
        Number(decoder!.start),
        Number(decoder!.stop),
      ];
      if (decoding.isFused) {
        if (content !== space || start > 1 || stop > 0)
          throw unsupported('its decoder strips more than one space');
        decoding.stripLeadingSpace = start === 1;
        return;
      }
      decoding.steps.push((token) => {
        let [begin, end] = [0, token.length];
        while (begin < Math.min(start, end) && token[begin] === content) begin++;
        while (end > begin && token.length - end < stop && token[end - 1] === content) end--;
        return token.slice(begin, end);
      });
      return;
    }
    default:
      throw unsupported(`the decoder ${type} is not supported`);
  }
}

/** WordPiece's `cleanup`, of one token. */
function withoutSpaceBeforePunctuation(token: string): string {
  return token
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}

/**
 * By UTF-16 unit, the byte that GPT-2's byte-level tokens write so, or -1: printable characters of Latin-1 are themselves,
 * the others follow from U+0100 (`bytes_to_unicode` of GPT-2's encoder.py).
 */
const byteOfUnit = (() => {
  const table = new Int16Array(0x144).fill(-1);
  let next = 0x100;
  for (let byte = 0; byte < 0x100; byte++) {
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    table[isPrintable ? byte : next++] = byte;
  }
  return table;
})();

/** Writes one piece after the other. */
class PieceWriter {
  readonly #offsets: Uint32Array;
  readonly #utf8 = new TextEncoder();
  #bytes: Uint8Array;
  #length = 0;
  #token = 0;

  constructor(tokens: number, bytes: number) {
    this.#offsets = new Uint32Array(tokens + 1);
    this.#bytes = new Uint8Array(Math.max(bytes, 64));
  }

  text(text: string): void {
    this.#reserve(3 * text.length);
    this.#length += this.#utf8.encodeInto(text, this.#bytes.subarray(this.#length)).written;
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** False, and nothing is written, where a character stands for no byte: such a token is text. */
  byteLevel(text: string): boolean {
    this.#reserve(text.length);
    for (let i = 0; i < text.length; i++) {
      const byte = byteOfUnit[text.charCodeAt(i)] ?? -1;
      if (byte < 0) return false;
      this.#bytes[this.#length + i] = byte;
    }
    this.#length += text.length;
    return true;
  }

  /** The token's is complete. */
  next(): void {
    this.#offsets[++this.#token] = this.#length;
  }

  pieces(stripLeadingSpace: boolean): TokenPieces {
    return { bytes: this.#bytes.slice(0, this.#length), offsets: this.#offsets, stripLeadingSpace };
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const larger = new Uint8Array(2 * (this.#length + bytes));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}

/** What a token adds to another's text: some tokenizers trim a text, so that alone it would lack its space. */
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
    throw invalidArgValue('options.tokenizer', "encodes 'a' to tokens that it decodes to nothing.");
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
