import { readdirSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { rewriteDecoder } from '../../../../lib/engine/decoder/rewrite-decoder.js';
import { recogniseDecoder } from '../../../../lib/onnx/decoder/decoder.js';
import { tensorElements } from '../../../../lib/onnx/format/initializer.js';
import type { ModelProto, NodeProto } from '../../../../lib/onnx/format/model.js';
import { readModel } from '../../../../lib/onnx/format/model-file.js';
import { operatorName } from '../../../../lib/onnx/graph/operators.js';
import { decoderAnswers, decoderModel, sessionBeside } from '../../../decoder-fixture.js';
import { expectAnswers } from '../../../in-place-decoder.js';

const decoders = path.join(import.meta.dirname, '../../../fixtures/decoders');
const fixtures = readdirSync(decoders, { recursive: true, encoding: 'utf8' })
  .filter((file) => path.basename(file) === 'model.onnx')
  .map((file) => path.dirname(file))
  .filter((fixture) => /optimum|dynamo/.test(fixture));

async function lifted(fixture: string) {
  const directory = path.dirname(decoderModel(fixture));
  const model = await readModel(decoderModel(fixture));
  const result = await rewriteDecoder(model, recogniseDecoder(model), { directory, maxLength: 256 });
  if (result.reason !== undefined) throw new Error(result.reason);
  return { ...result, directory };
}

const attentions = ({ graph }: ModelProto) =>
  graph.node.filter((node) => operatorName(node) === 'com.microsoft.GroupQueryAttention');

const attribute = (node: NodeProto, name: string) => node.attribute.find((each) => each.name === name);

describe('liftAttention', () => {
  it.each(fixtures)('%s: PyTorch’s tokens and logits, rows of all lengths at once', async (fixture) => {
    const { model, graph, directory } = await lifted(fixture);
    const folder = await mkdtemp(path.join(tmpdir(), 'lift-'));
    try {
      await using session = await sessionBeside(model, folder, { directory });
      const difference = await expectAnswers(session, graph, decoderAnswers(fixture));
      expect(difference).toBeGreaterThan(0);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('leaves nothing that reads how long a cache is, nor an attention mask', async () => {
    for (const fixture of ['llama/optimum', 'gpt2/optimum', 'gemma3/optimum', 'llama/dynamo-24']) {
      const { model, graph } = await lifted(fixture);
      const caches = graph.caches.flatMap(({ input, output }) => [input, output]);
      const readers = model.graph.node.filter(({ input }) => input.some((name) => caches.includes(name)));
      expect(readers).toEqual(attentions(model));
      expect(readers).toHaveLength(2);
      expect(model.graph.node.some((node) => operatorName(node) === 'Shape')).toBe(false);
      expect(Object.values(graph.inputs)).not.toContain('attention_mask');
    }
  });

  it('finds windows, scales and what heads are, and turns queries and keys inside', async () => {
    const settings = async (fixture: string) =>
      attentions((await lifted(fixture)).model).map((node) => ({
        heads: Number(attribute(node, 'num_heads')?.i),
        kvHeads: Number(attribute(node, 'kv_num_heads')?.i),
        scale: attribute(node, 'scale')?.f,
        window: Number(attribute(node, 'local_window_size')?.i),
        rotary: Number(attribute(node, 'do_rotary')?.i),
      }));
    const llama = { heads: 4, kvHeads: 2, scale: 0.25, window: -1, rotary: 1 };
    expect(await settings('llama/optimum')).toEqual([llama, llama]);
    const mistral = { ...llama, window: 16 };
    expect(await settings('mistral-window/optimum')).toEqual([mistral, mistral]);
    expect(await settings('qwen2-window/optimum')).toEqual([llama, mistral]);
    const gpt2 = { ...llama, kvHeads: 4, rotary: 0 };
    expect(await settings('gpt2/optimum')).toEqual([gpt2, gpt2]);
    const gemma3 = await settings('gemma3/optimum');
    expect(gemma3).toMatchObject([{ window: 16 }, { window: -1 }]);
    expect(gemma3[0]!.scale).toBeCloseTo(1 / Math.sqrt(32), 6);
  });

  it('computes tables of cosines and sines as Hugging Face does, scaled frequencies too', async () => {
    const { model } = await lifted('llama3/optimum');
    const [node] = attentions(model);
    const table = (i: number) => {
      const tensor = model.graph.initializer.find(({ name }) => name === node!.input[i])!;
      expect(tensor.dims).toEqual([256, 8]);
      return tensorElements(tensor) as Float32Array;
    };
    const [cosines, sines] = [table(7), table(8)];
    // transformers/modeling_rope_utils.py, _compute_llama3_parameters, with the fixture's configuration.
    const config = JSON.parse(
      await readFile(path.join(path.dirname(decoderModel('llama3/optimum')), 'config.json'), 'utf8'),
    );
    const { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } =
      config.rope_scaling;
    for (let pair = 0; pair < 8; pair++) {
      const frequency = config.rope_theta ** (-pair / 8);
      const turns = (original_max_position_embeddings * frequency) / (2 * Math.PI);
      const smooth = Math.min(
        Math.max((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0),
        1,
      );
      const scaled = (1 - smooth) * (frequency / factor) + smooth * frequency;
      for (const position of [0, 1, 17, 255]) {
        expect(cosines[position * 8 + pair]).toBeCloseTo(Math.cos(position * scaled), 4);
        expect(sines[position * 8 + pair]).toBeCloseTo(Math.sin(position * scaled), 4);
      }
    }
  });
});

describe('what is not recognised', () => {
  /** The Llama with operators exchanged. */
  async function changed(from: string, to: string) {
    const file = decoderModel('llama/optimum');
    const model = await readModel(file);
    const node = model.graph.node.map((each) => (each.opType === from ? { ...each, opType: to } : each));
    const other = { ...model, graph: { ...model.graph, node } };
    return rewriteDecoder(other, recogniseDecoder(other), { directory: path.dirname(file), maxLength: 64 });
  }

  it('leaves a graph whose mask is not causal as it is, and says which and where', async () => {
    const { reason } = await changed('LessOrEqual', 'Less');
    expect(reason).toMatch(/^the mask ".*" is not causal: of 64 keys, position 63 does not see number 63$/);
  });

  it('names the node that is no part of attention', async () => {
    expect((await changed('IsNaN', 'IsInf')).reason).toMatch(
      /^the Where ".*self_attn\/Where_\d" is no Softmax/,
    );
  });

  it('leaves rows alone whose activations would be quantized together', async () => {
    expect((await changed('Softmax', 'DynamicQuantizeLinear')).reason).toMatch(
      /^the DynamicQuantizeLinear ".*self_attn\/Softmax" takes its scale from all rows/,
    );
  });

  it('leaves outside what turns queries and keys in another way', async () => {
    const result = await changed('Neg', 'Abs');
    if (result.reason !== undefined) throw new Error(result.reason);
    expect(attentions(result.model).map((node) => Number(attribute(node, 'do_rotary')?.i))).toEqual([0, 0]);
    expect(result.graph.inputs.position_ids).toBe('position_ids');
  });
});

describe('packQueries', () => {
  it.each(['gpt2/optimum', 'phi3/optimum'])('%s: what one product gave is not cut', async (fixture) => {
    const { model } = await lifted(fixture);
    for (const node of attentions(model)) {
      expect(node.input.slice(1, 3)).toEqual(['', '']);
      const [product] = model.graph.node.filter(({ output }) => output[0] === node.input[0]);
      expect(product!.opType).toBe(fixture === 'gpt2/optimum' ? 'Add' : 'MatMul');
    }
  });
});

describe('keepLastPosition', () => {
  it('drops other positions right after the last attention', async () => {
    const { model } = await lifted('llama/optimum');
    const output = model.graph.output.find(({ name }) => name === 'logits')!;
    expect(output.type?.tensorType?.shape?.dim).toHaveLength(2);
    const last = attentions(model)[1]!;
    const [reader] = model.graph.node.filter(({ input }) => input.includes(last.output[0]!));
    expect(reader).toMatchObject({ opType: 'Gather', attribute: [{ name: 'axis', i: 1n }] });
  });
});

describe('fuseNormalization', () => {
  it.each([
    ['llama/optimum', 'SkipSimplifiedLayerNormalization'],
    ['llama/dynamo-23', 'SkipSimplifiedLayerNormalization'],
    ['llama/dynamo-24', 'SkipSimplifiedLayerNormalization'],
    ['gpt2/optimum', 'SkipLayerNormalization'],
  ])('%s: each residual sum is one node with the normalization behind it', async (fixture, operator) => {
    const { graph } = (await lifted(fixture)).model;
    expect(graph.node.filter(({ opType }) => opType === operator)).toHaveLength(
      fixture === 'gpt2/optimum' ? 5 : 4,
    );
    expect(graph.node.some(({ opType }) => opType === 'ReduceMean')).toBe(false);
  });

  it('normalizes heads where they are', async () => {
    const { graph } = (await lifted('gemma3/optimum')).model;
    expect(graph.node.filter(({ opType }) => opType === 'SimplifiedLayerNormalization')).toHaveLength(9);
    expect(graph.node.some(({ opType }) => opType === 'Transpose')).toBe(false);
  });
});
