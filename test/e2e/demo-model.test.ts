import { spawnSync } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type ChatMessage, InferenceSession, LanguageModel } from 'node-tensorrt';
import { castToFloat16, measureRanges, readModel, writeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { countRight, demoAnswers, demoModel } from '../demo-model.js';
import { simulateFloat16 } from '../oracle/simulate-float16.js';

// The trained model gives right answers, so that the cost of an optimization shows in them.

const root = path.join(import.meta.dirname, '../..');
const file = path.join(demoModel, 'model.onnx');
const { sums, sorting, dialogues, code } = demoAnswers;
const samples = [...sums, ...sorting];
const countAnswered = (answers: readonly { right: string; answer: string }[]) =>
  answers.filter(({ right, answer }) => answer === right).length;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'demo-model-'));
});
afterAll(() => rm(directory, { recursive: true }));

test('it is small', async () => {
  expect((await stat(file)).size).toBeLessThanOrEqual(2e6);
});

const calls = code.completions.filter(({ prompt }) => prompt.startsWith('result'));
test.each([
  ['sums', sums],
  ['sorting', sorting],
  ['dialogues', dialogues.flat()],
  ['calls', calls],
])('PyTorch answers 98 of 100 %s that were held out right', (_, answers) => {
  expect(answers.length).toBeGreaterThan(10);
  expect(countAnswered(answers) / answers.length).toBeGreaterThanOrEqual(0.98);
});

test("250 requests at once get PyTorch's answers", async () => {
  await using model = await LanguageModel.load(demoModel, { device: 'cpu' });
  expect(model.kvCache.mode).toBe('in-place');
  const answers = await Promise.all(samples.map(({ prompt }) => model.generate(prompt)));
  expect(answers.map(({ text }) => text)).toEqual(samples.map(({ answer }) => answer));
  const { requests } = model.stats();
  expect(requests).toMatchObject({ completed: samples.length, failed: 0, cancelled: 0 });
});

test("ten dialogues at once get PyTorch's answers, and each turn finds the ones before it in the cache", async () => {
  await using model = await LanguageModel.load(demoModel, { device: 'cpu' });
  await Promise.all(
    dialogues.map(async (turns) => {
      const messages: ChatMessage[] = [];
      let read = 0;
      for (const { user, answer } of turns) {
        messages.push({ role: 'user', content: user });
        const { text, usage } = await model.generate(messages);
        expect(text).toBe(answer);
        expect(usage.cachedTokens).toBeGreaterThanOrEqual(read);
        read = usage.promptTokens;
        messages.push({ role: 'assistant', content: text });
      }
    }),
  );
});

test("functions far above are completed with PyTorch's answers, and the file is read once", async () => {
  await using model = await LanguageModel.load(demoModel, { device: 'cpu' });
  const file = model.tokenizer!.encode(code.file).length;
  expect(file).toBeGreaterThan(3500);
  await model.generate(code.file, { maxTokens: 1 });
  const answers = await Promise.all(
    code.completions.map(({ prompt }) => model.generate(code.file + prompt, { stop: ['\n\n'] })),
  );
  expect(answers.map(({ text }) => text)).toEqual(code.completions.map(({ answer }) => answer));
  for (const { usage } of answers) expect(usage.cachedTokens).toBeGreaterThanOrEqual(file);
});

test.each([
  [{ do_sample: true, top_p: 0, temperature: 0.7 }, {}],
  [{ top_k: -1 }, {}],
  [{ do_sample: true, top_k: -1, temperature: 0.01 }, {}],
  [{ do_sample: true, temperature: 0 }, {}],
  [{ top_p: 'most', min_p: -1, temperature: 'warm' }, {}],
  [
    { do_sample: true, top_p: 'most', temperature: 'warm' },
    { temperature: 1, topP: 1e-9 },
  ],
])(
  "with %j in its generation_config.json, and options %j, it gives PyTorch's answer",
  async (values, options) => {
    const folder = path.join(directory, 'other-config');
    await cp(demoModel, folder, { recursive: true });
    const config = JSON.stringify({ eos_token_id: [4, 2], ...values });
    await writeFile(path.join(folder, 'generation_config.json'), config);
    await using model = await LanguageModel.load(folder, { device: 'cpu' });
    const { prompt, answer } = sums[0]!;
    expect((await model.generate(prompt, options)).text).toBe(answer);
  },
);

