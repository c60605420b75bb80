import path from 'node:path';
import type { Template } from '@huggingface/jinja';
import { invalidArgType, invalidArgValue, TensorRTError } from '../base/errors.js';
import type { Json } from '../base/json.js';
import { readJson, readText } from '../system/files/text-file.js';
import { tokenRoles, tokenText } from './tokenizer-config.js';

/** One turn of a conversation. */
export interface ChatMessage {
  /** The speaker: 'system' instructs the model, 'user' asks, 'assistant' is the model, 'tool' is a tool's result. */
  role: 'system' | 'user' | 'assistant' | 'tool';
  /** The text of the turn. */
  content: string;
}

/** A model's format for conversations: a Jinja template, as models of Hugging Face carry it. */
export class ChatTemplate {
  readonly #template: Template;
  readonly #tokens: Readonly<Record<string, string>>;

  private constructor(template: Template, tokens: Readonly<Record<string, string>>) {
    this.#template = template;
    this.#tokens = tokens;
  }

  /**
   * Loads a model's template: `given` if there is one, else chat_template.jinja, else `chat_template` of
   * tokenizer_config.json (the one named 'default' if there are several). Returns undefined if there is none.
   * @param argument the name of `given` in errors
   * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE for `given`; TensorRTError
   *   ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO
   */
  static async load(
    directory: string,
    given?: string,
    argument = 'options.chatTemplate',
  ): Promise<ChatTemplate | undefined> {
    if (given !== undefined && typeof given !== 'string') throw invalidArgType(argument, 'a string', given);
    const configFile = path.join(directory, 'tokenizer_config.json');
    const [config = {}, map = {}] = await Promise.all([
      readJson(configFile),
      readJson(path.join(directory, 'special_tokens_map.json')),
    ]);
    const tokens: Record<string, string> = {};
    for (const name of tokenRoles) {
      const text = tokenText(config[name]) ?? tokenText(map[name]);
      if (text !== undefined) tokens[name] = text;
    }
    if (given !== undefined) {
      const template = await parse(given, (problem) =>
        invalidArgValue(argument, `isn't a valid template: ${problem}`),
      );
      return new ChatTemplate(template, tokens);
    }
    const ownFile = path.join(directory, 'chat_template.jinja');
    const own = await readText(ownFile);
    const source = own ?? defaultTemplate(config.chat_template, configFile);
    if (source === undefined) return undefined;
    const template = await parse(source, (problem) => {
      const file = own === undefined ? configFile : ownFile;
      return new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `The chat template in ${file} can't be used: ${problem}. Give another as options.chatTemplate.`,
      );
    });
    return new ChatTemplate(template, tokens);
  }

  /**
   * Writes a conversation as text, up to the place where the model answers. The text holds the special tokens, so encode
   * it without adding any. It equals transformers' `apply_chat_template(…, add_generation_prompt=True)`.
   * @param argument the name of the messages in errors
   * @throws RangeError ERR_INVALID_ARG_VALUE if the template refuses the messages
   */
  render(messages: readonly ChatMessage[], argument = 'prompt'): string {
    try {
      return this.#template.render({
        ...this.#tokens,
        // A template sees every property of a message.
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

async function parse(source: string, problem: (message: string) => Error): Promise<Template> {
  // It is loaded late, so that importing this package doesn't load it.
  const { Template } = await import('@huggingface/jinja');
  try {
    return new Template(source);
  } catch (cause) {
    throw Object.assign(problem((cause as Error).message), { cause });
  }
}

/** Reads `chat_template`: a text, or a list of named texts. */
function defaultTemplate(value: unknown, file: string): string | undefined {
  if (value === undefined || value === null || typeof value === 'string') return value ?? undefined;
  const named = Array.isArray(value) ? (value as Json[]).find((each) => each?.name === 'default') : undefined;
  if (typeof named?.template === 'string') return named.template;
  const problem = `has several chat templates, and none is named 'default': give one as options.chatTemplate.`;
  throw new TensorRTError('ERR_MODEL_UNSUPPORTED', `${file} ${problem}`);
}
