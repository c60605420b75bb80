import { getEventListeners } from 'node:events';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { Worker } from 'node:worker_threads';
import {
  type ChatMessage,
  type GenerateOptions,
  type Generation,
  type GenerationChunk,
  InferenceSession,
  LanguageModel,
  type LanguageModelOptions,
  type Sequence,
} from 'node-tensorrt';
import { readModel, writeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { llamaForRuntimes } from '../../bench/llama.mjs';
import {
  asked,
  decode,
  decoderAnswers,
  decoderFixtures,
  decoderModel,
  expectGreedy,
  expectLogits,
} from '../decoder-fixture.js';

const folder = (fixture: string) => path.dirname(decoderModel(fixture));
const load = (fixture: string, options: LanguageModelOptions = {}) =>
  LanguageModel.load(folder(fixture), { device: 'cpu', ...options });
const withCode = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

let directory: string;
let llama: LanguageModel;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'generation-'));
  llama = await load('llama/optimum', { kvCache: { maxBatchSize: 4 } });
});
afterAll(async () => {
  await llama.dispose();
  await rm(directory, { recursive: true });
});

const { suppressed, cases } = decoderAnswers('llama/optimum');

/** llama/optimum with the sine of its attention scores, which no rule recognises. */
async function writeUnknownAttention(): Promise<string> {
  const model = await readModel(decoderModel('llama/optimum'));
  const { graph } = model;
  const softmax = graph.node.filter(({ opType }) => opType === 'Softmax').map(({ input }) => input[0]!);
  graph.node = graph.node.flatMap((node) => {
    if (!softmax.includes(node.output[0]!)) return [node];
    // The scores, and the mask that is added to them.
    const [score, mask] = node.input as [string, string];
    const sine = `${score}/sine`;
    return [
      { opType: 'Sin', input: [score], output: [sine], attribute: [] },
      { ...node, input: [sine, mask] },
    ];
  });
  const file = path.join(directory, 'sine.onnx');
  await writeModel(model, file);
  return file;
}

async function drain(
  chunks: AsyncGenerator<GenerationChunk, Generation>,
): Promise<{ chunks: GenerationChunk[]; generation: Generation }> {
  const all: GenerationChunk[] = [];
  for (;;) {
    const next = await chunks.next();
    if (next.done) return { chunks: all, generation: next.value };
    all.push(next.value);
  }
}

describe.each(decoderFixtures)('%s', (fixture) => {
  let model: LanguageModel;
  const answers = decoderAnswers(fixture);
  beforeAll(async () => {
    model = await load(fixture, { kvCache: { maxBatchSize: 4 } });
  });
  afterAll(() => model.dispose());

  test('generates what PyTorch does, alone: tokens and logits', async () => {
    expect(model.kvCache.mode, model.kvCache.why).toBe('in-place');
    for (const each of answers.cases) {
      const options = { ...asked(each, answers.suppressed), logprobs: each.firstLogits.length };
      const generation = await model.generate(each.prompt, options);
      expectGreedy(generation.tokens, each);
      expectLogits(generation, 0, each.firstLogits, answers.suppressed);
      if (generation.tokens.every((token, i) => token === each.greedy[i])) {
        expectLogits(generation, -1, each.lastLogits, answers.suppressed);
      }
      expect(generation.usage).toMatchObject({
        promptTokens: each.prompt.length,
        completionTokens: each.greedy.length,
      });
    }
  });

  test('and with other requests, more of which wait than there are rows', async () => {
    model.kvCache.clear();
    const twice = [...answers.cases, ...answers.cases.toReversed()];
    const generations = await Promise.all(
      twice.map((each) => model.generate(each.prompt, asked(each, answers.suppressed))),
    );
    generations.forEach(({ tokens }, i) => {
      expectGreedy(tokens, twice[i]!);
    });
  });
});

