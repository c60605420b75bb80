import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type ChatMessage, ChatTemplate } from '../../../dist/text/chat-template.js';

// Compares with transformers' apply_chat_template: test/oracle/make_chat_goldens.py.

const templates = path.resolve('test/fixtures/chat-templates');
const model = path.resolve('test/fixtures/decoders/llama/optimum');
const goldens = JSON.parse(readFileSync(path.join(templates, 'goldens.json'), 'utf8')) as {
  conversations: ChatMessage[][];
  /** One entry per conversation. */
  templates: Record<string, { text?: string; error?: string }[]>;
};
const sourceOf = (name: string) => readFileSync(path.join(templates, `${name}.jinja`), 'utf8');

describe.each(Object.keys(goldens.templates))('%s', (name) => {
  test('renders as transformers does', async () => {
    const template = (await ChatTemplate.load(model, sourceOf(name)))!;
    for (const [i, conversation] of goldens.conversations.entries()) {
      const { text, error } = goldens.templates[name]![i]!;
      if (error === undefined) {
        expect(template.render(conversation)).toBe(text);
      } else {
        expect(() => template.render(conversation)).toThrowError(
          expect.objectContaining({
            code: 'ERR_INVALID_ARG_VALUE',
            message: `prompt is refused by the model's chat template: ${error}`,
          }),
        );
      }
    }
  });

  // The cache can serve a conversation because a later turn begins with all of the turn before.
  test("a turn's text begins with the turn's before, and its answer", async () => {
    const template = (await ChatTemplate.load(model, sourceOf(name)))!;
    const messages: ChatMessage[] = [{ role: 'user', content: 'Hello' }];
    for (const answer of ['Hi.', 'One,\ntwo.', '東京']) {
      const before = template.render(messages);
      messages.push({ role: 'assistant', content: answer }, { role: 'user', content: 'And then?' });
      const after = template.render(messages);
      // Mistral's template puts a space before the answer; its tokenizer would add the same.
      expect(after.slice(0, before.length)).toBe(before);
      expect(after.slice(before.length).trimStart().startsWith(answer)).toBe(true);
    }
  });
});

describe('where a template comes from', () => {
  const root = mkdtempSync(path.join(tmpdir(), 'chat-template-'));
  afterAll(() => rmSync(root, { recursive: true }));
  let folders = 0;
  const folder = (files: Record<string, unknown>) => {
    const directory = path.join(root, String(folders++));
    mkdirSync(directory);
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(
        path.join(directory, name),
        typeof content === 'string' ? content : JSON.stringify(content),
      );
    }
    return directory;
  };
  const messages: ChatMessage[] = [{ role: 'user', content: 'x' }];
  const render = async (files: Record<string, unknown>, given?: string) =>
    (await ChatTemplate.load(folder(files), given))!.render(messages);
  const config = (chat_template: unknown) => ({ 'tokenizer_config.json': { chat_template } });

  test("chat_template.jinja, then tokenizer_config.json's; the caller's before both", async () => {
    expect(await render({ ...config('config'), 'chat_template.jinja': 'file' })).toBe('file');
    expect(await render(config('config'))).toBe('config');
    expect(
      await render(
        config([
          { name: 'tool_use', template: 'a' },
          { name: 'default', template: 'b' },
        ]),
      ),
    ).toBe('b');
    expect(await render({ 'chat_template.jinja': 'file' }, 'given')).toBe('given');
  });

  test('special tokens, wherever they are named', async () => {
    const template = '{{ bos_token }}|{{ eos_token }}|{{ unk_token is defined }}';
    const files = {
      'tokenizer_config.json': { bos_token: '<s>', chat_template: template },
      'special_tokens_map.json': { bos_token: '<other>', eos_token: { content: '</s>' } },
    };
    expect(await render(files)).toBe('<s>|</s>|false');
  });

  test('a model without one', async () => {
    for (const files of [{}, config(null)]) expect(await ChatTemplate.load(folder(files))).toBeUndefined();
  });

  test('an invalid template', async () => {
    await expect(render({}, '{% if %}')).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringContaining('options.chatTemplate'),
    });
    await expect(render({}, 5 as never)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
    for (const files of [
      { 'chat_template.jinja': '{% for %}' },
      config('{{'),
      config([{ name: 'x', template: '' }]),
    ]) {
      await expect(render(files)).rejects.toMatchObject({
        code: 'ERR_MODEL_UNSUPPORTED',
        message: expect.stringContaining('options.chatTemplate'),
      });
    }
    await expect(render({ 'tokenizer_config.json': '[' })).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
    });
  });
});
