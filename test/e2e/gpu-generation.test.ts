// Language models on GPUs that fail or meet one shape after another, simulated by stand-in libraries
// (test/native/stand_in). Tests of their answers on any GPU are in test/gpu/generation.test.ts.
import { cp, mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { makeTensor, readModel, tensorElements, writeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { flavours, onStandIn, run, type Tools } from '../stand-in.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'node-tensorrt-'));
  process.env.NODE_TENSORRT_CACHE = folder;
});
afterAll(() => rm(folder, { recursive: true }));

/** A copy of the fixture llama/optimum, one of whose weights `change` has changed. */
async function changedLlama(
  name: string,
  isChanged: (weight: { name?: string; dims: readonly number[] }) => boolean,
  change: (weights: Float32Array) => void,
): Promise<string> {
  const directory = path.join(folder, name);
  await cp('test/fixtures/decoders/llama/optimum', directory, { recursive: true });
  const file = path.join(directory, 'model.onnx');
  const model = await readModel(file);
  const index = model.graph.initializer.findIndex(isChanged);
  const weight = model.graph.initializer[index]!;
  const weights = Float32Array.from(tensorElements(weight) as Float32Array);
  change(weights);
  const initializer = model.graph.initializer.with(
    index,
    makeTensor(weight.name!, 'float32', weight.dims, weights),
  );
  await writeModel({ ...model, graph: { ...model.graph, initializer } }, file);
  return directory;
}

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

  test('reports that there is no memory for the cache, or for a run', async () => {
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
 * Makes STEPS random requests and operations on sequences. All follow texts that the CPU has written alone, so that the
 * next tokens are known. Returns how many tokens were wrong, and the model's statistics.
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

  // Each text ends where two tokens are equally good, or nearly so.
  const texts: { tokens: number[]; prompt: number }[] = [];
  const cpu = await trt.LanguageModel.load(folder, {
    device: 'cpu',
    kvCache: { maxBatchSize: 1, maxLength },
  });
  for (let i = 0; i < 24; i++) {
    // Every third begins like the one before.
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
  // At most 3 at a time, each with a fork, since they hold rows.
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
  const steps = flavour === 'trt10' ? 10_000 : 2_000;

  test('meets few shapes repeatedly, and gives the same tokens as running alone', {
    timeout: 180_000,
  }, async () => {
    // TensorRT-RTX captures by itself; the stand-in fails if that happens too often.
    const env = { STEPS: `${steps}`, STAND_IN_FAULTS: 'recapture:50' };
    const { answers, ...found } = await run(flavour, randomTraffic, env, 170_000);
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

onStandIn.each(flavours)('StandIn %s: a token whose embedding is not a number', (flavour) => {
  let model: string;
  beforeAll(async () => {
    model = await changedLlama(
      `NaN-${flavour}`,
      ({ name }) => name === 'model.embed_tokens.weight',
      (weights) => weights.fill(Number.NaN, 319 * 64, 320 * 64),
    );
  });

  // Attention reads whole rows, and gives what is behind a row's tokens a weight of 0; but 0 times NaN is NaN.
  test('fails the requests that read it, and no others, in any row', async () => {
    const found = await run(
      flavour,
      async ({ trt, failure }) => {
        const model = await trt.LanguageModel.load(process.env.MODEL!, {
          device: 'cuda',
          precision: 'fp32',
          chunkSize: 16,
          kvCache: { maxBatchSize: 2, maxLength: 64 },
        });
        const greedy = { temperature: 0, maxTokens: 4, minTokens: 4, ignoreEos: true };
        const shorts = [
          [5, 6, 8],
          [9, 3],
        ];
        const answers = () =>
          Promise.all(
            shorts.map((prompt) => model.generate(prompt, greedy).then(({ tokens }) => tokens.join())),
          );
        const alone = await answers();
        const long = Array.from({ length: 40 }, (_, i) => 10 + i);
        const bad = 319;
        const found: Record<string, [string, boolean]> = {};
        /** Makes both rows fail, twice. Are the next requests answered as before, with and without prefixes? */
        const check = async (name: string, fail: () => Promise<unknown>) => {
          const [one, other] = await Promise.all([failure(fail()), failure(fail())]);
          const rest = [await answers()];
          model.kvCache.clear();
          rest.push(await answers());
          const isUnharmed = rest.every((tokens) => tokens.join('/') === alone.join('/'));
          found[name] = [one === other ? one : `${one}, ${other}`, isUnharmed];
        };
        await check('at the end', () => model.generate([...long.slice(0, 12), bad], greedy));
        await check('in the first of three chunks', () => model.generate([9, bad, ...long], greedy));
        await check('drawn', () =>
          model.generate(long, { ...greedy, maxTokens: 8, logitBias: { [bad]: 1000 } }),
        );
        await check('appended', async () => {
          const sequence = model.createSequence();
          const reason = await failure(sequence.append([...long.slice(0, 12), bad]));
          const kept = sequence.length;
          sequence.dispose();
          if (kept > 0) throw new Error(`${kept} tokens of what failed were kept`);
          throw Object.assign(new Error('appended'), { code: reason.split(':')[0] });
        });
        await check('left in the middle', async () => {
          const aborted = new AbortController();
          const failing = model.generate([9, bad, ...long], { ...greedy, signal: aborted.signal });
          const { prefilled } = model.stats().tokens;
          while (model.stats().tokens.prefilled === prefilled) await new Promise(setImmediate);
          aborted.abort(Object.assign(new Error('or left'), { code: 'ERR_EXECUTION_FAILED' }));
          await failing;
        });

        // The tokens before it can still be used, and a fork isn't affected by what its sibling read.
        const prompt = long.slice(0, 12);
        const expected = await model.generate(prompt, greedy);
        const failed = await failure(model.generate([...prompt, bad], greedy));
        const again = await model.generate(prompt, greedy);
        model.kvCache.clear();
        const sequence = model.createSequence();
        await sequence.append(prompt);
        const fork = await sequence.fork();
        const forkFailed = await failure(fork.append([1, 2, 3, bad]));
        const lengths = [sequence.length, fork.length];
        const [one, other] = await Promise.all([sequence.generate(greedy), fork.generate(greedy)]);
        await model.dispose();
        const same = [again, one, other].map(({ tokens }) => tokens.join() === expected.tokens.join());
        return { found, failed, cached: again.usage.cachedTokens, forkFailed, lengths, same };
      },
      { MODEL: model, STAND_IN_FAULTS: 'slow:1' },
    );
    const failure = expect.stringMatching(/^ERR_EXECUTION_FAILED: /);
    expect(found).toEqual({
      found: {
        'at the end': [failure, true],
        'in the first of three chunks': [failure, true],
        drawn: [failure, true],
        appended: [failure, true],
        'left in the middle': [failure, true],
      },
      failed: failure,
      cached: 11,
      forkFailed: failure,
      lengths: [12, 12],
      same: [true, true, true],
    });
  });
});

onStandIn.each(flavours)('StandIn %s: a plan that does not update its caches in place', (flavour) => {
  const scenario = ({ trt, failure }: Tools) =>
    failure(
      trt.LanguageModel.load('test/fixtures/decoders/llama/optimum', {
        device: 'cuda',
        precision: 'fp32',
        kvCache: { maxBatchSize: 2, maxLength: 64 },
      }),
    );

  test.each(['unaliased:1', 'unaliased:4', 'misaliased:2'])('%s: is refused', async (fault) => {
    expect(await run(flavour, scenario, { STAND_IN_FAULTS: fault })).toMatch(
      /^ERR_MODEL_UNSUPPORTED: .*does not share the memory of its input .*device: 'cpu'/,
    );
  });
});

onStandIn.each(flavours)('StandIn %s: tokens whose logits are equal', (flavour) => {
  const twins = (weights: Float32Array) => {
    for (let i = 1; i < weights.length; i += 2) weights[i] = weights[i - 1]!;
  };
  const none = (weights: Float32Array) => weights.fill(0);

  // On a real GPU, either may come first.
  test.each([
    ['in pairs', twins],
    ['all of them', none],
  ])("%s: are the CPU's", async (name, change) => {
    const model = await changedLlama(
      `${name}-${flavour}`,
      ({ dims: [hidden, vocabulary] }) => hidden === 64 && vocabulary === 320,
      change,
    );
    const found = await run(
      flavour,
      async ({ trt }) => {
        const answers = [];
        for (const device of ['cpu', 'cuda'] as const) {
          const precision = device === 'cpu' ? 'as-exported' : 'fp32';
          const kvCache = { maxBatchSize: 2, maxLength: 64 };
          const model = await trt.LanguageModel.load(process.env.MODEL!, { device, precision, kvCache });
          const tokens = [];
          const limits = { maxTokens: 8, minTokens: 8, ignoreEos: true };
          tokens.push((await model.generate([5, 6, 8], { ...limits, temperature: 0 })).tokens);
          for (let seed = 1; seed < 9; seed++) {
            const drawn = {
              ...limits,
              temperature: 1,
              seed,
              topK: seed % 2 ? 0 : 40,
              topP: seed % 3 ? 1 : 0.9,
            };
            tokens.push((await model.generate([5, 6, 8], drawn)).tokens);
          }
          answers.push(tokens);
          await model.dispose();
        }
        return answers;
      },
      { MODEL: model },
    );
    const [cpu, gpu] = found;
    expect(gpu).toEqual(cpu);
    expect(cpu![0]!.every((token) => (change === none ? token === 0 : token % 2 === 0))).toBe(true);
    expect(new Set(cpu!.map(String)).size).toBe(9);
  });
});
