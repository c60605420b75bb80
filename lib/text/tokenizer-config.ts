import path from 'node:path';
import type { Json } from '../base/json.js';
import { readJson } from '../system/files/text-file.js';
import { type Tokenizer, tokenOf } from './tokenizer.js';

/**
 * The tokens with a role, by their names in tokenizer_config.json and special_tokens_map.json. Templates may use them.
 */
export const tokenRoles = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
];

/** Reads tokenizer_config.json, plus fields that are only in special_tokens_map.json. */
export async function readTokenizerConfig(directory: string): Promise<Json> {
  const [map = {}, config = {}] = await Promise.all(
    ['special_tokens_map.json', 'tokenizer_config.json'].map((name) => readJson(path.join(directory, name))),
  );
  const said = Object.entries(config).filter(([, value]) => value !== null);
  return { ...map, ...Object.fromEntries(said) };
}

/** The text of a token in tokenizer_config.json, which is a string or an object that contains it. */
export function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  const content = (token as Json | null | undefined)?.content;
  return typeof content === 'string' ? content : undefined;
}

/**
 * The token that ends an answer, according to the tokenizer's files beside a model; undefined if they don't name one,
 * or if it isn't in the vocabulary.
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
