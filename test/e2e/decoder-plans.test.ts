import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { buildDecoder } from '../../dist/build/build-decoder.js';
import { prepareDecoder } from '../../dist/build/prepare-decoder.js';
import { lowerDecoder } from '../../lib/onnx/lower-decoder.js';
import { readModel } from '../../lib/onnx/model.js';
import { decoderAnswers, decoderModel, sessionBeside } from '../decoder-fixture.js';
import { expectAnswers } from '../in-place-decoder.js';

// What TensorRT gets of a decoder: compiled by TensorRT-RTX for GPUs that are not here, and, in the form that ONNX
// Runtime can compute too, beside PyTorch.

const isFull = process.env.NODE_TENSORRT_TEST_FULL === '1';
const all = readdirSync(path.join(import.meta.dirname, '../fixtures/decoders'), {
  recursive: true,
  encoding: 'utf8',
})
  .filter((file) => path.basename(file) === 'model.onnx')
  .map((file) => path.dirname(file))
  .sort();
const fixtures = isFull ? all : ['gpt2/optimum', 'llama-int4/genai', 'qwen2-window/optimum'];
const precisions = isFull ? (['fp16', 'fp32', 'bf16'] as const) : (['fp16'] as const);

const folder = mkdtempSync(path.join(os.tmpdir(), 'decoder-plans-'));
afterAll(() => rmSync(folder, { recursive: true }));
const directory = () => mkdtempSync(path.join(folder, 'model-'));
const capacity = 256;

describe.each(fixtures)('%s', { timeout: 120_000 }, (fixture) => {
  const prepared = prepareDecoder({
    model: decoderModel(fixture),
    directory: directory(),
    maxLength: capacity,
    memo: path.join(folder, 'memo.json'),
  });

  test.each(precisions)(
    'compiles in %s for two GPUs, with a KV-cache layer for each cache',
    async (precision) => {
      const request = { ...(await prepared), capacity, rows: 16, chunkSize: 64, cache: 'auto' } as const;
      const options = { target: ['sm_89', 'sm_120'], precision, cache: false } as const;
      const { engine, graph } = await buildDecoder(undefined, request, options);
      const caches = request.graph.caches.map(({ output }) => output).sort();
      const layers = (await engine.inspect()).filter(({ type }) => type === 'KVCACHE_UPDATE');
      expect(layers.map(({ outputs }) => outputs[0]!.name).sort()).toEqual(caches);
      const ownType = { fp16: 'float16', fp32: 'float32', bf16: 'bfloat16' }[precision];
      for (const { input, kvHeads, headDim } of graph.caches) {
        expect(engine.inputs.find(({ name }) => name === input)).toMatchObject({
          type: ownType,
          dims: [-1, kvHeads, capacity, headDim],
        });
      }
      expect(engine.manifest.decoder).toEqual(graph);
      expect(graph.inputs).toMatchObject({ logits_index: 'logits_index' });
      const shapes = engine.manifest.profiles.map(({ input_ids: tokens }) => tokens);
      expect(shapes).toEqual([
        { min: [1, 1], opt: [16, 1], max: [16, 1] },
        { min: [1, 1], opt: [1, 64], max: [1, 64] },
      ]);
      const { logits, tokens, logSumExp } = graph.top!;
      const outputs = [logits, tokens, logSumExp].map((name) =>
        engine.outputs.find((each) => each.name === name),
      );
      expect(outputs.map((output) => [output!.type, output!.dims])).toEqual([
        ['float32', [-1, 256]],
        ['int32', [-1, 256]],
        ['float32', [-1]],
      ]);
    },
  );

  test.each([
    ['fp32', 1e-4, 1e-4],
    ['fp16', 0.1, 0.1],
  ] as const)("gives PyTorch's tokens in %s, with masks", async (precision, tolerance, gap) => {
    const { file, graph } = await prepared;
    const where = { directory: path.dirname(file) };
    const options = { ...where, attention: 'mask', capacity, precision, cache: 'auto' } as const;
    const lowered = await lowerDecoder(await readModel(file), graph, options);
    await using session = await sessionBeside(lowered.model, directory(), where);
    await expectAnswers(session, lowered.graph, decoderAnswers(fixture), { empty: 0, tolerance, gap });
  });
});
