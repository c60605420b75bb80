import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Template } from '@huggingface/jinja';
import { readJson } from './decoder-config.js';
import { describe, invalidArgType, invalidArgValue, TensorRTError } from './errors.js';
import { tokenText } from './tokenizer.js';

/** One turn of a conversation. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant' | 'tool';
  content: string;
}

type Json = Readonly<Record<string, unknown>>;

const messageRoles: readonly unknown[] = [
  'system',
  'user',
  'assistant',
  'tool',
] satisfies ChatMessage['role'][];

/** Tokens that a template may name, as tokenizer_config.json and special_tokens_map.json call them. */
const tokenNames = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
];

/** How a model writes conversations: a Jinja template as Hugging Face's models carry it. */
export class ChatTemplate {
  readonly #template: Template | undefined;
  readonly #tokens: Readonly<Record<string, string>>;

  /** @internal `template` undefined: of a model that has none, whose conversations are refused. */
  constructor(template: Template | undefined, tokens: Readonly<Record<string, string>>) {
    this.#template = template;
    this.#tokens = tokens;
  }

  /**
   * The text of a conversation, with the tokens that a text begins with and up to where the model answers: encode it
   * without special tokens. The same as transformers' `apply_chat_template(…, add_generation_prompt=True)`.
   * @param argument the messages' name in errors
   * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE: no messages, without a template, or none that
   *   the template takes
   */
  render(messages: readonly ChatMessage[], argument = 'prompt'): string {
    checkMessages(messages, argument);
    if (!this.#template) {
      const problem = 'has messages, and the model has no chat template: give one as options.chatTemplate.';
      throw invalidArgValue(argument, problem);
    }
    try {
      return this.#template.render({
        ...this.#tokens,
        // Copies, for templates see all that is in a message.
        messages: messages.map(({ role, content }) => ({ role, content })),
        tools: null,
        documents: null,
        add_generation_prompt: true,
      });
    } catch (cause) {
      const problem = `is refused by the model's chat template: ${(cause as Error).message}`;
      throw Object.assign(invalidArgValue(argument, problem), { cause });
    }
  }
}

/**
 * A model's template: `given`, or else chat_template.jinja, or chat_template of tokenizer_config.json (of several the one
 * named 'default').
 * @param path `given`'s, in errors
 * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE for `given`; TensorRTError
 *   ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO
 */
export async function readChatTemplate(
  directory: string,
  given?: string,
  argument = 'options.chatTemplate',
): Promise<ChatTemplate> {
  const configFile = path.join(directory, 'tokenizer_config.json');
  const [config = {}, map = {}] = await Promise.all([
    readJson(configFile),
    readJson(path.join(directory, 'special_tokens_map.json')),
  ]);
  const tokens: Record<string, string> = {};
  for (const name of tokenNames) {
    const text = tokenText(config[name]) ?? tokenText(map[name]);
    if (text !== undefined) tokens[name] = text;
  }
  if (given !== undefined) {
    if (typeof given !== 'string') throw invalidArgType(argument, 'a string', given);
    return new ChatTemplate(
      parse(given, (message) => invalidArgValue(argument, `is no template: ${message}`)),
      tokens,
    );
  }
  const file = path.join(directory, 'chat_template.jinja');
  const own = await readText(file);
  const source = own ?? defaultTemplate(config.chat_template, configFile);
  const invalid = (message: string) =>
    new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `The chat template in ${own === undefined ? configFile : file} can't be used: ${message}. Give another as options.chatTemplate.`,
    );
  return new ChatTemplate(source === undefined ? undefined : parse(source, invalid), tokens);
}

/**
 * Messages, at least one.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function checkMessages(
  messages: unknown,
  argument: string,
): asserts messages is readonly ChatMessage[] {
  if (!Array.isArray(messages)) throw invalidArgType(argument, 'an array of messages', messages);
  if (messages.length === 0) throw invalidArgValue(argument, 'is empty.');
  for (const [i, message] of messages.entries()) {
    if (typeof message !== 'object' || message === null) {
      throw invalidArgType(`${argument}[${i}]`, 'a message: { role, content }', message);
    }
    const { role, content } = message as Partial<ChatMessage>;
    if (!messageRoles.includes(role)) {
      const list = messageRoles.map((each) => `'${each}'`).join(', ');
      throw invalidArgValue(`${argument}[${i}].role`, `must be one of ${list}, not ${describe(role)}.`);
    }
    if (typeof content !== 'string') throw invalidArgType(`${argument}[${i}].content`, 'a string', content);
  }
}

function parse(source: string, problem: (message: string) => Error): Template {
  try {
    return new Template(source);
  } catch (cause) {
    throw Object.assign(problem((cause as Error).message), { cause });
  }
}

/** A text, or a list of named ones. */
function defaultTemplate(value: unknown, file: string): string | undefined {
  if (value === undefined || value === null || typeof value === 'string') return value ?? undefined;
  const named = Array.isArray(value) ? (value as Json[]).find((each) => each?.name === 'default') : undefined;
  if (typeof named?.template === 'string') return named.template;
  const problem = `has several chat templates, and none is named 'default': give one as options.chatTemplate.`;
  throw new TensorRTError('ERR_MODEL_UNSUPPORTED', `${file} ${problem}`);
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new TensorRTError('ERR_IO', `Can't read ${file}: ${(cause as Error).message}.`, { cause });
  }
}
