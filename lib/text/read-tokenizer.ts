import path from 'node:path';
import type { Tokenizer as HuggingFaceEncoder } from '@huggingface/tokenizers';
import { TensorRTError } from '../base/errors.js';
import type { Json } from '../base/json.js';
import { readJson } from '../system/files/text-file.js';
import { FileTokenizer } from './file-tokenizer.js';
import { PieceWriter, type TokenPieces } from './piece-writer.js';
import { type Decoding, readDecoder } from './token-decoder.js';
import type { Tokenizer } from './tokenizer.js';
import { readTokenizerConfig, tokenRoles, tokenText } from './tokenizer-config.js';

/** The fields of tokenizer.json that are read here; @huggingface/tokenizers reads the rest. */
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
 * Reads tokenizer.json and tokenizer_config.json, as Hugging Face's libraries write them; undefined without a
 * tokenizer.json. Text is decoded as transformers does with `decode(…, clean_up_tokenization_spaces=False)`: exactly
 * what the model wrote, with no space dropped before a comma.
 * @throws (rejects) TensorRTError ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO
 */
export async function readTokenizer(directory: string): Promise<Tokenizer | undefined> {
  const file = path.join(directory, 'tokenizer.json');
  const [values, config] = await Promise.all([readJson(file), readTokenizerConfig(directory)]);
  if (!values) return undefined;
  const { tokenizer, pieces, postProcessor } = parseTokenizer(values, config, file);
  // Loaded only now, so that importing this package stays cheap.
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

const modelTypes: readonly string[] = ['BPE', 'Unigram', 'WordPiece', 'WordLevel'];

/** @throws TensorRTError ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED */
function parseTokenizer(values: Json, config: Json, file: string) {
  try {
    const tokenizer = { ...values, added_tokens: allAddedTokens(values, config) } as unknown as TokenizerFile;
    const vocabulary = tokenizer.model?.vocab;
    if (typeof vocabulary !== 'object' || vocabulary === null) throw new Error('it has no vocabulary');
    // For a file without a type, @huggingface/tokenizers guesses it.
    const { type = 'BPE' } = tokenizer.model;
    if (!modelTypes.includes(type)) {
      const message = `${file}: the model ${type} is not supported. Give a tokenizer as options.tokenizer.`;
      throw new TensorRTError('ERR_MODEL_UNSUPPORTED', message);
    }
    const pieces = piecesOfFile(tokenizer, file);
    return { tokenizer, pieces, postProcessor: sentenceEnds(tokenizer, config) ?? tokenizer.post_processor };
  } catch (cause) {
    // A file may be valid JSON and still have unexpected values anywhere.
    if (cause instanceof TensorRTError) throw cause;
    const message = `${file} is not a valid tokenizer: ${(cause as Error).message}.`;
    throw new TensorRTError('ERR_MODEL_INVALID', message, { cause });
  }
}

/**
 * The added tokens of tokenizer.json, and those that transformers adds when it loads the files: tokens that are only in
 * tokenizer_config.json, and tokens with a role.
 */
function allAddedTokens(tokenizer: Json, config: Json): AddedToken[] {
  const added = [...((tokenizer.added_tokens ?? []) as AddedToken[])];
  const ids = new Set(added.map((token) => token.id));
  for (const [id, token] of Object.entries((config.added_tokens_decoder ?? {}) as Record<string, Json>)) {
    if (!ids.has(Number(id))) added.push({ ...token, id: Number(id) } as unknown as AddedToken);
  }
  const vocabulary = (tokenizer.model as Json | undefined)?.vocab as Record<string, number> | undefined;
  for (const role of tokenRoles) {
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
 * The post-processor with which transformers replaces the file's own: LlamaTokenizerFast and related classes use
 * `add_bos_token` and `add_eos_token` of tokenizer_config.json instead.
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

/** More than any vocabulary has, so that a damaged id doesn't cost gigabytes. */
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
    // Object.entries() would take three times as long.
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
