import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { InferenceSession, Tensor } from 'node-tensorrt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LoadedSession } from '../../../../dist/execution/loaded-session.js';
import type { DecoderGraph } from '../../../../lib/base/decoder-graph.js';
import { uniformNumbers } from '../../../../lib/base/random.js';
import { type LowerDecoderOptions, lowerDecoder } from '../../../../lib/engine/decoder/lower-decoder.js';
import { recogniseDecoder } from '../../../../lib/onnx/decoder/decoder.js';
import {
  isGroupQueryAttention,
  liftGroupQueryAttention,
} from '../../../../lib/onnx/decoder/lift-group-query-attention.js';
import { liftTensorScatter } from '../../../../lib/onnx/decoder/lift-tensor-scatter.js';
import { lowerAttention } from '../../../../lib/onnx/decoder/lower-attention.js';
import { addTopKHead } from '../../../../lib/onnx/decoder/top-k-head.js';
import { makeTensor, tensorElements } from '../../../../lib/onnx/format/initializer.js';
import type { ModelProto } from '../../../../lib/onnx/format/model.js';
import { readModel, serializeModel } from '../../../../lib/onnx/format/model-file.js';
import { madeWeights } from '../../../../lib/onnx/format/weight-origin.js';
import { attributeProto, GraphBuilder } from '../../../../lib/onnx/graph/graph-builder.js';
import { raiseOpset } from '../../../../lib/onnx/graph/raise-opset.js';
import { lowerMatMulNBits } from '../../../../lib/onnx/passes/lower-matmul-nbits.js';
import { decoderAnswers, decoderModel, sessionBeside } from '../../../decoder-fixture.js';
import { expectAnswers } from '../../../in-place-decoder.js';

// The form with masks, which ONNX Runtime can run. TensorRT's form differs only in the masks.

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'lower-'));
});
afterAll(() => rm(directory, { recursive: true }));

async function lifted(fixture: string) {
  const model = await readModel(decoderModel(fixture));
  const where = { directory: path.dirname(decoderModel(fixture)) };
  const decoder = recogniseDecoder(model);
  const lift = fixture.includes('genai')
    ? liftGroupQueryAttention(model, decoder)
    : liftTensorScatter(model, decoder, where);
  if (lift.reason !== undefined) throw new Error(lift.reason);
  return { ...lift, where };
}

async function sessionOf(model: ModelProto, where: { directory?: string } = {}): Promise<LoadedSession> {
  const folder = await mkdtemp(path.join(directory, 'model-'));
  return sessionBeside(model, folder, where);
}

const options = { attention: 'mask', capacity: 256, precision: 'fp32', cache: 'auto' } as const;

async function lowered(fixture: string, changes: Partial<LowerDecoderOptions> = {}) {
  const { model, graph, where } = await lifted(fixture);
  return { ...(await lowerDecoder(model, graph, { ...options, ...where, ...changes })), where };
}

