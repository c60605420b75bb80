// Language models on the GPUs that the stand-in libraries play (test/native/stand_in): lowered, compiled, and driven by
// the decode loop over a cache in device memory. What they answer is PyTorch's (test/fixtures/decoders).
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type DecoderCase, decoderAnswers } from '../decoder-fixture.js';
import { flavours, onStandIn, run, type Tools } from '../stand-in.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'node-tensorrt-'));
  process.env.NODE_TENSORRT_CACHE = folder;
});
afterAll(() => rm(folder, { recursive: true }));

/** Where PyTorch's two best logits are that close, either is right, and what follows is another answer. */
function expectGreedy(answers: readonly (readonly number[])[], cases: readonly DecoderCase[], gap: number) {
  for (const [i, { greedy, gaps }] of cases.entries()) {
    const differs = greedy.findIndex((token, step) => token !== answers[i]![step]);
    if (differs < 0 || gaps[differs]! >= gap) expect(answers[i]).toEqual(greedy);
  }
}

/** All prompts at once; there are fewer rows than prompts. */
async function generateAll({ trt }: Tools) {
  const { readFileSync } = process.getBuiltinModule('node:fs');
  const { TEST_FIXTURE: fixture = '', TEST_PRECISION: precision } = process.env;
  const file = `test/fixtures/decoders/${fixture}`;
  const { suppressed, cases } = JSON.parse(readFileSync(`${file}/../expected.json`, 'utf8'));
  const model = await trt.LanguageModel.load(file, {
    device: 'cuda',
    precision: precision as 'fp32',
    cache: false,
    kvCache: { maxBatchSize: 3, maxLength: 250 },
    chunkSize: 48,
  });
  const generations = await Promise.all(
    cases.map(({ prompt, greedy }: { prompt: number[]; greedy: number[] }) =>
      model.generate(prompt, {
        temperature: 0,
        maxTokens: greedy.length,
        minTokens: greedy.length,
        stopTokens: suppressed,
      }),
    ),
  );
  const { device, why, runtime, kvCache } = model;
  const { mode, rows, maxLength, bytesReserved } = kvCache;
  const { steps, tokens } = model.stats();
  await model.dispose();
  const answers: number[][] = generations.map((generation) => generation.tokens);
  return { answers, device, why, runtime, kvCache: { mode, rows, maxLength, bytesReserved }, steps, tokens };
}

onStandIn.each(flavours)('StandIn %s: a language model on a GPU', (flavour) => {
  test("has PyTorch's tokens, for prompts that run together, in chunks, over a cache in place", async () => {
    const env = { TEST_FIXTURE: 'llama/optimum', TEST_PRECISION: 'fp32' };
    const found = await run(flavour, generateAll, env);
    const { cases } = decoderAnswers('llama/optimum');
    expectGreedy(found.answers, cases, 1e-4);
    expect(found).toMatchObject({
      device: 'cuda:0',
      why: 'options.device asked for it: Stand-in GPU A (sm_89)',
      runtime: { name: flavour === 'rtx' ? 'tensorrt-rtx' : 'tensorrt' },
      kvCache: { mode: 'in-place', rows: 3, maxLength: 250 },
    });
    const prompts = cases.reduce((sum, { prompt }) => sum + prompt.length, 0);
    expect(found.tokens.prefilled + found.tokens.cached).toBe(prompts);
    // Rows ran together.
    expect(found.steps.decode).toBeLessThan(found.tokens.decoded);
  });
});

onStandIn('StandIn: decoders of other kinds on a GPU', () => {
  test.each([
    ['trt10', 'gpt2/optimum', 'fp32', 1e-4],
    ['trt11', 'llama-int4/genai', 'fp32', 1e-4],
    ['trt10', 'qwen2-window/optimum', 'fp32', 1e-4],
    ['rtx', 'gemma3/optimum', 'fp32', 1e-4],
    ['rtx', 'llama/optimum', 'fp16', 0.1],
  ] as const)("%s: %s in %s has PyTorch's tokens", async (flavour, fixture, precision, gap) => {
    const found = await run(flavour, generateAll, { TEST_FIXTURE: fixture, TEST_PRECISION: precision });
    expectGreedy(found.answers, decoderAnswers(fixture).cases, gap);
  });
});

onStandIn.each(flavours)('StandIn %s: sequences in the memory of a GPU', (flavour) => {
  test('are forked, truncated, moved, saved and restored, and go on as if nothing had been', async () => {
    const found = await run(flavour, async ({ trt }) => {
      const load = () =>
        trt.LanguageModel.load('test/fixtures/decoders/llama/optimum', {
          device: 'cuda',
          precision: 'fp32',
          kvCache: { maxBatchSize: 4, maxLength: 64 },
        });
      const prompt = Array.from({ length: 20 }, (_, i) => (i * 37) % 250);
      const greedy = { temperature: 0, maxTokens: 8, minTokens: 8, ignoreEos: true };
      const model = await load();
      const expected = (await model.generate([...prompt, 7], greedy)).tokens;
      const other = (await model.generate([...prompt, 9], greedy)).tokens;
      model.kvCache.clear();
      const first = model.createSequence();
      await first.append(prompt);
      const second = await first.fork();
      await Promise.all([first.append([7]), second.append([9])]);
      const [one, two] = await Promise.all([first.generate(greedy), second.generate(greedy)]);
      const forked = [one.tokens, two.tokens];
      second.truncate(prompt.length);
      await second.append([7]);
      const state = await second.save();
      const truncated = (await second.generate(greedy)).tokens;
      first.dispose();
      const later = await load();
      const restored = (await (await later.restoreSequence(state)).generate(greedy)).tokens;
      const used = [model.kvCache.used, model.kvCache.bytesUsed > 0];
      await Promise.all([model.dispose(), later.dispose()]);
      return { expected, other, forked, truncated, restored, used };
    });
    const { expected, other } = found;
    expect(expected).not.toEqual(other);
    expect(found.forked).toEqual([expected, other]);
    expect(found.truncated).toEqual(expected);
    expect(found.restored).toEqual(expected);
    expect(found.used).toEqual([1, true]);
  });
});

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
