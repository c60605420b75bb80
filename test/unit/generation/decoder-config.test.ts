import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readDecoderConfig } from '../../../dist/generation/decoder-config.js';
import { UnusableValue } from '../../../dist/generation/unusable-value.js';
import { decoderModel } from '../../decoder-fixture.js';

let directory: string;
let count = 0;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'decoder-config-'));
});
afterAll(() => rm(directory, { recursive: true }));

/** A folder with these files; objects are written as JSON. */
async function folder(files: Record<string, string | object>): Promise<string> {
  const root = path.join(directory, String(count++));
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(root, name);
    await mkdir(path.dirname(file), { recursive: true });
    const isText = typeof content === 'string' || Buffer.isBuffer(content);
    await writeFile(file, isText ? content : JSON.stringify(content));
  }
  return root;
}

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 };

describe('what exporters write', () => {
  // The third number is where the fixture's configuration has it, in a key of its architecture.
  test.each([
    ['llama/optimum', [2], 512],
    ['gpt2/optimum', [2], 256],
    ['gemma3/optimum', [2], 512],
    ['qwen3/optimum', [4, 2], 512],
    ['llama/static-cache', [2], 512],
  ])('%s', async (fixture, eosTokens, maxLength) => {
    const model = decoderModel(fixture);
    const source = path.dirname(model);
    const expected = { model, directory: source, eosTokens, maxLength, vocabulary: 320, sampling: greedy };
    expect(await readDecoderConfig(source)).toMatchObject(expected);
    expect(await readDecoderConfig(model)).toMatchObject(expected);
  });

  test.each([
    ['llama/genai', [2]],
    ['qwen3/genai', [4, 2]],
  ])('%s', async (fixture, eosTokens) => {
    const model = decoderModel(fixture);
    expect(await readDecoderConfig(path.dirname(model))).toMatchObject({
      model,
      eosTokens,
      maxLength: 512,
      vocabulary: 320,
      sampling: { ...greedy, topK: 50 },
    });
  });
});

describe('sampling', () => {
  test("follows generation_config.json, with that file's own defaults", async () => {
    const generation = { do_sample: true, temperature: 0.6, top_p: 0.9, eos_token_id: [128001, 128009] };
    const source = await folder({
      'model.onnx': '',
      'config.json': { eos_token_id: 7 },
      'generation_config.json': generation,
    });
    expect(await readDecoderConfig(source)).toMatchObject({
      eosTokens: [128001, 128009],
      sampling: { temperature: 0.6, topK: 50, topP: 0.9, minP: 0, repetitionPenalty: 1 },
    });
  });

  test('is greedy unless sampling is requested, whatever the temperature', async () => {
    const source = await folder({
      'model.onnx': '',
      'generation_config.json': { temperature: 0.6, top_k: 20, repetition_penalty: 1.1 },
    });
    expect((await readDecoderConfig(source)).sampling).toEqual({
      ...greedy,
      topK: 20,
      repetitionPenalty: 1.1,
    });
  });
});

/** The sampling defaults for a folder with this generation_config.json. */
async function samplingOf(generation: object | string) {
  const source = await folder({ 'model.onnx': '', 'generation_config.json': generation });
  return (await readDecoderConfig(source)).sampling;
}

const sampled = { temperature: 1, topK: 50, topP: 1, minP: 0, repetitionPenalty: 1 };