describe('lowerDecoder', () => {
  it("records which of the decoder's weights every new weight was made from", async () => {
    const { model: given } = await lifted('llama-int4/genai');
    const { model } = await lowered('llama-int4/genai', { precision: 'fp16' });
    const weights = new Set(given.graph.initializer.map(({ name }) => name));
    const made = madeWeights(model.graph);
    expect(made.flatMap(({ from }) => from).filter((name) => !weights.has(name))).toEqual([]);
    // Everything else is the decoder's own, or numbers and shapes that lowering needs.
    const known = new Set(made.map(({ weight }) => weight));
    const others = model.graph.initializer.filter(({ name }) => !known.has(name!) && !weights.has(name));
    expect(others.filter(({ name }) => !/^(constant\.|cache\.positions$)/.test(name!))).toEqual([]);
    const quantized = made.filter(({ weight }) => weight.endsWith('.signed'));
    expect(quantized.length).toBe(given.graph.node.filter(({ opType }) => opType === 'MatMulNBits').length);
  });

  it.each([
    'llama/genai',
    'llama/static-cache',
    'llama-int4/genai',
    'gemma/genai',
    'qwen2-window/genai-full-cache',
    'qwen3/genai',
  ])("%s gives PyTorch's tokens and logits", async (fixture) => {
    const { model, graph, where, cacheType } = await lowered(fixture);
    expect(cacheType).toBe('float32');
    expect(graph.inputs).toEqual({
      input_ids: 'input_ids',
      logits_index: 'logits_index',
      past_lengths: 'past_lengths',
      position_ids: 'position_ids',
    });
    await using session = await sessionOf(model, where);
    await expectAnswers(session, graph, decoderAnswers(fixture), { empty: 0 });
  });

  it.each(['llama/genai', 'llama-int4/genai', 'qwen2-window/genai-full-cache'])(
    "%s in FP16, caches too, gives PyTorch's tokens",
    async (fixture) => {
      const { model, graph, where, cacheType, cast } = await lowered(fixture, { precision: 'fp16' });
      expect(cacheType).toBe('float16');
      expect(cast!.kept.every(({ reason }) => /logits/.test(reason))).toBe(true);
      await using session = await sessionOf(model, where);
      const worst = await expectAnswers(session, graph, decoderAnswers(fixture), {
        empty: 0,
        tolerance: 0.05,
        gap: 0.05,
      });
      expect(worst).toBeGreaterThan(1e-4);
    },
  );

  it('keeps attention and caches in FP32 where keys come near the largest FP16', async () => {
    const { model, graph, where } = await lifted('llama/genai');
    const node = model.graph.node.flatMap((each) => {
      if (!isGroupQueryAttention(each)) return [each];
      const wide = `${each.input[0]}.wide`;
      const input = [each.input[0]!, 'large'];
      return [
        { opType: 'Mul', input, output: [wide], attribute: [] },
        { ...each, input: [wide, ...each.input.slice(1)] },
      ];
    });
    const initializer = [
      ...model.graph.initializer,
      makeTensor('large', 'float32', [], Float32Array.of(4096)),
    ];
    const large = { ...model, graph: { ...model.graph, node, initializer } };
    const overflowing = await lowerDecoder(large, graph, { ...options, ...where, precision: 'fp16' });
    expect(overflowing.cacheType).toBe('float32');
    const asked = await lowerDecoder(large, graph, {
      ...options,
      ...where,
      precision: 'fp16',
      cache: 'fp16',
    });
    expect(asked.cacheType).toBe('float16');
  });

  it('leaves quantized products with too large values in FP32', async () => {
    const { model, graph, where } = await lifted('llama-int4/genai');
    const gate = model.graph.node.find(({ name }) => name === '/model/layers.0/mlp/gate_proj/MatMul_Q4')!;
    const scales = model.graph.initializer.find(({ name }) => name === gate.input[2])!;
    const values = (tensorElements(scales, where) as Float32Array).map((scale) => scale * 1000);
    const wide = makeTensor('wide', 'float32', scales.dims, values);
    model.graph.initializer.push(wide);
    gate.input[2] = 'wide';
    const { model: lower } = await lowerDecoder(model, graph, { ...options, ...where, precision: 'fp16' });
    const typeOf = (product: string) => {
      const node = lower.graph.node.find(({ name }) => name === `${product}/weight`)!;
      return lower.graph.initializer.find(({ name }) => name === node.input[1])!.dataType;
    };
    expect(typeOf('/model/layers.0/mlp/gate_proj/MatMul_Q4')).toBe(1);
    expect(typeOf('/model/layers.0/mlp/up_proj/MatMul_Q4')).toBe(10);
    expect(typeOf('/lm_head/MatMul_Q4')).toBe(1);
  });

  it('attends up to a length per row if TensorRT can, and updates every cache', async () => {
    const { model, graph } = await lowered('qwen2-window/genai-full-cache', { attention: 'lengths' });
    expect(graph.inputs).toMatchObject({ past_lengths: 'past_lengths', total_lengths: 'total_lengths' });
    const count = (opType: string) => model.graph.node.filter((node) => node.opType === opType).length;
    expect([count('TensorScatter'), count('TRT_Attention'), count('Attention')]).toEqual([4, 2, 0]);
  });

  it('keeps the lengths for other nodes that read them', async () => {
    const fixture = 'llama/tensor-scatter';
    const model = await readModel(decoderModel(fixture));
    const rotary = model.graph.node.filter(({ opType }) => opType === 'RotaryEmbedding');
    const positions = rotary[0]!.input[3]!;
    for (const node of rotary) node.input[3] = 'moved';
    // 1 · x has the same value but another form, so the rotary embedding stays outside.
    model.graph.node.push({ opType: 'Mul', input: [positions, 'one'], output: ['moved'], attribute: [] });
    const lift = liftTensorScatter(model, recogniseDecoder(model));
    if (lift.reason !== undefined) throw new Error(lift.reason);
    for (const attention of ['mask', 'lengths'] as const) {
      const { model: lower, graph } = await lowerDecoder(lift.model, lift.graph, { ...options, attention });
      expect(graph.inputs).toMatchObject({ write_indices: 'past_lengths' });
      expect(lower.graph.input.find(({ name }) => name === 'write_indices')!.type!.tensorType!.elemType).toBe(
        7,
      );
      if (attention === 'lengths') continue;
      await using session = await sessionOf(lower);
      await expectAnswers(session, graph, decoderAnswers(fixture), { empty: 0 });
    }
  });

  it('refuses a cache that another node attends to', async () => {
    const model = await readModel(decoderModel('llama/tensor-scatter'));
    const { graph } = recogniseDecoder(model);
    await expect(lowerDecoder(model, graph, options)).rejects.toThrow(
      /"past_key_values.0.key" is read by "present.0.key" \(TensorScatter\), and not by GroupQueryAttention alone/,
    );
  });

  it('refuses unsupported nodes by name', async () => {
    const refused = async (change: (model: ModelProto) => void) => {
      const { model, graph } = await lifted('llama/genai');
      change(model);
      return () => lowerAttention(model, graph, { attention: 'lengths', capacity: 600, type: 'float16' });
    };
    const attention = ({ graph }: ModelProto) => graph.node.find(isGroupQueryAttention)!;
    const set = (name: string, value: number) => (model: ModelProto) => {
      attention(model).attribute = attention(model).attribute.filter((each) => each.name !== name);
      attention(model).attribute.push(attributeProto(name, value));
    };
    const unsupported = (message: RegExp) =>
      expect.objectContaining({ code: 'ERR_MODEL_UNSUPPORTED', message: expect.stringMatching(message) });
    expect(await refused(set('softcap', 1.5))).toThrow(
      unsupported(/"\/model\/layers.0\/attn\/GroupQueryAttention".*softcap/),
    );
    expect(await refused(set('smooth_softmax', 1))).toThrow(unsupported(/attention sink/));
    const { model, graph } = await lifted('llama/genai');
    const longer = { attention: 'lengths', capacity: 600, length: 512, type: 'float16' } as const;
    expect(lowerAttention(model, graph, longer).graph.caches).toHaveLength(4);
    expect(await refused(() => undefined)).toThrow(
      unsupported(/knows 512 positions, fewer than the 600 tokens of a row: set kvCache.maxLength/),
    );
  });
});

