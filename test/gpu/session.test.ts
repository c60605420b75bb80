import { InferenceSession, Tensor } from 'node-tensorrt';
import { buildBert, buildResnet, GraphBuilder, serializeModel } from 'node-tensorrt/onnx';
import { expect, test } from 'vitest';
import { describeOnGpu, fixture, randomElements, requireAgreement, tolerance } from './gpu.js';

const linear = fixture('linear.onnx');
const x = (rows: number, seed = 1) => new Tensor('float32', randomElements(rows * 4, seed), [rows, 4]);
const shapes = { x: { min: [1, 4], opt: [8, 4], max: [16, 4] } };
const onGpu = { device: 'cuda', precision: 'fp32' } as const;

/** Runs the same feeds on both; gives the GPU's outputs and the CPU's. */
async function onBoth(
  model: string | Uint8Array,
  feeds: Record<string, Tensor>,
  options: Record<string, unknown>,
) {
  await using gpu = await InferenceSession.create(model, { ...onGpu, ...options });
  await using cpu = await InferenceSession.create(model, { device: 'cpu' });
  return { gpu: await gpu.run(feeds), cpu: await cpu.run(feeds) };
}

describeOnGpu('a session on a GPU', () => {
  test('says where it runs, and what runs it', async () => {
    await using session = await InferenceSession.create(linear, { shapes });
    expect(session.device).toBe('cuda:0');
    expect(session.why).not.toBe('');
    expect(session.runtime.name).toMatch(/tensorrt/i);
    expect(session.inputMetadata).toMatchObject([{ name: 'x', type: 'float32' }]);
    expect([...session.outputNames].sort()).toEqual(['s', 'y']);
  });

  test('every batch of its profile, as the CPU', async () => {
    await using gpu = await InferenceSession.create(linear, { ...onGpu, shapes });
    await using cpu = await InferenceSession.create(linear, { device: 'cpu' });
    for (const rows of [1, 16, 2, 8, 15, 3]) {
      requireAgreement(
        await gpu.run({ x: x(rows, rows) }),
        await cpu.run({ x: x(rows, rows) }),
        tolerance.fp32,
      );
    }
    await expect(gpu.run({ x: x(17) })).rejects.toMatchObject({ code: 'ERR_SHAPE_MISMATCH' });
    requireAgreement(await gpu.run({ x: x(4) }), await cpu.run({ x: x(4) }), tolerance.fp32);
  });

  test('64 runs at once keep their inputs apart', async () => {
    await using gpu = await InferenceSession.create(linear, { ...onGpu, shapes, concurrency: 4 });
    await using cpu = await InferenceSession.create(linear, { device: 'cpu' });
    const feeds = Array.from({ length: 64 }, (_, i) => ({ x: x(1 + (i % 16), i + 1) }));
    const outputs = await Promise.all(feeds.map((each) => gpu.run(each)));
    for (const [i, each] of feeds.entries())
      requireAgreement(outputs[i]!, await cpu.run(each), tolerance.fp32);
  });

  test('feeds may be written to as soon as run() returns; allocated tensors are used where they are', async () => {
    await using gpu = await InferenceSession.create(linear, { ...onGpu, shapes });
    const feed = x(8);
    const expected = await gpu.run({ x: x(8) });
    const running = gpu.run({ x: feed });
    (feed.data as Float32Array).fill(Number.NaN);
    requireAgreement(await running, expected, { cosine: 1 - 1e-9, relative: 0 });

    const input = Tensor.allocate('float32', [8, 4]);
    const output = Tensor.allocate('float32', [8, 3]);
    (input.data as Float32Array).set(x(8).data as Float32Array);
    const { y } = await gpu.run({ x: input }, { y: output });
    expect(y).toBe(output);
    requireAgreement({ y: output }, { y: expected.y! }, { cosine: 1 - 1e-9, relative: 0 });
  });

  test('CUDA graphs give what plain launches give, at every shape, and again', async () => {
    await using plain = await InferenceSession.create(linear, {
      ...onGpu,
      shapes,
      cudaGraph: false,
    });
    await using graphs = await InferenceSession.create(linear, {
      ...onGpu,
      shapes,
      cudaGraph: true,
    });
    for (const rows of [8, 8, 8, 2, 8, 2, 2, 16, 8]) {
      const feeds = { x: x(rows, rows) };
      requireAgreement(await graphs.run(feeds), await plain.run(feeds), { cosine: 1 - 1e-9, relative: 1e-6 });
    }
  });

  test('outputs that stay on the GPU feed the next run', async () => {
    const g = new GraphBuilder('twice');
    g.op('Mul', [g.input('x', 'float32', ['n', 4]), g.scalar(2)], {}, { outputs: ['y'] });
    g.output('y', 'float32', ['n', 4]);
    await using session = await InferenceSession.create(serializeModel(g.finish()), {
      ...onGpu,
      shapes,
      preferredOutputLocation: 'cuda',
    });
    let { y } = await session.run({ x: x(3) });
    expect(y!.location).toBe('cuda');
    for (let i = 0; i < 3; i++) ({ y } = await session.run({ x: y! }));
    const expected = Float32Array.from(x(3).data as Float32Array, (value) => 16 * value);
    expect(await y!.getData()).toEqual(expected);
  });

  test('outputs whose shape depends on the data', async () => {
    const g = new GraphBuilder('nonzero');
    g.op('NonZero', [g.input('x', 'float32', ['n', 4])], {}, { outputs: ['indices'] });
    g.output('indices', 'int64', [2, 'count']);
    const model = serializeModel(g.finish());
    const feeds = { x: new Tensor('float32', [0, 1, 0, 2, 0, 0, 3, 0], [2, 4]) };
    const { gpu, cpu } = await onBoth(model, feeds, { shapes });
    expect(gpu.indices!.dims).toEqual([2, 3]);
    expect(gpu.indices!.data).toEqual(cpu.indices!.data);
  });

  test('says where the time went', async () => {
    await using session = await InferenceSession.create(linear, { ...onGpu, shapes });
    const timings: Record<string, number>[] = [];
    for (let i = 0; i < 3; i++) {
      await session.run({ x: x(8) }, { onTiming: (timing) => timings.push({ ...timing }) });
    }
    for (const { totalMs, ...parts } of timings) {
      expect(Object.keys(parts).sort()).toEqual(['computeMs', 'd2hMs', 'enqueueMs', 'h2dMs', 'queueMs']);
      for (const ms of Object.values(parts)) expect(ms).toBeGreaterThanOrEqual(0);
      expect(totalMs).toBeGreaterThanOrEqual(parts.computeMs!);
    }
    expect(session.stats().runs).toMatchObject({ completed: 3, failed: 0, queued: 0 });
  });

  test('an aborted run rejects with its reason, and the session goes on', async () => {
    await using session = await InferenceSession.create(fixture('slow.onnx'), {
      ...onGpu,
      shapes: { x: [512, 512], v0: [512, 512] },
    });
    const matrix = () =>
      new Tensor(
        'float32',
        randomElements(512 * 512).map((v) => v / 16),
        [512, 512],
      );
    const feeds = { x: matrix(), v0: matrix() };
    const expected = await session.run(feeds);
    const controller = new AbortController();
    const runs = Array.from({ length: 8 }, () => session.run(feeds, { signal: controller.signal }));
    controller.abort(new Error('enough'));
    const outcomes = await Promise.allSettled(runs);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason.message).toBe('enough');
    }
    expect(outcomes.at(-1)!.status).toBe('rejected');
    requireAgreement(await session.run(feeds), expected, { cosine: 1 - 1e-9, relative: 0 });
  });

  test('a disposed session refuses, after what it had accepted', async () => {
    const session = await InferenceSession.create(linear, { ...onGpu, shapes });
    const accepted = session.run({ x: x(2) });
    await session.dispose();
    expect((await accepted).y!.dims).toEqual([2, 3]);
    await expect(session.run({ x: x(2) })).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });

  test('a GPU that is not there', async () => {
    const session = InferenceSession.create(linear, { device: 'cuda:63', shapes });
    await expect(session).rejects.toMatchObject({ code: 'ERR_NO_GPU' });
  });
});

