import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { LanguageModel } from 'node-tensorrt';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { asked, decoderAnswers, decoderModel, expectGreedy, expectLogits } from '../decoder-fixture.js';
import { decoders, logitTolerance as tolerance } from './agreement.mjs';
import { describeOnGpu, temporaryFolder } from './gpu.js';

const load = (fixture: string, precision: 'fp32' | 'fp16') =>
  LanguageModel.load(path.dirname(decoderModel(fixture)), {
    device: 'cuda',
    precision,
    cache: false,
    chunkSize: 48,
    kvCache: { maxBatchSize: 4, maxLength: 250 },
  });

describeOnGpu.each(decoders)('a language model on a GPU: %s in %s', (fixture, precision) => {
  const { suppressed, cases } = decoderAnswers(fixture);
  let model: LanguageModel;
  beforeAll(async () => {
    model = await load(fixture, precision);
  });
  afterAll(() => model?.dispose());

  test('says where it runs, on a cache in place', () => {
    expect(model.device).toBe('cuda:0');
    expect(model.runtime.name).toMatch(/^tensorrt/);
    expect(model.kvCache).toMatchObject({ mode: 'in-place', rows: 4, maxLength: 250 });
    expect(model.kvCache.bytesReserved).toBeGreaterThan(0);
  });

  test("has PyTorch's tokens and logits, in chunks, more prompts at once than there are rows", async () => {
    const before = model.stats();
    const twice = [...cases, ...cases.toReversed()];
    const generations = await Promise.all(
      twice.map((each) =>
        model.generate(each.prompt, { ...asked(each, suppressed), logprobs: each.firstLogits.length }),
      ),
    );
    // A logit off by the tolerance each way.
    for (const [i, { tokens }] of generations.entries())
      expectGreedy(tokens, twice[i]!, 2 * tolerance[precision]);
    for (const [i, generation] of generations.entries()) {
      expectLogits(generation, 0, twice[i]!.firstLogits, suppressed, 2 * tolerance[precision]);
    }
    const { steps, tokens } = model.stats();
    // Rows ran together.
    expect(steps.decode - before.steps.decode).toBeLessThan((tokens.decoded - before.tokens.decoded) / 2);
  });

  test('the 5 best logits are those of the whole row, and their probabilities too', async () => {
    const { prompt, firstLogits } = cases[3]!;
    const first = (logprobs: number) =>
      model.generate(prompt, { temperature: 0, maxTokens: 1, ignoreEos: true, logprobs });
    const [few, all] = [await first(5), await first(firstLogits.length)];
    const top = all.logprobs![0]!.top.slice(0, 5);
    expect(few.logprobs![0]!.top.map(({ token }) => token)).toEqual(top.map(({ token }) => token));
    for (const [i, { logprob }] of few.logprobs![0]!.top.entries())
      expect(logprob).toBeCloseTo(top[i]!.logprob, 4);
    const sum = all.logprobs![0]!.top.reduce((total, { logprob }) => total + Math.exp(logprob), 0);
    expect(sum).toBeCloseTo(1, 4);
  });
});

describeOnGpu('generation on a GPU', () => {
  const folder = temporaryFolder();
  const { suppressed, cases } = decoderAnswers('llama/optimum');
  const { prompt, greedy, firstLogits } = cases[3]!;
  const options = { temperature: 0, maxTokens: 12, minTokens: 12, stopTokens: suppressed };
  let model: LanguageModel;
  beforeAll(async () => {
    model = await load('llama/optimum', 'fp32');
  });
  afterAll(() => model?.dispose());

  test('penalties and bias reach every token of the vocabulary', async () => {
    const penalised = { ...options, maxTokens: 60, minTokens: 60, frequencyPenalty: 100 };
    expect(new Set((await model.generate(prompt, penalised)).tokens).size).toBe(60);
    const plain = await model.generate(prompt, { ...options, logprobs: firstLogits.length });
    const { token } = plain.logprobs![0]!.top.findLast((each) => !suppressed.includes(each.token))!;
    const biased = await model.generate(prompt, { ...options, logitBias: { [token]: 100 } });
    expect(biased.tokens).toEqual(Array(12).fill(token));
  });

  test('a stream gives what generate() does; the same seed gives the same answer', async () => {
    const streamed: number[] = [];
    for await (const { token } of model.stream(prompt, options)) streamed.push(token);
    expect(streamed).toEqual((await model.generate(prompt, options)).tokens);
    const drawn = { maxTokens: 20, temperature: 1, topK: 20, seed: 7, ignoreEos: true };
    const [one, other] = [await model.generate(prompt, drawn), await model.generate(prompt, drawn)];
    expect(one.tokens).toEqual(other.tokens);
    expect(one.tokens).not.toEqual((await model.generate(prompt, { ...drawn, seed: 8 })).tokens);
  });

  test('a prompt is read once: what follows it finds it in the cache', async () => {
    model.kvCache.clear();
    const first = await model.generate(prompt, options);
    const second = await model.generate([...prompt, ...first.tokens, 7], options);
    expect([first.usage.cachedTokens, second.usage.cachedTokens]).toEqual([0, prompt.length + 11]);
  });

  test('sequences are forked, truncated, saved and restored, and go on as if nothing had been', async () => {
    model.kvCache.clear();
    const expected = greedy.slice(0, 12);
    const other = (await model.generate([...prompt.slice(0, -1), 9], options)).tokens;
    expect(other).not.toEqual(expected);
    const first = model.createSequence();
    await first.append(prompt.slice(0, -1));
    const second = await first.fork();
    await Promise.all([first.append([9]), second.append(prompt.slice(-1))]);
    const [one, two] = await Promise.all([first.generate(options), second.generate(options)]);
    expect([one.tokens, two.tokens]).toEqual([other, expected]);

    first.truncate(prompt.length - 1);
    await first.append(prompt.slice(-1));
    const file = path.join(folder, 'sequence.state');
    await first.save(file);
    expect((await first.generate(options)).tokens).toEqual(expected);
    const restored = await model.restoreSequence(file);
    expect((await restored.generate(options)).tokens).toEqual(expected);
    const state = await readFile(file);
    state[state.length - 1]! ^= 1;
    await writeFile(file, state);
    await expect(model.restoreSequence(file)).rejects.toMatchObject({ code: 'ERR_STATE_MISMATCH' });
    for (const each of [first, second, restored]) each.dispose();
    expect(model.kvCache.used).toBe(0);
  });

  test('an abort ends a request, and the next ones are answered', async () => {
    const controller = new AbortController();
    const running = model.generate(prompt, { ...options, maxTokens: 150, signal: controller.signal });
    const aborted = expect(running).rejects.toThrow('enough');
    const beside = model.generate(prompt, options);
    for await (const _ of model.stream(prompt, options)) controller.abort(new Error('enough'));
    await aborted;
    expect((await beside).tokens).toEqual(greedy.slice(0, 12));
  });
});