describe('lowerMatMulNBits', () => {
  const [k, n, blockSize] = [96, 20, 32];
  const blocks = k / blockSize;

  function quantized(bits: 4 | 8, zeroPoints: 'none' | 'packed' | 'float', negative: boolean): ModelProto {
    const uniform = uniformNumbers(7);
    const bytes = (count: number) => Uint8Array.from({ length: count }, () => Math.floor(uniform() * 256));
    const g = new GraphBuilder('quantized');
    const x = g.input('x', 'float32', ['rows', 'new', k]);
    const weight = g.initializer(
      'w',
      'uint8',
      [n, blocks, (blockSize * bits) / 8],
      bytes((n * k * bits) / 8),
    );
    const scale = Float32Array.from({ length: n * blocks }, () => (uniform() - (negative ? 0.5 : 0)) / 8);
    if (negative) scale[1] = 0;
    const inputs = [x, weight, g.initializer('s', 'float32', [n * blocks], scale)];
    if (zeroPoints === 'packed') {
      const bytesPerRow = Math.ceil((blocks * bits) / 8);
      inputs.push(g.initializer('z', 'uint8', [n * bytesPerRow], bytes(n * bytesPerRow)));
    } else if (zeroPoints === 'float') {
      const points = Float32Array.from({ length: n * blocks }, () => uniform() * 2 ** bits);
      inputs.push(g.initializer('z', 'float32', [n * blocks], points));
    }
    const attributes = { K: k, N: n, bits, block_size: blockSize };
    g.op('MatMulNBits', inputs, attributes, { domain: 'com.microsoft', outputs: ['y'] });
    g.output('y', 'float32', ['rows', 'new', n]);
    return g.finish();
  }

  // ONNX Runtime's own operator is the oracle.
  it.each([
    [4, 'none', false],
    [4, 'none', true],
    [4, 'packed', false],
    [4, 'float', true],
    [8, 'none', false],
    [8, 'none', true],
    [8, 'packed', true],
  ] as const)('%i bits, zero points: %s, negative scales: %s', async (bits, zeroPoints, negative) => {
    const model = quantized(bits, zeroPoints, negative);
    const lower = lowerMatMulNBits(model, { from: 'float32', type: 'float32' });
    expect(lower.graph.node.some(({ opType }) => opType === 'MatMulNBits')).toBe(false);
    const uniform = uniformNumbers(3);
    const x = new Tensor('float32', Float32Array.from({ length: 3 * 2 * k }, uniform), [3, 2, k]);
    const [expected, actual] = await Promise.all(
      [model, lower].map(async (each) => {
        await using session = await InferenceSession.create(serializeModel(each));
        return (await session.run({ x })).y!.data as Float32Array;
      }),
    );
    const largest = expected!.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    actual!.forEach((value, i) => {
      expect(Math.abs(value - expected![i]!)).toBeLessThan(1e-5 * largest);
    });
    if (bits === 8) {
      const scales = lower.graph.initializer.find(({ name }) => name === 's.matrix')!.rawData!;
      expect(new Float32Array(scales.buffer, scales.byteOffset, n * blocks).every((each) => each > 0)).toBe(
        true,
      );
    }
  });

  it('names the unsupported forms', () => {
    const model = quantized(4, 'none', false);
    const bits = model.graph.node[0]!.attribute.find(({ name }) => name === 'bits')!;
    bits.i = 2n;
    expect(() => lowerMatMulNBits(model, { from: 'float32', type: 'float32' })).toThrow(
      'TensorRT can\'t run the node "MatMulNBits" (MatMulNBits): it has weights of 2 bits.',
    );
  });
});

