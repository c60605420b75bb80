import { InferenceSession, Tensor } from 'node-tensorrt';
import { buildBert, buildResnet, serializeModel, tensorSize } from 'node-tensorrt/onnx';
import { expect, test } from 'vitest';
import { python } from '../../../oracle/python.js';

// Parameters that torchvision documents for resnet50 and resnet101. Of the four numbers a channel that a normalisation
// has, PyTorch counts two as parameters; folded, one is left.
test.each([
  [50, 25_557_032, 26_560],
  [101, 44_549_160, 52_672],
] as const)('ResNet-%i has as many parameters as torchvision counts', async (depth, parameters, channels) => {
  const { graph } = await buildResnet({ depth });
  const weights = graph.initializer.filter(({ name }) => /weight|bias/.test(name!));
  expect(weights.reduce((sum, tensor) => sum + tensorSize(tensor), 0)).toBe(parameters - channels);
  expect(graph.node.filter(({ opType }) => opType === 'Conv').length).toBe(depth - 1 + 4);
});

test('its random weights give finite logits of ordinary size, the same for the same seed', async () => {
  const [a, b, c] = await Promise.all([1, 1, 2].map((seed) => buildResnet({ seed })));
  const bytes = serializeModel(a!);
  expect(Buffer.compare(serializeModel(b!), bytes)).toBe(0);
  expect(Buffer.compare(serializeModel(c!), bytes)).not.toBe(0);
  python('import onnx, sys; onnx.checker.check_model(sys.stdin.buffer.read(), full_check=True)', [], bytes);
  await using session = await InferenceSession.create(bytes);
  const data = Float32Array.from({ length: 2 * 3 * 64 * 64 }, (_, i) => Math.sin(i));
  const { logits } = await session.run({ input: new Tensor('float32', data, [2, 3, 64, 64]) });
  expect(logits!.dims).toEqual([2, 1000]);
  const largest = Math.max(...(logits!.data as Float32Array).map(Math.abs));
  expect(largest).toBeGreaterThan(0.1);
  expect(largest).toBeLessThan(100);
});

test('BERT of a configuration alone', async () => {
  const config = {
    model_type: 'bert',
    vocab_size: 100,
    hidden_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    intermediate_size: 64,
    max_position_embeddings: 16,
    type_vocab_size: 2,
  };
  await using session = await InferenceSession.create(serializeModel(await buildBert(config, { seed: 3 })));
  const ids = new Tensor('int64', BigInt64Array.from([1n, 2n, 3n, 4n]), [1, 4]);
  const ones = new Tensor('int64', new BigInt64Array(4).fill(1n), [1, 4]);
  const zeros = new Tensor('int64', new BigInt64Array(4), [1, 4]);
  const feeds = { input_ids: ids, attention_mask: ones, token_type_ids: zeros };
  const { sentence_embedding } = await session.run(feeds);
  expect(Math.hypot(...(sentence_embedding!.data as Float32Array))).toBeCloseTo(1, 5);
  await expect(buildBert({ ...config, model_type: 'gpt2' })).rejects.toMatchObject({
    code: 'ERR_MODEL_UNSUPPORTED',
  });
});
