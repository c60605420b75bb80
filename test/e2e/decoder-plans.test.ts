import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { buildEngine } from 'node-tensorrt';
import { GraphBuilder, type ModelProto, serializeModel } from 'node-tensorrt/onnx';
import { afterAll, describe, expect, test } from 'vitest';
import { readBuildOptions } from '../../dist/engine/build-options.js';
import { buildDecoder } from '../../dist/engine/decoder/build-decoder.js';
import { prepareDecoder } from '../../dist/engine/decoder/prepare-decoder.js';
import { writeBeside } from '../../dist/onnx/format/write-beside.js';
import { lowerDecoder } from '../../lib/engine/decoder/lower-decoder.js';
import { readModel } from '../../lib/onnx/format/model-file.js';
import { decoderAnswers, decoderModel, sessionBeside } from '../decoder-fixture.js';
import { expectAnswers } from '../in-place-decoder.js';

// Decoders as TensorRT gets them: compiled by TensorRT-RTX for GPUs that aren't here, and compared with PyTorch in the
// form that ONNX Runtime can also run.

const isFull = process.env.NODE_TENSORRT_TEST_FULL === '1';
const all = readdirSync(path.join(import.meta.dirname, '../fixtures/decoders'), {
  recursive: true,
  encoding: 'utf8',
})
  .filter((file) => path.basename(file) === 'model.onnx')
  .map((file) => path.dirname(file))
  .sort();
const windowed = ['gemma3/optimum', 'mistral-window/optimum', 'qwen2-window/optimum'];
const fixtures = isFull ? all : ['gpt2/optimum', 'llama-int4/genai', ...windowed];
const precisions = isFull ? (['fp16', 'fp32', 'bf16'] as const) : (['fp16'] as const);

const folder = mkdtempSync(path.join(os.tmpdir(), 'decoder-plans-'));
afterAll(() => rmSync(folder, { recursive: true }));
const directory = () => mkdtempSync(path.join(folder, 'model-'));
const capacity = 256;

interface PlanFunction {
  readonly name: string;
  /** Names of the network's tensors and of those that the compiler added. */
  readonly tensors: readonly string[];
}

/** The functions that a plan of TensorRT-RTX 1.7 runs, in order. The plan contains them as text, once for each GPU. */
function functionsOf(plan: Uint8Array): PlanFunction[] {
  const text = Buffer.from(plan).toString('latin1');
  const functions = text.matchAll(/function=\{ name=(\S+) fqn=\S+ args=\{([^}]*)\}/g);
  return [...functions].map(([, name, list]) => ({
    name: name!,
    // "present.0.key [profile 1].1"
    tensors: [...list!.matchAll(/"([^"]*?)(?: \[profile \d+\])?\.\d+"/g)].map(([, tensor]) => tensor!),
  }));
}

interface Caches {
  readonly caches: readonly { readonly input: string; readonly output: string }[];
}

/** Expects that no function only copies a cache, and that attention reads every cache in place. */
function expectCachesInPlace(plan: Uint8Array, { caches }: Caches): void {
  const functions = functionsOf(plan);
  const names = new Set(caches.flatMap(({ input, output }) => [input, output]));
  const readers = (pattern: RegExp) =>
    functions
      .filter(({ name }) => pattern.test(name))
      .flatMap(({ tensors }) => tensors.filter((name) => names.has(name)));
  expect(readers(/^__myl_Move(Tran)?$/)).toEqual([]);
  expect([...new Set(readers(/_mha_/))].sort()).toEqual(caches.map(({ output }) => output).sort());
}

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
      const { engine, graph } = await buildDecoder(undefined, request, readBuildOptions(options));
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
      expect(engine.manifest.warnings).toEqual([]);
      expectCachesInPlace(engine.plan(), graph);
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

/** A decoder's profiles: up to 16 rows of one token, and one row of up to 64. */
function profilesOf({ graph: { input } }: ModelProto) {
  const tokens = input.find(({ name }) => name === 'input_ids')!.name;
  return [
    { [tokens]: { min: [1, 1], opt: [16, 1], max: [16, 1] } },
    { [tokens]: { min: [1, 1], opt: [1, 64], max: [1, 64] } },
  ];
}

// The form for TensorRT 10, whose parser handles the key of Attention as TensorRT-RTX's does.
test.each(['llama/optimum', 'qwen2-window/optimum'])(
  'attention with a mask copies no cache: %s',
  { timeout: 120_000 },
  async (fixture) => {
    const request = { model: decoderModel(fixture), directory: directory(), maxLength: capacity };
    const { file, graph } = await prepareDecoder({ ...request, memo: path.join(folder, 'memo.json') });
    const where = { directory: path.dirname(file) };
    const options = { ...where, attention: 'mask', capacity, precision: 'fp16', cache: 'auto' } as const;
    const lowered = await lowerDecoder(await readModel(file), graph, options);
    const written = await writeBeside(lowered.model, directory(), where);
    const engine = await buildEngine(written.file, {
      precision: 'as-exported',
      shapes: profilesOf(lowered.model),
      target: 'sm_89',
      cache: false,
    });
    expectCachesInPlace(engine.plan(), lowered.graph);
  },
);

/** One layer's attention in the size of an 8B model, over a cache of `capacity` positions. */
function attentionLayer(capacity: number): Uint8Array {
  const [heads, kvHeads, headDim] = [32, 8, 128];
  const g = new GraphBuilder('attention', { opset: 24, irVersion: 11 });
  const query = g.input('query', 'float16', ['rows', heads, 'new', headDim]);
  const lengths = g.input('past_lengths', 'int32', ['rows']);
  const mask = g.input('mask', 'bool', ['rows', 1, 'new', capacity]);
  const caches = ['key', 'value'].map((part) => {
    const dims = ['rows', kvHeads, capacity, headDim];
    const update = g.input(part, 'float16', ['rows', kvHeads, 'new', headDim]);
    const inputs = [g.input(`past.${part}`, 'float16', dims), update, lengths];
    const [present] = g.op('TensorScatter', inputs, { axis: 2 }, { outputs: [`present.${part}`] }) as [
      string,
    ];
    g.output(present, 'float16', dims);
    return present;
  });
  g.op('TRT_Attention', [query, ...caches, mask], {}, { name: 'attention', domain: 'trt', outputs: ['y'] });
  g.output('y', 'float16', ['rows', heads, 'new', headDim]);
  return serializeModel(g.finish());
}

test.each([
  [4096, true],
  [16_384, true],
  [32_768, false],
])("attention to %i positions is fused: %s; if it isn't, the manifest says so", async (capacity, isFused) => {
  const shapes = { query: { min: [1, 32, 1, 128], opt: [16, 32, 1, 128], max: [16, 32, 1, 128] } };
  const target = 'sm_89';
  const options = { precision: 'as-exported', shapes, target, cache: false } as const;
  const engine = await buildEngine(attentionLayer(capacity), options);
  const cached = new Set(['present.key', 'present.value']);
  const repeats = functionsOf(engine.plan()).filter(
    ({ name, tensors }) => /^__myl_ReshReplReshMove/.test(name) && tensors.some((name) => cached.has(name)),
  );
  expect(repeats).toHaveLength(isFused ? 0 : 2);
  expect(engine.manifest.warnings).toEqual(
    isFused ? [] : [expect.stringMatching(/no fused kernel .*"attention".*compiled from its parts/)],
  );
});
