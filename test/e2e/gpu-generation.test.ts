// Language models on GPUs that fail, or meet one shape after the other, which the stand-in libraries play
// (test/native/stand_in). What they answer on any GPU is in test/gpu/generation.test.ts.
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { flavours, onStandIn, run, type Tools } from '../stand-in.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'node-tensorrt-'));
  process.env.NODE_TENSORRT_CACHE = folder;
});
afterAll(() => rm(folder, { recursive: true }));

onStandIn.each(flavours)('StandIn %s: a GPU that fails a language model', (flavour) => {
  const scenario = async ({ trt, failure }: Tools) => {
    const loading = trt.LanguageModel.load('test/fixtures/decoders/llama/optimum', {
      device: 'cuda',
      precision: 'fp32',
      kvCache: { maxBatchSize: 2, maxLength: 64 },
    });
    const loaded = await failure(loading);
    if (loaded !== 'no error') return [loaded];
    const model = await loading;
    const greedy = { temperature: 0, maxTokens: 4, minTokens: 4, ignoreEos: true };
    const found: string[] = [];
    for (let i = 0; i < 3; i++) found.push(await failure(model.generate([5, 6, 7 + i], greedy)));
    await model.dispose();
    return found;
  };

  test('without memory for the cache, or a run, says so', async () => {
    for (const n of [2, 8]) {
      const [first] = await run(flavour, scenario, { STAND_IN_FAULTS: `allocation:${n}` });
      expect(first).toMatch(/^ERR_OUT_OF_MEMORY: /);
    }
  });

  test('a step that fails ends its requests, and the next ones are answered', async () => {
    const found = await run(flavour, scenario, { STAND_IN_FAULTS: 'enqueue:2' });
    expect(found).toEqual([expect.stringMatching(/^ERR_EXECUTION_FAILED: /), 'no error', 'no error']);
  });

  test('a kernel that fails breaks the GPU for this process: all requests end', async () => {
    const found = await run(flavour, scenario, { STAND_IN_FAULTS: 'kernel:3' });
    expect(found).toEqual(Array(3).fill(expect.stringMatching(/^ERR_EXECUTION_FAILED: /)));
  });
});

/**
 * STEPS steps of requests and sequences, what comes next left to chance. All follow texts that the CPU has written alone, so
 * that each knows its next tokens. Gives how many tokens were wrong, and the model's own figures.
 */
