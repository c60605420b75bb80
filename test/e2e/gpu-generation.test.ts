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
