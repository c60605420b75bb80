import { expect, it } from 'vitest';
import { Tensor } from '../../../../dist/execution/tensor.js';
import { InferenceSession } from '../../../../dist/session/session.js';
import { recogniseDecoder } from '../../../../lib/onnx/decoder/decoder.js';
import { withNarrowCaches } from '../../../../lib/onnx/decoder/narrow-caches.js';
import type { ModelProto } from '../../../../lib/onnx/format/model.js';
import { readModel, serializeModel } from '../../../../lib/onnx/format/model-file.js';
import { EditableGraph } from '../../../../lib/onnx/graph/editable-graph.js';
import { decoderModel } from '../../../decoder-fixture.js';

/** The Llama with caches that are computed with in FP16, and come and go in FP32. */
async function wide(): Promise<ModelProto> {
  const model = await readModel(decoderModel('llama/optimum'));
  const graph = new EditableGraph(model);
  for (const { input, output } of recogniseDecoder(model).caches) {
    const append = graph.producer(output)!;
    const narrow = append.input.map((value) => graph.addCast(value, 'float32', 'float16'));
    const appended = graph.rename(output);
    const read = graph.addCast(appended, 'float16', 'float32');
    graph.replaceReads(appended, read, graph.producer(read));
    const [back] = graph.addNode('Cast', [appended], { to: 1 }, { outputs: [output] });
    expect(back).toBe(output);
    narrow.forEach((value, i) => {
      graph.setInput(append, i, value);
    });
    // Shapes are asked of what was cast, as converters have it.
    graph.replaceReads(input, narrow[0]!, graph.producer(narrow[0]!));
  }
  return graph.finish();
}

async function run(model: ModelProto, cache: 'float32' | 'float16') {
  await using session = await InferenceSession.create(serializeModel(model), { device: 'cpu' });
  const caches = recogniseDecoder(model).caches;
  const results = await session.run({
    input_ids: new Tensor('int64', BigInt64Array.of(5n, 6n), [1, 2]),
    attention_mask: new Tensor('int64', new BigInt64Array(5).fill(1n), [1, 5]),
    position_ids: new Tensor('int64', BigInt64Array.of(3n, 4n), [1, 2]),
    ...Object.fromEntries(
      caches.map(({ input, headDim }) => [input, Tensor.allocate(cache, [1, 2, 3, headDim])]),
    ),
  });
  return { logits: results.logits!.data, cache: results[caches[0]!.output]! };
}

it('caches that are cast as they come and as they go are in 16 bits, and the logits the same', async () => {
  const model = await wide();
  const narrow = withNarrowCaches(model);
  expect(recogniseDecoder(model).caches.map(({ type }) => type)).toEqual(new Array(4).fill('float32'));
  expect(recogniseDecoder(narrow).caches.map(({ type }) => type)).toEqual(new Array(4).fill('float16'));
  const [before, after] = [await run(model, 'float32'), await run(narrow, 'float16')];
  expect(after.logits).toEqual(before.logits);
  expect(after.cache.dims).toEqual(before.cache.dims);
  expect(after.cache.type).toBe('float16');
});

it('leaves a decoder as it is whose caches are FP32, or whose attention reads them so', async () => {
  const plain = await readModel(decoderModel('llama/optimum'));
  expect(withNarrowCaches(plain)).toBe(plain);
  const graph = new EditableGraph(await wide());
  const { output } = recogniseDecoder(plain).caches[0]!;
  const appended = graph.producer(output)!.input[0]!;
  for (const node of graph.readers(appended)) {
    if (node.output[0] !== output) graph.replaceReads(node.output[0]!, output);
  }
  const [first, ...others] = recogniseDecoder(withNarrowCaches(graph.finish())).caches;
  expect(first!.type).toBe('float32');
  expect(others.map(({ type }) => type)).toEqual(new Array(3).fill('float16'));
});