describe('loading', () => {
  test('reports where the model runs, and how its cache is kept', () => {
    expect(llama.device).toBe('cpu');
    expect(llama.why).toBe('options.device asked for it');
    expect(llama.runtime).toMatchObject({ name: 'onnxruntime' });
    expect(llama.kvCache.mode).toBe('in-place');
    expect(llama.kvCache.why).not.toBe('');
    expect(llama.kvCache.maxLength).toBe(512);
    expect(llama.kvCache.rows).toBe(4);
    // Two layers of keys and values, two heads of 16 numbers each, four bytes a number: 512 bytes a token.
    expect(llama.kvCache.bytesReserved).toBe(4 * 512 * 512);
  });

  test('an ONNX file alone answers tokens, and refuses text', async () => {
    const file = path.join(directory, 'bare.onnx');
    await writeFile(file, await readFile(decoderModel('llama/optimum')));
    await using model = await LanguageModel.load(file, { device: 'cpu', kvCache: { maxLength: 256 } });
    const each = cases[1]!;
    const { tokens, text } = await model.generate(each.prompt, asked(each, suppressed));
    expectGreedy(tokens, each);
    expect(text).toBe('');
    expect(model.tokenizer).toBeUndefined();
    await expect(model.generate('text')).rejects.toThrow(
      withCode('ERR_INVALID_ARG_VALUE', /^prompt is text, and the model was loaded without a tokenizer/),
    );
    await expect(model.generate([{ role: 'user', content: 'text' }])).rejects.toThrow(
      /loaded without a tokenizer/,
    );
    await expect(model.generate([5], { stop: ['x'] })).rejects.toThrow(/options\.stop needs text/);
  });

  test('unrecognised attention runs as it was exported', async () => {
    const file = await writeUnknownAttention();
    await using model = await LanguageModel.load(file, { device: 'cpu', kvCache: { maxLength: 128 } });
    expect(model.kvCache.mode).toBe('copying');
    expect(model.kvCache.why).toMatch(/the Sin that gives .* is no part of attention/);
    expect(model.kvCache.bytesReserved).toBe(0);
    await using session = await InferenceSession.create(file, { device: 'cpu' });
    const prompts = cases.slice(0, 4).map(({ prompt }) => prompt);
    const answers = await Promise.all(prompts.map((prompt) => model.generate(prompt, { maxTokens: 12 })));
    for (const [i, { tokens: greedy }] of answers.entries()) {
      expect(greedy.length).toBe(12);
      let step = 0;
      for await (const logits of decode(session, 'llama/optimum', { ...cases[i]!, greedy })) {
        expect(Math.max(...logits) - logits[greedy[step++]!]!).toBeLessThan(1e-4);
      }
    }
    using sequence = model.createSequence();
    await sequence.append(prompts[2]!);
    using fork = await sequence.fork();
    expect((await fork.generate({ maxTokens: 12 })).tokens).toEqual(answers[2]!.tokens);
    expect((await sequence.generate({ maxTokens: 12 })).tokens).toEqual(answers[2]!.tokens);
  });

  test.each<[string, unknown, string, RegExp]>([
    ['a misspelled option', { kvcache: {} }, 'ERR_INVALID_ARG_VALUE', /^options\.kvcache .* 'kvCache'\?/],
    [
      'one of the cache',
      { kvCache: { rows: 3 } },
      'ERR_INVALID_ARG_VALUE',
      /^options\.kvCache\.rows is not an option\. Options are maxBatchSize/,
    ],
    ['no row', { kvCache: { maxBatchSize: 0 } }, 'ERR_INVALID_ARG_VALUE', /^options\.kvCache\.maxBatchSize/],
    [
      'more than the model has positions for',
      { kvCache: { maxLength: 513 } },
      'ERR_INVALID_ARG_VALUE',
      /^options\.kvCache\.maxLength must be at most 512/,
    ],
    [
      'a type that the cache does not have',
      { kvCache: { dtype: 'fp16' } },
      'ERR_INVALID_ARG_VALUE',
      /^options\.kvCache\.dtype can't be 'fp16': .*float32/,
    ],
    ['no chunk', { chunkSize: 0 }, 'ERR_INVALID_ARG_VALUE', /^options\.chunkSize/],
    [
      'a precision of a GPU',
      { precision: 'fp16' },
      'ERR_INVALID_ARG_VALUE',
      /^options\.precision can't be 'fp16' on the CPU/,
    ],
    ['concurrency', { concurrency: 2 }, 'ERR_INVALID_ARG_VALUE', /^options\.concurrency .*run all requests/],
    ['shapes', { shapes: {} }, 'ERR_INVALID_ARG_VALUE', /^options\.shapes .*options\.kvCache decides/],
    ['weights to replace', { refit: true }, 'ERR_INVALID_ARG_VALUE', /^options\.refit .*its weights stay/],
    [
      'batching',
      { batching: {} },
      'ERR_INVALID_ARG_VALUE',
      /^options\.batching .*options\.kvCache\.maxBatchSize/,
    ],
    ['an option for compiling', { onProgress: 5 }, 'ERR_INVALID_ARG_TYPE', /^options\.onProgress must be/],
    ['invalid memory', { workspace: -1 }, 'ERR_INVALID_ARG_VALUE', /^options\.workspace must be/],
    ['an invalid tokenizer', { tokenizer: {} }, 'ERR_INVALID_ARG_TYPE', /^options\.tokenizer\.encode/],
    ['an invalid template', { chatTemplate: 1 }, 'ERR_INVALID_ARG_TYPE', /^options\.chatTemplate/],
  ])('refuses %s', async (_, options, code, message) => {
    const loading = load('llama/optimum', options as LanguageModelOptions);
    await expect(loading).rejects.toThrow(withCode(code, message));
  });

  test("refuses a model that isn't a decoder, with the reason", async () => {
    const session = path.join(import.meta.dirname, '../fixtures/session/linear.onnx');
    await expect(LanguageModel.load(session, { device: 'cpu' })).rejects.toThrow(
      withCode('ERR_MODEL_UNSUPPORTED', /linear\.onnx/),
    );
    await expect(LanguageModel.load(path.join(directory, 'nowhere'))).rejects.toThrow(
      withCode('ERR_MODEL_NOT_FOUND', /nowhere/),
    );
    const alone = path.join(directory, 'without-data.onnx');
    await copyFile(decoderModel('llama/genai'), alone);
    await expect(LanguageModel.load(alone, { device: 'cpu' })).rejects.toThrow(
      withCode('ERR_MODEL_NOT_FOUND', /model\.onnx\.data: the model keeps its weights there/),
    );
    const pointer = path.join(directory, 'pointer.onnx');
    await writeFile(pointer, 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n');
    await expect(LanguageModel.load(pointer, { device: 'cpu' })).rejects.toThrow(
      withCode('ERR_MODEL_INVALID', /pointer\.onnx: This is Git LFS's pointer .*git lfs pull/),
    );
  });

  test('can be aborted', async () => {
    const reason = new Error('changed my mind');
    await expect(load('llama/optimum', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const loading = load('llama/optimum', { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 5);
    await expect(loading).rejects.toBe(reason);
  });
});

describe('prompts', () => {
  test.each<[string, unknown, string, RegExp]>([
    ['nothing', '', 'ERR_INVALID_ARG_VALUE', /^prompt is empty/],
    ['no tokens', [], 'ERR_INVALID_ARG_VALUE', /^prompt is empty/],
    ['a number', 5, 'ERR_INVALID_ARG_TYPE', /^prompt must be a string or an array, not 5/],
    ['a token beyond the vocabulary', [5, 320], 'ERR_INVALID_ARG_VALUE', /^prompt\[1\] .* 0 to 319, not 320/],
    ['half a token', [5.5], 'ERR_INVALID_ARG_VALUE', /^prompt\[0\] must be a token/],
    ['a token that is text', [5, 'x'], 'ERR_INVALID_ARG_TYPE', /^prompt\[1\] must be a number/],
    ['an unknown role', [{ role: 'bot', content: 'x' }], 'ERR_INVALID_ARG_VALUE', /^prompt\[0\]\.role/],
    ['no content', [{ role: 'user' }], 'ERR_INVALID_ARG_TYPE', /^prompt\[0\]\.content must be a string/],
    [
      'tool calls',
      [{ role: 'assistant', content: '', tool_calls: [{}] }],
      'ERR_INVALID_ARG_VALUE',
      /^prompt\[0\]\.tool_calls is not supported/,
    ],
    [
      'more than a row holds',
      new Array(512).fill(5),
      'ERR_SHAPE_MISMATCH',
      /^prompt has 512 tokens.*a row of the cache holds 512/,
    ],
  ])('refused: %s', async (_, prompt, code, message) => {
    await expect(llama.generate(prompt as string)).rejects.toThrow(withCode(code, message));
    await expect(llama.stream(prompt as string).next()).rejects.toThrow(withCode(code, message));
  });

  test('text is encoded by the tokenizer, which decodes answers', async () => {
    const text = 'Grüße, 世界';
    const options = { maxTokens: 30, ignoreEos: true };
    const generation = await llama.generate(text, options);
    const tokens = llama.tokenizer!.encode(text);
    expect(generation.usage.promptTokens).toBe(tokens.length);
    expect(generation.tokens).toEqual((await llama.generate(tokens, options)).tokens);
    expect(generation.text).toBe(llama.tokenizer!.decode(generation.tokens));
  });

  test('a row’s end ends an answer', async () => {
    const prompt = new Array(510).fill(5);
    const { tokens, finishReason } = await llama.generate(prompt, { maxTokens: 100, ignoreEos: true });
    expect(finishReason).toBe('length');
    expect(tokens.length).toBe(2);
  });
});

describe('streams', () => {
  test('give what generate() gives, and each character with some token', async () => {
    for (const { prompt } of cases) {
      const options = { maxTokens: 40, temperature: 0.8, seed: 7, logprobs: 2, ignoreEos: true };
      const whole = await llama.generate(prompt, options);
      const { chunks, generation } = await drain(llama.stream(prompt, options));
      const { tokens, text, finishReason } = whole;
      expect(generation).toMatchObject({ tokens, text, finishReason });
      expect(chunks.map((chunk) => chunk.token)).toEqual(tokens);
      expect(chunks.map((chunk) => chunk.text).join('')).toBe(text);
      expect(chunks.map(({ text: _, ...rest }) => rest)).toEqual(generation.logprobs);
      expect(whole.text).toBe(llama.tokenizer!.decode(whole.tokens));
    }
  });

  test('end before a stop string, wherever tokens begin and end', async () => {
    const { prompt } = cases[2]!;
    const options = { maxTokens: 40, ignoreEos: true };
    const { text } = await llama.generate(prompt, options);
    const characters = [...text];
    for (let at = 3; at < characters.length - 3; at += 5) {
      const stop = characters.slice(at, at + 3).join('');
      if (stop.includes('\ufffd')) continue; // it stands for bytes that aren't text
      const { chunks, generation } = await drain(llama.stream(prompt, { ...options, stop: ['never', stop] }));
      expect(generation.text).toBe(text.slice(0, text.indexOf(stop)));
      expect(generation.finishReason).toBe('stop');
      expect(chunks.map((chunk) => chunk.text).join('')).toBe(generation.text);
    }
  });

  test("a slow reader doesn't delay other requests", async () => {
    const slow = llama.stream([5, 6, 7], { maxTokens: 60, ignoreEos: true });
    await slow.next();
    const others = cases.slice(0, 4).map((each) => llama.generate(each.prompt, asked(each, suppressed)));
    (await Promise.all(others)).forEach(({ tokens }, i) => {
      expectGreedy(tokens, cases[i]!);
    });
    const { chunks } = await drain(slow);
    expect(chunks.length).toBe(59);
  });

  test('leaving one cancels it, and frees its row', async () => {
    const { cancelled } = llama.stats().requests;
    let seen = 0;
    for await (const { token } of llama.stream([5, 6, 7], { maxTokens: 400, ignoreEos: true })) {
      expect(token).toBeGreaterThanOrEqual(0);
      if (++seen === 3) break;
    }
    expect(llama.stats().requests).toMatchObject({ active: 0, waiting: 0, cancelled: cancelled + 1 });
    expect(llama.stats()).toMatchObject({ memory: null, graphs: null });
    expect(llama.kvCache.used).toBe(0);
  });

  test('return() overtakes a next() that waits for a row', async () => {
    const chunks = llama.stream([5], { maxTokens: 5 });
    const last = llama.createSequence();
    using _first = llama.createSequence();
    using _second = llama.createSequence();
    using _third = llama.createSequence();
    await expect(chunks.next()).rejects.toThrow(withCode('ERR_CACHE_FULL', /4 rows/));
    last.dispose();
    // A second of work for the one row, so that this thread needn't be quick.
    const busy = Array.from({ length: 8 }, () => llama.generate([5], { maxTokens: 500, ignoreEos: true }));
    const waits = llama.stream([6], { maxTokens: 5 });
    const next = waits.next();
    await waits.return(undefined as never);
    expect(await next).toMatchObject({ done: true });
    expect(llama.stats().requests.active).toBe(1);
    for (const { tokens } of await Promise.all(busy)) expect(tokens.length).toBe(500);
  });
});

describe('aborting', () => {
  test('before, while it waits, and while it runs rejects with the reason', async () => {
    const reason = new Error('enough');
    const options = { maxTokens: 450, ignoreEos: true };
    await expect(llama.generate([5], { ...options, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);

    const controller = new AbortController();
    const { signal } = controller;
    const running = Array.from({ length: 4 }, (_, i) => llama.generate([i + 5], { ...options, signal }));
    const queued = llama.generate([5], { ...options, signal });
    const streamed = drain(llama.stream([9], { ...options, signal }));
    const settled = Promise.allSettled([...running, queued, streamed]);
    setTimeout(() => controller.abort(reason), 5);
    for (const result of await settled) expect(result).toEqual({ status: 'rejected', reason });
    expect(llama.stats().requests).toMatchObject({ active: 0, waiting: 0 });
    const each = cases[3]!;
    expectGreedy((await llama.generate(each.prompt, asked(each, suppressed))).tokens, each);
  });

  test('one signal may end any number of requests, and has no listeners afterwards', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const options = { maxTokens: 450, ignoreEos: true, signal };
    const settled = Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => llama.generate([i + 5], options)),
    );
    // Node warns at the eleventh listener.
    expect(getEventListeners(signal, 'abort').length).toBe(1);
    controller.abort('enough');
    for (const result of await settled) expect(result).toEqual({ status: 'rejected', reason: 'enough' });
    const { signal: unused } = new AbortController();
    await llama.generate([5], { maxTokens: 1, signal: unused });
    expect(getEventListeners(unused, 'abort')).toEqual([]);
  });
});

describe('sampling', () => {
  test('the same seed gives the same answer, even beside other requests', async () => {
    const options = { maxTokens: 40, temperature: 1, topK: 50, topP: 0.95, seed: 11, ignoreEos: true };
    const { prompt } = cases[2]!;
    const alone = await llama.generate(prompt, options);
    const crowd = await Promise.all(
      [3, 11, 11, 12].map((seed) => llama.generate(prompt, { ...options, seed })),
    );
    expect(crowd[1]!.tokens).toEqual(alone.tokens);
    expect(crowd[2]!.tokens).toEqual(alone.tokens);
    expect(crowd[0]!.tokens).not.toEqual(alone.tokens);
  });

  test('end of sequence ends an answer without being part of it; forbidden tokens do not occur', async () => {
    const each = cases[1]!;
    const end = each.greedy[9]!;
    const first = each.greedy.indexOf(end);
    const options = { temperature: 0, maxTokens: 40 };
    const stopped = await llama.generate(each.prompt, { ...options, stopTokens: [end] });
    expect(stopped).toMatchObject({ finishReason: 'stop', tokens: each.greedy.slice(0, first) });
    const without = await llama.generate(each.prompt, {
      ...options,
      logitBias: { [end]: Number.NEGATIVE_INFINITY },
      logprobs: 0,
    });
    expect(without.tokens).not.toContain(end);
    expect(without.logprobs!.every(({ top, logprob }) => top.length === 0 && logprob < 0)).toBe(true);
  });
});

describe('the cache', () => {
  test('a conversation only sends its new part', async () => {
    llama.kvCache.clear();
    const messages: ChatMessage[] = [{ role: 'system', content: 'You are brief.' }];
    let cached = -1;
    for (const question of ['One?', 'Two?', 'Three?', 'Four?', 'Five?']) {
      messages.push({ role: 'user', content: question });
      const { text, usage } = await llama.generate(messages, { maxTokens: 8, stop: ['\ufffd'] });
      expect(usage.cachedTokens).toBeGreaterThan(cached);
      expect(usage.cachedTokens).toBeLessThan(usage.promptTokens);
      cached = usage.cachedTokens;
      messages.push({ role: 'assistant', content: text });
    }
    expect(llama.kvCache.hits).toBeGreaterThanOrEqual(4);
    llama.kvCache.clear();
    messages.push({ role: 'user', content: 'Six?' });
    expect((await llama.generate(messages, { maxTokens: 1 })).usage.cachedTokens).toBe(0);
  });

  test('is shared only under the same salt, and changes no answer', async () => {
    llama.kvCache.clear();
    const each = cases[3]!;
    const ask = (cacheSalt?: string) =>
      llama.generate(each.prompt, { ...asked(each, suppressed), ...(cacheSalt ? { cacheSalt } : {}) });
    expect((await ask('a')).usage.cachedTokens).toBe(0);
    expect((await ask()).usage.cachedTokens).toBe(0);
    expect((await ask('b')).usage.cachedTokens).toBe(0);
    const again = await ask('a');
    expect(again.usage.cachedTokens).toBe(each.prompt.length - 1);
    expectGreedy(again.tokens, each);
  });

  test('without prefixReuse keeps nothing', async () => {
    await using model = await load('llama/optimum', { kvCache: { prefixReuse: false } });
    for (let i = 0; i < 2; i++) {
      const { usage } = await model.generate(cases[3]!.prompt, { maxTokens: 1 });
      expect(usage.cachedTokens).toBe(0);
    }
  });
});

describe('sequences', () => {
  const each = cases[2]!;
  const { prompt, greedy } = each;

  test('continue their tokens, in pieces or at once', async () => {
    using sequence = llama.createSequence();
    await sequence.append(prompt.slice(0, 10));
    await sequence.append(prompt.slice(10));
    expect(sequence.tokens).toEqual(prompt);
    const first = await sequence.generate({ ...asked(each, suppressed), maxTokens: 15, minTokens: 15 });
    expect(first.tokens).toEqual(greedy.slice(0, 15));
    expect(sequence.length).toBe(prompt.length + 15);
    const { chunks } = await drain(
      sequence.stream({ ...asked(each, suppressed), maxTokens: 25, minTokens: 25 }),
    );
    expect(chunks.map(({ token }) => token)).toEqual(greedy.slice(15));
    expect(sequence.tokens).toEqual([...prompt, ...greedy]);
  });

  test('fork, then go their own ways; truncated, they answer as before', async () => {
    using sequence = llama.createSequence();
    await sequence.append(prompt);
    using fork = await sequence.fork();
    const [left, right] = await Promise.all([
      sequence.generate(asked(each, suppressed)),
      fork.append(cases[1]!.prompt).then(() => fork.generate({ maxTokens: 5, ignoreEos: true })),
    ]);
    expectGreedy(left.tokens, each);
    const joined = [...prompt, ...cases[1]!.prompt];
    expect(right.tokens).toEqual((await llama.generate(joined, { maxTokens: 5, ignoreEos: true })).tokens);
    fork.truncate(prompt.length);
    sequence.truncate(prompt.length + 3);
    const rest = { ...asked(each, suppressed), maxTokens: 37, minTokens: 37 };
    expect((await sequence.generate(rest)).tokens).toEqual(greedy.slice(3));
    expectGreedy((await fork.generate(asked(each, suppressed))).tokens, each);
  });

  test('cloning models, caches and sequences is refused', () => {
    using sequence = llama.createSequence();
    for (const handle of [llama, llama.kvCache, llama.tokenizer, sequence]) {
      expect(() => structuredClone(handle)).toThrow(expect.objectContaining({ name: 'DataCloneError' }));
      expect(inspect(handle)).not.toContain('constructor');
    }
    // The vocabulary isn't included.
    expect(JSON.stringify(llama).length).toBeLessThan(2000);
    expect(llama.precision).toBe('as-exported');
  });

  test('continue after being saved and restored; damaged or foreign states are refused', async () => {
    using sequence = llama.createSequence();
    await sequence.append(prompt);
    await sequence.generate({ ...asked(each, suppressed), maxTokens: 7, minTokens: 7 });
    const rest = { ...asked(each, suppressed), maxTokens: 33, minTokens: 33 };
    const file = path.join(directory, 'sequence');
    await sequence.save(file);
    const bytes = await sequence.save();
    expect(new Uint8Array(await readFile(file))).toEqual(bytes);
    const shared = new SharedArrayBuffer(bytes.length);
    new Uint8Array(shared).set(bytes);
    for (const from of [file, bytes, bytes.slice().buffer, shared]) {
      using restored = await llama.restoreSequence(from);
      expect(restored.tokens).toEqual([...prompt, ...greedy.slice(0, 7)]);
      expect((await restored.generate(rest)).tokens).toEqual(greedy.slice(7));
    }

    const damaged = (at: number) => bytes.map((byte, i) => (i === at ? byte ^ 0x10 : byte));
    const states = [bytes.subarray(0, -1), new Uint8Array(), Uint8Array.of(1, 2, 3), damaged(9)];
    for (const state of [...states, damaged(bytes.length - 9), Buffer.concat([bytes, bytes])]) {
      await expect(llama.restoreSequence(state)).rejects.toThrow(withCode('ERR_STATE_MISMATCH', /./));
    }
    await using foreign = await load('qwen2/optimum');
    await expect(foreign.restoreSequence(bytes)).rejects.toThrow(
      withCode('ERR_STATE_MISMATCH', /another model/),
    );
    const transferred = bytes.slice();
    structuredClone(transferred, { transfer: [transferred.buffer] });
    await expect(llama.restoreSequence(transferred)).rejects.toThrow(
      withCode('ERR_INVALID_ARG_VALUE', /^from is detached/),
    );
    await expect(llama.restoreSequence(path.join(directory, 'nowhere'))).rejects.toThrow(
      withCode('ERR_IO', /nowhere/),
    );
    await expect(llama.restoreSequence('')).rejects.toThrow(
      withCode('ERR_INVALID_ARG_VALUE', /^from can't be ""/),
    );
    expect(llama.kvCache.used).toBe(1);
  });

  test('end where they were left early', async () => {
    using sequence = llama.createSequence();
    await sequence.append(prompt);
    let seen = 0;
    for await (const { token } of sequence.stream(asked(each, suppressed))) {
      expect(token).toBe(greedy[seen]);
      if (++seen === 4) break;
    }
    expect(sequence.tokens).toEqual([...prompt, ...greedy.slice(0, 4)]);
  });

  test('are unchanged when an answer is aborted', async () => {
    using sequence = llama.createSequence();
    await sequence.append(prompt);
    const controller = new AbortController();
    const aborted = sequence.generate({ maxTokens: 400, ignoreEos: true, signal: controller.signal });
    while (sequence.length < prompt.length + 3) await new Promise(setImmediate);
    controller.abort('enough');
    await expect(aborted).rejects.toBe('enough');
    expect(sequence.tokens).toEqual(prompt);
    expectGreedy((await sequence.generate(asked(each, suppressed))).tokens, each);
  });

  test('belong to a stream until it ends or is left', async () => {
    using sequence = llama.createSequence();
    await sequence.append(prompt);
    const stream = sequence.stream({ ...asked(each, suppressed), maxTokens: 9, minTokens: 9 });
    await stream.next();
    // The other eight tokens were never read.
    while (llama.stats().requests.active > 0) await new Promise(setImmediate);
    await expect(sequence.append([5])).rejects.toThrow(/is already generating/);
    expect(() => sequence.truncate(0)).toThrow(withCode('ERR_INVALID_ARG_VALUE', /or leave its stream/));
    await stream.return(undefined as never);
    expect(sequence.tokens).toEqual([...prompt, greedy[0]]);
    await sequence.append([greedy[1]!]);
    expect(
      (await sequence.generate({ ...asked(each, suppressed), maxTokens: 38, minTokens: 38 })).tokens,
    ).toEqual(greedy.slice(2));
  });

  test('each hold a row until they are disposed', async () => {
    const all = Array.from({ length: 4 }, () => llama.createSequence());
    expect(() => llama.createSequence()).toThrow(withCode('ERR_CACHE_FULL', /All 4 rows/));
    await expect(all[0]!.fork()).rejects.toThrow(withCode('ERR_CACHE_FULL', /All 4 rows/));
    await all[0]!.append([5, 6]);
    const generating = all[0]!.generate({ maxTokens: 400, ignoreEos: true });
    expect(() => all[0]!.truncate(1)).toThrow(withCode('ERR_INVALID_ARG_VALUE', /is already generating/));
    await expect(all[0]!.append([5])).rejects.toThrow(
      withCode(
        'ERR_INVALID_ARG_VALUE',
        /is already generating: wait until that finishes, or leave its stream/,
      ),
    );
    for (const sequence of all) sequence.dispose();
    await expect(generating).rejects.toThrow(withCode('ERR_DISPOSED', /The sequence was disposed/));
    expect(() => all[0]!.length).toThrow(withCode('ERR_DISPOSED', /The sequence was disposed/));
    all[0]!.dispose();
    expect(llama.kvCache.used).toBe(0);
  });

  test("refuse tokens that don't fit", async () => {
    using sequence = llama.createSequence();
    await expect(sequence.generate()).rejects.toThrow(withCode('ERR_INVALID_ARG_VALUE', /is empty: append/));
    await sequence.append(prompt);
    await expect(sequence.append(new Array(480).fill(5))).rejects.toThrow(
      withCode('ERR_SHAPE_MISMATCH', /^input has 480 tokens, and the sequence has 33 already/),
    );
    await expect(sequence.append([320])).rejects.toThrow(withCode('ERR_INVALID_ARG_VALUE', /^input\[0\]/));
    expect(() => sequence.truncate(34)).toThrow(withCode('ERR_INVALID_ARG_VALUE', /^length .* 0 to 33/));
    expect(() => sequence.truncate('1' as never)).toThrow(withCode('ERR_INVALID_ARG_TYPE', /^length/));
    await expect(sequence.generate({ cacheSalt: 'x' } as GenerateOptions)).rejects.toThrow(
      /^options\.cacheSalt is not an option/,
    );
    await expect(sequence.save(path.join(directory, 'none/at/all'))).rejects.toThrow(
      withCode('ERR_IO', /none\/at\/all/),
    );
    expect(sequence.length).toBe(33);
  });
});

test.each<[string, () => string | Promise<string>]>([
  ['in place', () => folder('llama/optimum')],
  ['copied', writeUnknownAttention],
])(
  'sequences and answers are the same beside others as alone: caches %s',
  async (_, from) => {
    const file = await from();
    // Numerical Recipes' linear congruential generator.
    let state = 11;
    const below = (limit: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * limit);
    };
    const rounds = process.env.NODE_TENSORRT_TEST_FULL ? 1500 : 60;
    const kvCache = { maxBatchSize: 5, maxLength: 200 };
    await using model = await LanguageModel.load(file, { device: 'cpu', chunkSize: 16, kvCache });
    await using alone = await LanguageModel.load(file, {
      device: 'cpu',
      kvCache: { maxLength: 200, prefixReuse: false },
    });

    type Held = { sequence: Sequence; tokens: number[] };
    const idle: Held[] = [];
    const greedy = (maxTokens: number) => ({ maxTokens, ignoreEos: true, temperature: 0 });
    const some = (most: number) => Array.from({ length: 1 + below(most) }, () => 5 + below(300));
    const pause = () => new Promise((resolve) => setTimeout(resolve, below(4)));
    const tokensOf = ({ tokens }: Generation) => tokens;
    const onlyIf = (code: string) => (error: { code?: string }) => {
      if (error.code !== code) throw error;
      return undefined;
    };
    const expectAlone = async (prompt: readonly number[], tokens: readonly number[]) => {
      if (tokens.length === 0) return;
      const right = await alone.generate(prompt, { ...greedy(tokens.length), logprobs: 2 });
      const gaps = right.logprobs!.map(({ top }) => top[0]!.logprob - top[1]!.logprob);
      expectGreedy(tokens, { greedy: right.tokens, gaps });
    };
    /** The result, or undefined if it was aborted; aborts at some moment. */
    const maybeAborted = async (start: (signal?: AbortSignal) => Promise<number[]>) => {
      if (below(2) === 0) return start();
      const controller = new AbortController();
      const result = start(controller.signal).catch((error) => {
        if (error !== 'enough') throw error;
        return [];
      });
      await pause();
      controller.abort('enough');
      return result;
    };
    const keep = async (copy: Promise<Sequence>, tokens: readonly number[]) => {
      const sequence = await copy.catch(onlyIf('ERR_CACHE_FULL'));
      if (sequence) idle.push({ sequence, tokens: [...tokens] });
    };
    const append = async ({ sequence, tokens }: Held) => {
      const input = some(30);
      tokens.push(...(await maybeAborted((signal) => sequence.append(input, { signal }).then(() => input))));
    };
    const truncate = async ({ sequence, tokens }: Held) => {
      tokens.length = below(Math.min(tokens.length, 100) + 1);
      sequence.truncate(tokens.length);
    };
    const generate = async ({ sequence, tokens }: Held) => {
      const answer = await maybeAborted((signal) =>
        sequence.generate({ ...greedy(1 + below(30)), signal }).then(tokensOf),
      );
      await expectAlone(tokens, answer);
      tokens.push(...answer);
    };
    const stream = async ({ sequence, tokens }: Held) => {
      const chunks = sequence.stream(greedy(20));
      const told: number[] = [];
      for (let i = below(12); i >= 0; i--) told.push(((await chunks.next()).value as GenerationChunk).token);
      await pause();
      const left = chunks.return(undefined as never);
      const appended = await sequence.append([5]).then(() => [5], onlyIf('ERR_INVALID_ARG_VALUE'));
      await left;
      await expectAlone(tokens, told);
      tokens.push(...told, ...(appended ?? []));
    };
    const fork = (held: Held) => keep(held.sequence.fork(), held.tokens);
    const restore = async (held: Held) =>
      keep(model.restoreSequence(await held.sequence.save()), held.tokens);
    const operations = [append, truncate, generate, stream, fork, restore];

    const client = async () => {
      for (let i = 0; i < rounds; i++) {
        if (below(3) === 0) {
          const prompt = some(60);
          const options = { ...greedy(1 + below(12)), priority: below(3), cacheSalt: 'ab'[below(2)]! };
          const answer = await model.generate(prompt, options).then(tokensOf, onlyIf('ERR_CACHE_FULL'));
          if (answer) await expectAlone(prompt, answer);
          continue;
        }
        if (idle.length < 3 && model.kvCache.used < kvCache.maxBatchSize) {
          await keep((async () => model.createSequence())(), []);
        }
        const [held] = idle.splice(below(idle.length), 1);
        if (!held) continue;
        const { sequence, tokens } = held;
        const operation = operations[below(operations.length)]!;
        if (tokens.length === 0) await append(held);
        else if (tokens.length > 150) await truncate(held);
        else await operation(held);
        expect(sequence.tokens).toEqual(tokens);
        if (below(8) === 0) sequence.dispose();
        else idle.push(held);
      }
    };
    await Promise.all(Array.from({ length: 6 }, client));
    for (const { sequence, tokens } of idle) {
      expect(sequence.tokens).toEqual(tokens);
      sequence.dispose();
    }
    expect(model.kvCache.used).toBe(0);
    expect(model.stats().requests).toMatchObject({ active: 0, waiting: 0, failed: 0 });
  },
  300_000,
);

test('queues up to maxQueue requests, and refuses more', async () => {
  await using model = await load('llama/optimum', { maxQueue: 2, kvCache: { maxBatchSize: 1 } });
  const options = { maxTokens: 400, ignoreEos: true };
  const accepted = [1, 2, 3].map(() => model.generate([5], options));
  await expect(model.generate([5], options)).rejects.toThrow(
    withCode('ERR_QUEUE_FULL', /^2 requests are waiting already \(options\.maxQueue\)/),
  );
  await Promise.all(accepted);
});

test('dispose() lets accepted requests finish, and refuses the rest', async () => {
  const model = await load('llama/optimum', { kvCache: { maxBatchSize: 2 } });
  const sequence = model.createSequence();
  const running = cases.map((each) => model.generate(each.prompt, asked(each, suppressed)));
  const disposed = model.dispose();
  expect(model.dispose()).toBe(disposed);
  await expect(model.generate([5])).rejects.toThrow(withCode('ERR_DISPOSED', /The model was disposed/));
  expect(() => model.createSequence()).toThrow(withCode('ERR_DISPOSED', /The model was disposed/));
  await expect(sequence.append([5])).rejects.toThrow(withCode('ERR_DISPOSED', /disposed/));
  (await Promise.all(running)).forEach(({ tokens }, i) => {
    expectGreedy(tokens, cases[i]!);
  });
  await disposed;
  sequence.dispose();
  expect(model.stats().requests.completed).toBe(cases.length);
  expect([model.kvCache.bytesReserved, model.kvCache.bytesUsed]).toEqual([0, 0]);
});

test('works in worker threads, which may be terminated while it runs', async () => {
  const script = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { LanguageModel } = require('node-tensorrt');
    (async () => {
      const model = await LanguageModel.load(workerData.folder, { device: 'cpu' });
      const { tokens } = await model.generate(workerData.prompt, workerData.options);
      parentPort.postMessage(tokens);
      for await (const _ of model.stream([5], { maxTokens: 500, ignoreEos: true })) parentPort.postMessage('on');
    })();
  `;
  const each = cases[1]!;
  const workerData = {
    folder: folder('llama/optimum'),
    prompt: each.prompt,
    options: asked(each, suppressed),
  };
  for (let i = 0; i < 2; i++) {
    const worker = new Worker(script, { eval: true, workerData });
    const messages: unknown[] = [];
    await new Promise<void>((resolve, reject) => {
      worker.on('error', reject);
      worker.on('message', (message) => {
        messages.push(message);
        if (messages.length === 3) resolve();
      });
    });
    await worker.terminate();
    expectGreedy(messages[0] as number[], each);
  }
});

test('a tokenizer and a chat template of the caller’s own', async () => {
  const tokenizer = {
    encode: (text: string) => [...Buffer.from(text)].map((byte) => byte + 5),
    decode: (tokens: readonly number[]) => Buffer.from(tokens.map((token) => token - 5)).toString('latin1'),
    tokenBytes: (token: number) => (token < 133 && token > 4 ? Uint8Array.of(token - 5) : new Uint8Array()),
  };
  const chatTemplate = "{% for m in messages %}{{ m['content'] }}|{% endfor %}";
  await using model = await load('llama/optimum', { tokenizer, chatTemplate });
  const options = { maxTokens: 3, ignoreEos: true };
  const chat = await model.generate([{ role: 'user', content: 'ab' }], options);
  expect(chat.usage.promptTokens).toBe(3);
  expect(chat.tokens).toEqual((await model.generate('ab|', options)).tokens);
});

test('activations that are rounded to 8 bits, as by the default of onnxruntime-genai’s builder, are no reason to copy', async () => {
  const shape = {
    layers: 6,
    hidden: 512,
    heads: 8,
    kvHeads: 2,
    intermediate: 1024,
    vocabulary: 512,
    positions: 256,
  };
  const { onnx } = await llamaForRuntimes(directory, 'int4', shape);
  const { graph } = await readModel(onnx);
  const levels = graph.node
    .filter(({ opType }) => opType === 'MatMulNBits')
    .map(({ attribute }) => attribute.find(({ name }) => name === 'accuracy_level')?.i);
  expect(new Set(levels)).toEqual(new Set([4n]));
  const model = await LanguageModel.load(onnx, { device: 'cpu', threads: 1 });
  expect(model.kvCache).toMatchObject({ mode: 'in-place', why: expect.stringMatching(/differ .* by/) });
  const prompt = Array.from({ length: 12 }, (_, i) => 300 + i);
  const { tokens } = await model.generate(prompt, { maxTokens: 1, temperature: 0 });
  await model.dispose();
  // The exported graph, by itself, finds the same token the best, or nearly.
  const exported = await InferenceSession.create(onnx, { device: 'cpu', threads: 1 });
  const caches = exported.inputMetadata.filter(({ name }) => name.startsWith('past'));
  const { logits } = await exported.run(
    {
      input_ids: { type: 'int64', dims: [1, 12], data: BigInt64Array.from(prompt, BigInt) },
      attention_mask: { type: 'int64', dims: [1, 12], data: new BigInt64Array(12).fill(1n) },
      ...Object.fromEntries(
        caches.map(({ name }) => [name, { type: 'float32', dims: [1, 2, 0, 64], data: new Float32Array() }]),
      ),
    },
    ['logits'],
  );
  await exported.dispose();
  const last = (logits!.data as Float32Array).slice(-512);
  const best = Math.max(...last);
  expect(last[tokens[0]!]).toBeGreaterThan(best - 0.02 * Math.max(...last.map(Math.abs)));
});
