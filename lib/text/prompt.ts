import { describe, invalidArgType, invalidArgValue, shapeMismatch } from '../base/errors.js';
import type { ChatMessage, ChatTemplate } from './chat-template.js';
import type { Tokenizer } from './tokenizer.js';

/**
 * The input of a language model: a text, which the tokenizer begins as the model expects; tokens; or a conversation,
 * which the model's chat template turns into text.
 */
export type Prompt = string | readonly number[] | readonly ChatMessage[];

/** The facts about a model that turn prompts into tokens. */
export interface PromptContext {
  readonly tokenizer: Tokenizer | undefined;
  readonly chatTemplate: ChatTemplate | undefined;
  readonly vocabulary: number;
  /** Tokens that a row of the cache holds. */
  readonly maxLength: number;
}

const roles: readonly unknown[] = ['system', 'user', 'assistant', 'tool'] satisfies ChatMessage['role'][];

/**
 * Turns a prompt into tokens.
 * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH if it is too long
 */
export function promptTokens(prompt: Prompt, context: PromptContext): Int32Array {
  const isChat = Array.isArray(prompt) && typeof prompt[0] === 'object';
  const tokens = isChat
    ? chatTokens(prompt as readonly ChatMessage[], context)
    : inputTokens(prompt as string | readonly number[], 'prompt', context, true);
  if (tokens.length === 0) throw invalidArgValue('prompt', 'is empty: there is nothing to continue.');
  requireRoom('prompt', tokens.length, 0, context, 1);
  return tokens;
}

/**
 * Turns text or tokens into tokens.
 * @param begins true if the text is at the beginning of a row
 * @throws as {@link promptTokens}
 */
export function inputTokens(
  input: string | readonly number[],
  path: string,
  { tokenizer, vocabulary }: PromptContext,
  begins: boolean,
): Int32Array {
  if (typeof input !== 'string' && !Array.isArray(input)) {
    throw invalidArgType(path, 'a string or an array', input);
  }
  if (typeof input === 'string') return encode(input, path, tokenizer, vocabulary, begins);
  checkTokens(input, path, vocabulary);
  return Int32Array.from(input);
}

function encode(
  text: string,
  path: string,
  tokenizer: Tokenizer | undefined,
  vocabulary: number,
  specialTokens: boolean,
): Int32Array {
  requireTokenizer(tokenizer, path);
  const tokens = tokenizer.encode(text, { specialTokens });
  checkTokens(tokens, `tokenizer.encode(${path})`, vocabulary);
  return Int32Array.from(tokens);
}

function requireTokenizer(tokenizer: Tokenizer | undefined, path: string): asserts tokenizer is Tokenizer {
  if (tokenizer) return;
  const problem =
    'is text, and the model was loaded without a tokenizer: give tokens, or LanguageModel.load a folder with a ' +
    'tokenizer.json, or options.tokenizer.';
  throw invalidArgValue(path, problem);
}

/**
 * Checks that a row has room for more tokens.
 * @param added how many tokens are added
 * @param there how many tokens the row has
 * @param answer how many tokens must fit after them
 * @throws RangeError ERR_SHAPE_MISMATCH
 */
export function requireRoom(
  path: string,
  added: number,
  there: number,
  { maxLength }: PromptContext,
  answer = 0,
): void {
  if (there + added + answer <= maxLength) return;
  const before = there > 0 ? `, and the sequence has ${there} already` : '';
  const withAnswer = answer > 0 ? ' with its answer' : '';
  throw shapeMismatch(
    `${path} has ${added} tokens${before}; a row of the cache holds ${maxLength}${withAnswer}: ` +
      'see options.kvCache.maxLength of LanguageModel.load.',
  );
}

function chatTokens(messages: readonly ChatMessage[], context: PromptContext): Int32Array {
  messages.forEach((message, i) => {
    const path = `prompt[${i}]`;
    if (typeof message !== 'object' || message === null) {
      throw invalidArgType(path, 'a message, { role, content }', message);
    }
    const { role, content } = message;
    if (!roles.includes(role)) {
      throw invalidArgValue(`${path}.role`, `must be one of ${roles.join(', ')}, not ${describe(role)}.`);
    }
    if (typeof content !== 'string') throw invalidArgType(`${path}.content`, 'a string', content);
    const { tool_calls: calls } = message as { tool_calls?: unknown };
    if (Array.isArray(calls) ? calls.length > 0 : calls !== undefined && calls !== null) {
      throw invalidArgValue(`${path}.tool_calls`, 'is not supported: tool calls are not.');
    }
  });
  const { tokenizer, chatTemplate, vocabulary } = context;
  requireTokenizer(tokenizer, 'prompt');
  if (!chatTemplate) {
    throw invalidArgValue(
      'prompt',
      'is a conversation, and the model has no chat template: give LanguageModel.load one, options.chatTemplate.',
    );
  }
  // The template writes the special tokens itself.
  return encode(chatTemplate.render(messages), 'prompt', tokenizer, vocabulary, false);
}

/**
 * Checks that a value is an array of tokens of the vocabulary.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function checkTokens(
  tokens: unknown,
  path: string,
  vocabulary: number,
): asserts tokens is readonly number[] {
  if (!Array.isArray(tokens)) throw invalidArgType(path, 'an array of tokens', tokens);
  const isToken = (token: unknown) =>
    Number.isInteger(token) && (token as number) >= 0 && (token as number) < vocabulary;
  const odd = tokens.findIndex((token) => !isToken(token));
  if (odd < 0) return;
  if (typeof tokens[odd] !== 'number') throw invalidArgType(`${path}[${odd}]`, 'a number', tokens[odd]);
  throw invalidArgValue(
    `${path}[${odd}]`,
    `must be a token of the model's vocabulary, 0 to ${vocabulary - 1}, not ${tokens[odd]}.`,
  );
}
