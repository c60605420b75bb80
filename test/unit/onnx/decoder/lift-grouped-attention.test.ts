import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recogniseDecoder } from '../../../../lib/onnx/decoder/decoder.js';
import type { Lift } from '../../../../lib/onnx/decoder/lift.js';
import {
  isGroupQueryAttention,
  liftGroupQueryAttention,
  withWholeCaches,
} from '../../../../lib/onnx/decoder/lift-group-query-attention.js';
import { liftTensorScatter } from '../../../../lib/onnx/decoder/lift-tensor-scatter.js';
import type { ModelProto } from '../../../../lib/onnx/format/model.js';
import { readModel } from '../../../../lib/onnx/format/model-file.js';
import { attributeProto } from '../../../../lib/onnx/graph/graph-builder.js';
import { decoderAnswers, decoderModel, sessionBeside } from '../../../decoder-fixture.js';
import { expectAnswers } from '../../../in-place-decoder.js';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'lift-'));
});
afterAll(() => rm(directory, { recursive: true }));

async function expectLifted(fixture: string, lifted: Lift): Promise<void> {
  if (lifted.reason !== undefined) throw new Error(lifted.reason);
  const { model, graph } = lifted;
  expect(graph.mode).toBe('in-place');
  expect(graph.inputs).toEqual({ input_ids: 'input_ids', last_indices: 'last_indices', longest: 'longest' });
  expect(model.graph.node.filter(isGroupQueryAttention)).toHaveLength(2);
  const folder = await mkdtemp(path.join(directory, 'model-'));
  const where = { directory: path.dirname(decoderModel(fixture)) };
  await using session = await sessionBeside(model, folder, where);
  await expectAnswers(session, graph, decoderAnswers(fixture));
}

describe('liftGroupQueryAttention', () => {
  const fixtures = ['gemma', 'llama', 'llama-int4', 'llama3', 'mistral', 'phi3', 'qwen2', 'qwen3'].map(
    (name) => `${name}/genai`,
  );
  it.each([...fixtures, 'qwen2-window/genai-full-cache'])('%s', async (fixture) => {
    const model = await readModel(decoderModel(fixture));
    await expectLifted(fixture, liftGroupQueryAttention(model, recogniseDecoder(model)));
  });

  it('gives whole caches to layers that were meant for ones no longer than their window', async () => {
    const fixture = 'qwen2-window/genai-full-cache';
    const model = await readModel(decoderModel(fixture));
    for (const node of model.graph.node.filter(isGroupQueryAttention)) {
      node.attribute.push(attributeProto('sliding_window_cache', 1));
    }
    const whole = withWholeCaches(model);
    await expectLifted(fixture, liftGroupQueryAttention(whole, recogniseDecoder(whole)));
    expect(withWholeCaches(whole)).toBe(whole);
  });

  it('says which node it can not lift, and why', async () => {
    const lift = async (change: (model: ModelProto) => void) => {
      const model = await readModel(decoderModel('llama/genai'));
      change(model);
      return liftGroupQueryAttention(model, recogniseDecoder(model)).reason;
    };
    const attention = ({ graph }: ModelProto) => graph.node.find(isGroupQueryAttention)!;
    const bias = await lift((model) => {
      attention(model).input[10] = 'input_ids';
    });
    expect(bias).toMatch(/^"\/model\/layers.0\/attn\/GroupQueryAttention" .* adds "input_ids"/);
    const quantized = await lift((model) => {
      attention(model).attribute.push(attributeProto('k_quant_type', 'PER_TENSOR'));
    });
    expect(quantized).toMatch(/keeps its cache quantized/);
    const masked = await lift(({ graph }) => {
      graph.node.push({
        opType: 'Identity',
        name: 'mask',
        input: ['attention_mask'],
        output: ['kept'],
        attribute: [],
      });
      graph.output.push({ name: 'kept' });
    });
    expect(masked).toBe('"mask" (Identity) reads "attention_mask" for more than rows\' lengths');
  });
});

describe('liftTensorScatter', () => {
  it.each(['llama/tensor-scatter', 'llama/static-cache'])('%s', async (fixture) => {
    const model = await readModel(decoderModel(fixture));
    const directory = path.dirname(decoderModel(fixture));
    await expectLifted(fixture, liftTensorScatter(model, recogniseDecoder(model), { directory }));
  });

  it('leaves a rotary embedding outside whose positions are not plainly those of the new tokens', async () => {
    const fixture = 'llama/tensor-scatter';
    const model = await readModel(decoderModel(fixture));
    const rotary = model.graph.node.filter(({ opType }) => opType === 'RotaryEmbedding');
    const positions = rotary[0]!.input[3]!;
    for (const node of rotary) node.input[3] = 'moved';
    // 1 · x: the same, but not by its form.
    model.graph.node.unshift({ opType: 'Mul', input: [positions, 'one'], output: ['moved'], attribute: [] });
    const lifted = liftTensorScatter(model, recogniseDecoder(model));
    if (lifted.reason !== undefined) throw new Error(lifted.reason);
    expect(lifted.graph.inputs).toMatchObject({ write_indices: 'past_lengths' });
    const folder = await mkdtemp(path.join(directory, 'model-'));
    await using session = await sessionBeside(lifted.model, folder);
    await expectAnswers(session, lifted.graph, decoderAnswers(fixture));
  });

  it('says which node it can not lift, and why', async () => {
    const lift = async (change: (model: ModelProto) => void) => {
      const model = await readModel(decoderModel('llama/tensor-scatter'));
      change(model);
      return liftTensorScatter(model, recogniseDecoder(model)).reason;
    };
    const first = ({ graph }: ModelProto, opType: string) =>
      graph.node.find((node) => node.opType === opType)!;
    const reasons = [
      await lift((model) => {
        first(model, 'Attention').attribute.length = 0;
      }),
      await lift((model) => {
        first(model, 'TensorScatter').attribute.push(attributeProto('mode', 'circular'));
      }),
      await lift((model) => {
        first(model, 'Attention').input[3] = 'zero';
      }),
    ];
    expect(reasons).toEqual([
      '"Attention_19" (Attention) is not causal',
      '"Attention_19" (Attention) has a circular cache',
      '"Attention_19" (Attention) has the mask "zero"',
    ]);
  });
});