describe('addTopKHead', () => {
  const graph: DecoderGraph = { mode: 'in-place', inputs: { x: 'input_ids' }, caches: [], logits: 'logits' };

  function identity(dims: (string | number)[]): ModelProto {
    const g = new GraphBuilder('logits');
    g.op('Identity', [g.input('x', 'float32', dims)], {}, { outputs: ['logits'] });
    g.output('logits', 'float32', dims);
    return g.finish();
  }

  it.each([
    [['rows', 1000], 1000],
    [['rows', 'new', 1000], 1000],
    [['rows', 'new', 40], 40],
  ])('%j', async (dims, vocabulary) => {
    const head = addTopKHead(identity(dims), graph);
    const uniform = uniformNumbers(1);
    const rows = 3;
    const each = dims.length === 3 ? 2 : 1;
    // So large that their exponentials overflow.
    const values = Float32Array.from({ length: rows * each * vocabulary }, () => 200 + 20 * uniform());
    const shape = dims.length === 3 ? [rows, each, vocabulary] : [rows, vocabulary];
    await using session = await InferenceSession.create(serializeModel(head.model));
    const results = await session.run({ x: new Tensor('float32', values, shape) });
    const { logits, tokens, logSumExp } = head.graph.top!;
    const k = Math.min(256, vocabulary);
    expect(results.logits!.dims).toEqual([rows, vocabulary]);
    expect(results[logits]!.dims).toEqual([rows, k]);
    for (let row = 0; row < rows; row++) {
      const start = ((row + 1) * each - 1) * vocabulary;
      const last = values.subarray(start, start + vocabulary);
      const order = [...last.keys()].sort((a, b) => last[b]! - last[a]!).slice(0, k);
      expect([...(results[tokens]!.data as Int32Array).subarray(row * k, (row + 1) * k)]).toEqual(order);
      const best = order.map((token) => last[token]!);
      expect([...(results[logits]!.data as Float32Array).subarray(row * k, (row + 1) * k)]).toEqual(best);
      const sum = last.reduce((total, value) => total + Math.exp(value - best[0]!), 0);
      expect((results[logSumExp]!.data as Float32Array)[row]).toBeCloseTo(Math.log(sum) + best[0]!, 3);
    }
  });

  it('refuses logits with an unknown vocabulary size', () => {
    expect(() => addTopKHead(identity(['rows', 'vocabulary']), graph)).toThrow(
      /"logits" is float32 \[rows,vocabulary\]/,
    );
  });
});

describe('raiseOpset', () => {
  function reducing(opset: number): ModelProto {
    const g = new GraphBuilder('reducing', { opset, irVersion: 7 });
    const x = g.input('x', 'float32', ['rows', 6]);
    const [a, b] = g.op('Split', [x], { axis: 1 }, { outputs: 2 }) as [string, string];
    const mean = g.op('ReduceMean', [a], { axes: [1], keepdims: 1 });
    const most = g.op('ReduceMax', [b], { axes: [-1], keepdims: 1 });
    g.op('Sub', [mean, most], {}, { outputs: ['y'] });
    g.output('y', 'float32', ['rows', 1]);
    return g.finish();
  }

  it('turns axes into an input, and gives a Split its number of parts', async () => {
    const x = new Tensor(
      'float32',
      Float32Array.from({ length: 12 }, (_, i) => i * i),
      [2, 6],
    );
    const results = [];
    for (const model of [reducing(13), raiseOpset(reducing(13), 24)]) {
      await using session = await InferenceSession.create(serializeModel(model));
      results.push([...((await session.run({ x })).y!.data as Float32Array)]);
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[0]![1]).toBeCloseTo((36 + 49 + 64) / 3 - 121, 4);
  });

  it('refuses nodes that it would have to rewrite', () => {
    expect(() => raiseOpset(reducing(12), 24)).toThrow(/of operator set 12: export it with 13 or later/);
    const model = reducing(13);
    model.graph.node[0]!.opType = 'GridSample';
    expect(() => raiseOpset(model, 24)).toThrow(/"Split" \(GridSample\) is of operator set 13/);
    expect(raiseOpset(model, 13)).toBe(model);
  });
});
