import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readTokenizer } from '../../../dist/text/read-tokenizer.js';
import type { Tokenizer } from '../../../dist/text/tokenizer.js';

// Compares with transformers' results for the same texts: test/oracle/make_tokenizer_goldens.py.

const fixtures = path.resolve('test/fixtures');
interface Golden {
  encoded: number[][];
  encodedBare: number[][];
  decoded: string[];
  random: [number[], string][];
}
const { texts, tokenizers } = JSON.parse(
  readFileSync(path.join(fixtures, 'tokenizers/goldens.json'), 'utf8'),
) as { texts: string[]; tokenizers: Record<string, Golden> };

describe.each(Object.keys(tokenizers))('%s', (name) => {
  const golden = tokenizers[name]!;
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    const folder = name === 'decoders' ? 'decoders/llama/optimum' : `tokenizers/${name}`;
    tokenizer = (await readTokenizer(path.join(fixtures, folder)))!;
  });

  test('encodes as transformers does', () => {
    for (const [i, text] of texts.entries()) {
      expect([text, tokenizer.encode(text)]).toEqual([text, golden.encoded[i]]);
      const bare = tokenizer.encode(text, { specialTokens: false });
      expect([text, bare]).toEqual([text, golden.encodedBare[i]]);
    }
  });

  test('decodes as transformers does', () => {
    for (const [i, tokens] of golden.encoded.entries()) {
      expect([tokens, tokenizer.decode(tokens)]).toEqual([tokens, golden.decoded[i]]);
    }
    for (const [tokens, text] of golden.random) {
      expect([tokens, tokenizer.decode(tokens)]).toEqual([tokens, text]);
    }
  });
});

describe('files', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'tokenizer-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const read = async (tokenizer: unknown, config?: unknown) => {
    writeFileSync(path.join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
    writeFileSync(path.join(folder, 'tokenizer_config.json'), JSON.stringify(config ?? {}));
    return readTokenizer(folder);
  };
  const model = { type: 'BPE', vocab: { a: 0, '▁b': 1, '<0xC3>': 2, '<0xA9>': 3, '<s>': 4 }, merges: [] };

  test('a folder without one', async () => {
    expect(await readTokenizer(path.join(fixtures, 'decoders/llama'))).toBeUndefined();
  });

  test('an unknown decoder, or a pattern of Replace, is refused by name', async () => {
    const refused = (decoder: unknown) => expect(read({ model, added_tokens: [], decoder })).rejects;
    for (const [decoder, name] of [
      [{ type: 'CTC', pad_token: 'a' }, 'CTC'],
      [{ type: 'BPEDecoder', suffix: '</w>' }, 'BPEDecoder'],
      [
        { type: 'Sequence', decoders: [{ type: 'Fuse' }, { type: 'ByteFallback' }] },
        'ByteFallback after Fuse',
      ],
      [{ type: 'Replace', pattern: { Regex: 'a' }, content: '' }, 'Replace'],
      [
        {
          type: 'Sequence',
          decoders: [{ type: 'Fuse' }, { type: 'Strip', content: 'x', start: 1, stop: 0 }],
        },
        'strips',
      ],
    ] as const) {
      await refused(decoder).toMatchObject({
        code: 'ERR_MODEL_UNSUPPORTED',
        message: expect.stringMatching(new RegExp(`${name}.*options\\.tokenizer`)),
      });
    }
    await expect(read({ added_tokens: [] })).rejects.toMatchObject({ code: 'ERR_MODEL_INVALID' });
    await expect(
      read({ model: { ...model, type: 'X' }, added_tokens: [], decoder: null }),
    ).rejects.toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/the model X is not supported.*options\.tokenizer/),
    });
  });

  test('an invalid tokenizer is refused, whatever it contains', async () => {
    const vocabulary = (id: unknown) => ({ model: { ...model, vocab: { a: 0, b: id } } });
    for (const [tokenizer, message] of [
      [vocabulary(4e9), /is not a valid tokenizer: it has the token 4000000000, "b"/],
      [vocabulary(-1), /it has the token -1/],
      [vocabulary('1'), /it has the token "1"/],
      [{ model: { ...model, vocab: [[5, 0.1]] } }, /it has the token 0, 5/],
      [{ model, added_tokens: 5 }, /is not a valid tokenizer/],
      [{ model, added_tokens: [null] }, /is not a valid tokenizer/],
      [{ model, added_tokens: [], decoder: { type: 'Sequence' } }, /is not a valid tokenizer/],
      [{ model: null }, /no vocabulary/],
    ] as const) {
      await expect(read(tokenizer)).rejects.toMatchObject({
        code: 'ERR_MODEL_INVALID',
        message: expect.stringMatching(message),
      });
    }
  });

  test('encode() refuses other arguments', async () => {
    const tokenizer = (await read({ model, added_tokens: [], decoder: null }))!;
    const encode =
      (...args: unknown[]) =>
      () =>
        (tokenizer.encode as (...args: unknown[]) => unknown)(...args);
    expect(encode(5)).toThrowError(/^text must be a string, not 5/);
    expect(encode('a', null)).toThrowError(/^options must be an object, not null/);
    expect(encode('a', { special: 1 })).toThrowError(/^options\.special is not an option/);
    expect(encode('a', { specialTokens: 1 })).toThrowError(/^options\.specialTokens must be a boolean/);
  });

  test('tokens with a role are special even if only tokenizer_config.json says so', async () => {
    const decoders = [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }];
    const tokenizer = { model, added_tokens: [], decoder: { type: 'Sequence', decoders } };
    expect((await read(tokenizer))!.decode([4, 0, 1, 2, 3])).toBe('<s>a bé');
    const config = {
      bos_token: { content: '<s>' },
      added_tokens_decoder: { 7: { content: '!', special: false } },
    };
    const withRoles = (await read(tokenizer, config))!;
    expect(withRoles.decode([4, 0, 1, 2, 3, 2, 7, 1000])).toBe('a bé\ufffd!');
    expect(withRoles.encode('<s>a!')).toEqual([4, 0, 7]);
    expect(() => withRoles.decode([1, -1])).toThrowError(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }),
    );
    expect(() => withRoles.encode(5 as never)).toThrowError(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
    );
  });
});