describe('the end of an answer', () => {
  const { prompt, answer } = sums[0]!;
  /** The model with other configuration files; null removes one. */
  async function folderWith(name: string, files: Record<string, object | null>): Promise<string> {
    const folder = path.join(directory, name);
    await cp(demoModel, folder, { recursive: true });
    await rm(path.join(folder, 'generation_config.json'));
    const config = { ...JSON.parse(await readFile(path.join(demoModel, 'config.json'), 'utf8')) };
    delete config.eos_token_id;
    for (const [file, values] of Object.entries({ 'config.json': config, ...files })) {
      if (values === null) await rm(path.join(folder, file));
      else await writeFile(path.join(folder, file), JSON.stringify(values));
    }
    return folder;
  }
  const added = { '2': { content: '</s>', special: true } };

  test.each<[string, Record<string, object | null>]>([
    ['tokenizer_config.json', { 'special_tokens_map.json': null }],
    [
      'tokenizer_config.json, as an object, without its added tokens',
      { 'special_tokens_map.json': null, 'tokenizer_config.json': { eos_token: { content: '</s>' } } },
    ],
    [
      'tokenizer_config.json, without a tokenizer',
      { 'tokenizer.json': null, 'tokenizer_config.json': { eos_token: '</s>', added_tokens_decoder: added } },
    ],
    ['special_tokens_map.json', { 'tokenizer_config.json': { eos_token: null } }],
    ['special_tokens_map.json alone', { 'tokenizer_config.json': null }],
    ['config.json', { 'config.json': { eos_token_id: 2 }, 'tokenizer_config.json': { eos_token: '<s>' } }],
    [
      'generation_config.json',
      { 'generation_config.json': { eos_token_id: [2] }, 'config.json': { eos_token_id: 5 } },
    ],
  ])('may be named in %s', async (name, files) => {
    const folder = await folderWith(name, files);
    await using model = await LanguageModel.load(folder, { device: 'cpu' });
    await using whole = await LanguageModel.load(demoModel, { device: 'cpu' });
    const tokens = whole.tokenizer!.encode(prompt);
    const { tokens: said, finishReason } = await model.generate(tokens, { maxTokens: 30 });
    expect(whole.tokenizer!.decode(said)).toBe(answer);
    expect(said).not.toContain(2);
    expect(finishReason).toBe('stop');
  });

  test('that is not named anywhere leaves only the limit', async () => {
    const nothing = { 'special_tokens_map.json': null, 'tokenizer_config.json': {} };
    await using model = await LanguageModel.load(await folderWith('none', nothing), { device: 'cpu' });
    const { tokens, finishReason } = await model.generate(prompt, { maxTokens: 30 });
    expect(tokens).toHaveLength(30);
    expect(finishReason).toBe('length');
  });

  test("may be a stop text that is a special token, which answers don't show", async () => {
    await using file = await LanguageModel.load(demoModel, { device: 'cpu' });
    const own = file.tokenizer!;
    // A tokenizer that the caller gives.
    const tokenizer = {
      encode: own.encode.bind(own),
      decode: own.decode.bind(own),
      tokenBytes: own.tokenBytes!.bind(own),
    };
    await using model = await LanguageModel.load(demoModel, { device: 'cpu', tokenizer });
    for (const each of [file, model]) {
      const options = { ignoreEos: true, maxTokens: 30 };
      const stopped = await each.generate(prompt, { ...options, stop: ['</s>'] });
      expect(stopped).toMatchObject({ text: answer, finishReason: 'stop' });
      expect(stopped.tokens).not.toContain(2);
      const other = await each.generate(prompt, { ...options, stop: ['<|im_start|>'] });
      expect(other.finishReason).toBe('length');
      expect(other.tokens).toContain(2);
    }
  });
});

// The documented margin for FP16: 1 answer in 100.
test('in FP16 its answers are almost as often right', async () => {
  const model = await readModel(file);
  const { model: mixed } = castToFloat16(model, { ranges: await measureRanges(model) });
  const half = path.join(directory, 'model.fp16.onnx');
  await writeModel(mixed, half);
  await using rounded = await InferenceSession.create(simulateFloat16(half));
  await using onCpu = await InferenceSession.create(file, { device: 'cpu', precision: 'fp16' });
  const right = countAnswered(samples);
  for (const session of [rounded, onCpu]) {
    expect(Math.abs((await countRight(session, samples)) - right) / samples.length).toBeLessThanOrEqual(0.01);
  }
});

test.each(['arithmetic', 'medical-dialogue', 'code-completion'])(
  'examples/%s runs, and its answers are right',
  (example) => {
    const { status, stderr } = spawnSync(process.execPath, [`examples/${example}/main.mjs`], {
      cwd: root,
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    expect(status).toBe(0);
  },
);