describeOnGpu('networks on a GPU', () => {
  const bert = {
    model_type: 'bert',
    vocab_size: 1000,
    hidden_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    intermediate_size: 512,
    max_position_embeddings: 64,
    type_vocab_size: 2,
  };
  const ids = (value: (i: number) => number) =>
    new Tensor(
      'int64',
      BigInt64Array.from({ length: 3 * 20 }, (_, i) => BigInt(value(i))),
      [3, 20],
    );
  const tokens = {
    input_ids: ids((i) => (i * 37) % 1000),
    attention_mask: ids((i) => (i < 50 ? 1 : 0)), // the last row is padded
    token_type_ids: ids(() => 0),
  };
  const range = { min: [1, 1], opt: [3, 20], max: [4, 64] };
  const bertShapes = { input_ids: range, attention_mask: range, token_type_ids: range };

  test.each(['fp32', 'fp16'] as const)('a BERT, %s', async (precision) => {
    const model = serializeModel(await buildBert(bert, { head: 'last_hidden_state' }));
    const { gpu, cpu } = await onBoth(model, tokens, { precision, shapes: bertShapes });
    requireAgreement(gpu, cpu, tolerance[precision]);
  });

  test.each(['fp32', 'fp16'] as const)('ResNet-50, %s', { timeout: 600_000 }, async (precision) => {
    const model = serializeModel(await buildResnet({ depth: 50 }));
    const dims = [2, 3, 224, 224];
    const input = new Tensor('float32', randomElements(2 * 3 * 224 * 224), dims);
    const { gpu, cpu } = await onBoth(model, { input }, { precision, shapes: { input: dims } });
    requireAgreement(gpu, cpu, tolerance[precision]);
  });
});