async function randomTraffic({ trt }: Tools) {
  const steps = Number(process.env.STEPS);
  let state = 1;
  const below = (limit: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const maxLength = 250;
  const folder = 'test/fixtures/decoders/llama/optimum';
  const greedy = { temperature: 0, ignoreEos: true };

  // Up to where two tokens are equally good, or nearly so.
  const texts: { tokens: number[]; prompt: number }[] = [];
  const cpu = await trt.LanguageModel.load(folder, {
    device: 'cpu',
    kvCache: { maxBatchSize: 1, maxLength },
  });
  for (let i = 0; i < 24; i++) {
    // Every third begins as the one before.
    const begun = i % 3 === 0 ? [] : texts.at(-1)!.tokens.slice(0, 20 + below(20));
    const fresh = Array.from({ length: 1 + below(i % 2 === 0 ? 200 : 60) }, () => 3 + below(250));
    const prompt = [...begun, ...fresh];
    const { tokens, logprobs } = await cpu.generate(prompt, { ...greedy, maxTokens: maxLength, logprobs: 2 });
    const tie = logprobs!.findIndex(({ top }) => top[0]!.logprob - top[1]!.logprob < 0.002);
    const known = tie < 0 ? tokens : tokens.slice(0, tie);
    if (known.length > 0) texts.push({ tokens: [...prompt, ...known], prompt: prompt.length });
  }
  await cpu.dispose();

  const model = await trt.LanguageModel.load(folder, {
    device: 'cuda',
    precision: 'fp32',
    kvCache: { maxBatchSize: 6, maxLength },
  });
  let compared = 0;
  let wrong = 0;
  const answer = async (
    { tokens }: { tokens: number[] },
    length: number,
    from: { generate(options: object): Promise<{ tokens: readonly number[] }> },
  ) => {
    const maxTokens = Math.min(1 + below(12), tokens.length - length);
    const { tokens: answered } = await from.generate({ ...greedy, maxTokens, priority: below(3) });
    for (const [i, token] of answered.entries()) {
      compared++;
      if (token !== tokens[length + i]) wrong++;
    }
  };

  const isFinished = () => {
    const { prefill, decode } = model.stats().steps;
    return prefill + decode >= steps;
  };
  const request = async () => {
    const text = texts[below(texts.length)]!;
    const length = text.prompt + below(text.tokens.length - text.prompt);
    const prompt = text.tokens.slice(0, length);
    await answer(text, length, { generate: (options) => model.generate(prompt, options) });
  };
  // At most 3 of them at a time, with a fork each: they hold rows.
  const conversation = async (own: import('node-tensorrt').Sequence, text: (typeof texts)[number]) => {
    const { tokens, prompt } = text;
    for (let turns = below(6); turns >= 0 && !isFinished(); turns--) {
      const { length } = own;
      const choice = below(6);
      if (length < prompt || choice === 0) {
        await own.append(tokens.slice(length, Math.min(length + 1 + below(150), tokens.length)));
      } else if (choice === 1) {
        own.truncate(below(length + 1));
      } else if (length === tokens.length) {
        own.truncate(prompt);
      } else if (choice === 2) {
        const fork = await own.fork().catch(() => undefined);
        if (fork) await answer(text, length, fork);
        fork?.dispose();
      } else {
        await answer(text, length, own);
      }
    }
    own.dispose();
  };
  let sequences = 0;
  const client = async () => {
    while (!isFinished()) {
      const text = texts[below(texts.length)]!;
      if (below(4) === 0 && sequences < 3) {
        sequences++;
        const own = await Promise.resolve()
          .then(() => model.createSequence())
          .catch(() => undefined);
        if (own) await conversation(own, text);
        sequences--;
      } else {
        // Bursts, and lulls in which a request is alone.
        await Promise.all(Array.from({ length: [1, 1, 2, 9][below(4)]! }, request));
      }
    }
  };
  await Promise.all([client(), client(), client()]);
  const { steps: done, graphs, memory, requests } = model.stats();
  await model.dispose();
  const disposed = model.stats();
  return {
    answers: { compared, wrong, failed: requests.failed },
    steps: done.prefill + done.decode,
    graphs,
    memory,
    left: [disposed.graphs, disposed.memory],
  };
}

onStandIn.each(flavours)('StandIn %s: random traffic', (flavour) => {
  const steps = flavour === 'trt11' ? 1_000 : 10_000;

  test('meets few shapes, again and again, and gives the tokens of running alone', async () => {
    // TensorRT-RTX captures for itself; here it fails when that is too often.
    const env = { STEPS: `${steps}`, STAND_IN_FAULTS: 'recapture:50' };
    const { answers, ...found } = await run(flavour, randomTraffic, env);
    expect(answers).toEqual({ compared: expect.any(Number), wrong: 0, failed: 0 });
    expect(answers.compared).toBeGreaterThan(steps);
    expect(found.memory).toMatchObject({ weights: expect.any(Number), total: 24576 * 2 ** 20 });
    expect(found.memory!.activations).toBeGreaterThan(0);
    expect(found.left).toEqual([null, null]);
    if (flavour === 'rtx') return expect(found.graphs).toEqual({ captured: 0, replayed: 0, refused: 0 });
    expect(found.graphs).toMatchObject({ captured: expect.any(Number), refused: 0 });
    expect(found.graphs!.captured).toBeLessThanOrEqual(50);
    expect(found.graphs!.replayed).toBeGreaterThanOrEqual(found.steps - 50);
  });
});