// The expected values follow transformers' TopKLogitsWarper and related classes, under GenerationMixin's conditions.
describe('values at the edge of what a sampler takes', () => {
  test.each([
    [
      { do_sample: true, top_p: 0 },
      { ...sampled, topP: 0 },
    ],
    [{ do_sample: true, top_p: 1.5 }, sampled],
    [
      { do_sample: true, top_k: -1, temperature: 0.7 },
      { ...sampled, topK: 0, temperature: 0.7 },
    ],
    [
      { do_sample: true, top_k: 0 },
      { ...sampled, topK: 0 },
    ],
    [
      { do_sample: true, top_k: 1e12 },
      { ...sampled, topK: 2 ** 31 - 1 },
    ],
    [
      { do_sample: true, temperature: 0 },
      { ...sampled, temperature: 0 },
    ],
    [{ do_sample: false, temperature: 'hot' }, greedy],
    [{ top_k: -1 }, greedy],
    [{ do_sample: null, top_k: null, top_p: null, min_p: null, repetition_penalty: null }, greedy],
    [{ do_sample: true, typical_p: 'x', max_new_tokens: -1, max_length: 'x', num_beams: [] }, sampled],
  ])('%j', async (generation, expected) => {
    expect(await samplingOf(generation)).toEqual(expected);
  });

  test('after a byte-order mark', async () => {
    expect(await samplingOf('\uFEFF{"do_sample": true, "top_k": 7}')).toEqual({ ...sampled, topK: 7 });
  });

  test('as Python writes them', async () => {
    const text =
      '{"do_sample": true, "max_time": Infinity, "a": -Infinity, "b": "\\"NaN", "temperature": NaN}';
    const { temperature, ...rest } = await samplingOf(text);
    expect(temperature).toMatchObject({ problem: expect.stringMatching(/: temperature can't be "NaN"\.$/) });
    expect(rest).toEqual({ ...sampled, temperature: undefined });
    const { topP } = await samplingOf('{"do_sample": true, "top_p": -Infinity}');
    expect(topP).toMatchObject({ problem: expect.stringMatching(/: top_p can't be "-Infinity"\.$/) });
  });
});

test.each([
  ['topP', { top_p: 'x' }],
  ['topP', { top_p: -0.1 }],
  ['topK', { top_k: 2.5 }],
  ['topK', { top_k: -2 }],
  ['minP', { min_p: 2 }],
  ['temperature', { do_sample: true, temperature: -1 }],
  ['temperature', { do_sample: true, temperature: [0.7] }],
  ['temperature', { do_sample: 'yes' }],
  ['repetitionPenalty', { repetition_penalty: 0 }],
  ['repetitionPenalty', { repetition_penalty: true }],
] as const)('only %s is unusable in %j', async (name, generation) => {
  const { [name]: value, ...rest } = await samplingOf(generation);
  const [field, given] = Object.entries(generation).at(-1)!;
  const problem = `generation_config.json: ${field} can't be ${JSON.stringify(given)}.`;
  expect(value).toBeInstanceOf(UnusableValue);
  expect((value as UnusableValue).problem.endsWith(problem)).toBe(true);
  for (const other of Object.values(rest)) expect(other).not.toBeInstanceOf(UnusableValue);
});

test('tokens that end an answer may be a nested list, or none; other values are unusable', async () => {
  const eosOf = async (eos: unknown) => {
    const files = { 'model.onnx': '', 'config.json': { eos_token_id: 7 } };
    const source = await folder({ ...files, 'generation_config.json': { eos_token_id: eos } });
    return (await readDecoderConfig(source)).eosTokens;
  };
  expect(await eosOf([[4], 2, -1])).toEqual([4, 2, -1]);
  expect(await eosOf(null)).toEqual([7]);
  expect(await eosOf([])).toEqual([7]);
  for (const eos of ['two', 1.5, [2, null], true, {}]) expect(await eosOf(eos)).toBeInstanceOf(UnusableValue);
});

test('invalid sizes are unusable; a huge one means no limit', async () => {
  const config = async (values: object) =>
    readDecoderConfig(await folder({ 'model.onnx': '', 'config.json': values }));
  expect((await config({ n_ctx: 1e30 })).maxLength).toBe(2 ** 31 - 1);
  expect((await config({ n_ctx: 0 })).maxLength).toBeInstanceOf(UnusableValue);
  expect((await config({ vocab_size: 'many' })).vocabulary).toBeInstanceOf(UnusableValue);
});

describe('the graph', () => {
  test('may lie in a folder onnx, as on a hub, and be named among several', async () => {
    const source = await folder({
      'config.json': { eos_token_id: 3, n_positions: 64 },
      'onnx/model.onnx': '',
      'onnx/model_q4.onnx': '',
    });
    expect(await readDecoderConfig(source)).toMatchObject({
      model: path.join(source, 'onnx/model.onnx'),
      directory: source,
    });
    const q4 = path.join(source, 'onnx/model_q4.onnx');
    expect(await readDecoderConfig(q4)).toMatchObject({ model: q4, directory: source, maxLength: 64 });
  });

  test('may be alone', async () => {
    const source = await folder({ 'bare.onnx': '' });
    const nothing = { eosTokens: [], vocabulary: undefined, maxLength: undefined, sampling: greedy };
    expect(await readDecoderConfig(source)).toMatchObject({
      model: path.join(source, 'bare.onnx'),
      ...nothing,
    });
  });

  test('for a multimodal model, uses the configuration of its text part', async () => {
    const text = { vocab_size: 99, max_position_embeddings: 1024 };
    const source = await folder({
      'model.onnx': '',
      'config.json': { eos_token_id: 1, text_config: text },
    });
    expect(await readDecoderConfig(source)).toMatchObject({
      eosTokens: [1],
      vocabulary: 99,
      maxLength: 1024,
    });
  });
});

describe('refused', () => {
  test.each<[string, Record<string, string | object>, string, RegExp]>([
    ['an empty folder', { 'readme.txt': '' }, 'ERR_MODEL_NOT_FOUND', /no ONNX model in .*optimum-cli/],
    [
      'several graphs',
      { 'onnx/a.onnx': '', 'onnx/b.onnx': '' },
      'ERR_MODEL_NOT_FOUND',
      /give the path of one of onnx\/a\.onnx, onnx\/b\.onnx/,
    ],
    [
      'broken JSON',
      { 'config.json': '{', 'model.onnx': '' },
      'ERR_MODEL_INVALID',
      /config\.json is not valid JSON:/,
    ],
    [
      "Git LFS's pointer",
      { 'config.json': 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' },
      'ERR_MODEL_INVALID',
      /config\.json is Git LFS's pointer .*git lfs pull/,
    ],
    [
      'a web page',
      { 'generation_config.json': '<html><body>404</body></html>' },
      'ERR_MODEL_INVALID',
      /generation_config\.json is a web page/,
    ],
    [
      'UTF-16',
      { 'config.json': Buffer.from('\uFEFF{"eos_token_id": 7}', 'utf16le'), 'model.onnx': '' },
      'ERR_MODEL_INVALID',
      /config\.json is UTF-16 text: save it as UTF-8/,
    ],
    [
      'UTF-16 without a mark',
      { 'config.json': Buffer.from('{"eos_token_id": 7}', 'utf16le'), 'model.onnx': '' },
      'ERR_MODEL_INVALID',
      /config\.json is UTF-16 text: save it as UTF-8/,
    ],
    ['nothing', { 'config.json': '' }, 'ERR_MODEL_INVALID', /config\.json is not valid JSON: it is empty/],
    ['no object', { 'config.json': '[]', 'model.onnx': '' }, 'ERR_MODEL_INVALID', /is not a JSON object/],
    [
      'an encoder with a decoder',
      { 'config.json': { is_encoder_decoder: true }, 'model.onnx': '' },
      'ERR_MODEL_UNSUPPORTED',
      /describes an encoder with a decoder/,
    ],
    [
      'a model that sees',
      { 'genai_config.json': { model: { vision: {}, decoder: {} } }, 'model.onnx': '' },
      'ERR_MODEL_UNSUPPORTED',
      /has a model\.vision: only decoders of text/,
    ],
    [
      'a pipeline',
      { 'genai_config.json': { model: { decoder: { pipeline: [] } } }, 'model.onnx': '' },
      'ERR_MODEL_UNSUPPORTED',
      /has a model\.decoder\.pipeline/,
    ],
  ])('%s', async (_, files, code, message) => {
    await expect(readDecoderConfig(await folder(files))).rejects.toMatchObject({
      name: 'TensorRTError',
      code,
      message: expect.stringMatching(message),
    });
  });

  test('a missing file', async () => {
    await expect(readDecoderConfig(path.join(directory, 'nothing'))).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
    });
  });
});
