// Language models on GPUs that fail, which the stand-in libraries play (test/native/stand_in). What they answer on one that
// does not is in test/gpu/generation.test.ts.
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
