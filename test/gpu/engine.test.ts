import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { buildEngine, Engine, InferenceSession, Tensor } from 'node-tensorrt';
import { beforeAll, expect, test } from 'vitest';
import {
  describeOnGpu,
  fixture,
  randomElements,
  requireAgreement,
  target,
  temporaryFolder,
  tolerance,
} from './gpu.js';

const linear = fixture('linear.onnx');
const feeds = { x: new Tensor('float32', randomElements(8 * 4), [8, 4]) };
const shapes = { x: { min: [1, 4], opt: [8, 4], max: [16, 4] } };

describeOnGpu('an engine built for the GPU that is here', () => {
  const folder = temporaryFolder();
  let engine: Engine;
  let expected: Record<string, Tensor>;
  beforeAll(async () => {
    engine = await buildEngine(linear, { precision: 'fp32', shapes, cache: false });
    await using cpu = await InferenceSession.create(linear, { device: 'cpu' });
    expected = await cpu.run(feeds);
  });

  test('says what it is for', () => {
    expect(engine.manifest.targets).toEqual([target]);
    expect(engine.fromCache).toBe(false);
    expect(engine.inputs).toMatchObject([{ name: 'x', type: 'float32', dims: [-1, 4] }]);
  });

  test('runs, saved and loaded again too, in several sessions at once', async () => {
    const file = path.join(folder, 'linear.engine');
    await engine.save(file);
    await using one = await InferenceSession.create(engine);
    await using other = await InferenceSession.create(await Engine.load(file));
    expect(one.device).toBe('cuda:0');
    const outputs = await Promise.all([one.run(feeds), other.run(feeds), one.run(feeds)]);
    for (const each of outputs) requireAgreement(each, expected, tolerance.fp32);
  });

  test('may be disposed of while a session runs it', async () => {
    const temporary = await Engine.load(await saved(folder, engine));
    await using session = await InferenceSession.create(temporary);
    temporary.dispose();
    requireAgreement(await session.run(feeds), expected, tolerance.fp32);
  });

  test('a bare plan runs if it is trusted', async () => {
    const plan = await Engine.load(engine.plan(), { trusted: true });
    await using session = await InferenceSession.create(plan);
    requireAgreement(await session.run(feeds), expected, tolerance.fp32);
  });

  test('several profiles: each shape runs in one that allows it', async () => {
    const several = await buildEngine(linear, {
      precision: 'fp32',
      shapes: [{ x: [1, 4] }, { x: { min: [8, 4], opt: [8, 4], max: [16, 4] } }],
      cache: false,
    });
    await using session = await InferenceSession.create(several);
    await using cpu = await InferenceSession.create(linear, { device: 'cpu' });
    for (const rows of [1, 8, 16, 1]) {
      const each = { x: new Tensor('float32', randomElements(rows * 4, rows), [rows, 4]) };
      requireAgreement(await session.run(each), await cpu.run(each), tolerance.fp32);
    }
    const between = { x: new Tensor('float32', new Float32Array(16), [4, 4]) };
    await expect(session.run(between)).rejects.toMatchObject({ code: 'ERR_SHAPE_MISMATCH' });
  });

  test('a plan that is cut short is refused, and the process lives', async () => {
    const plan = engine.plan();
    for (const length of [plan.length - 1, plan.length >> 1, 64]) {
      const cut = await Engine.load(plan.slice(0, length), { trusted: true });
      await expect(InferenceSession.create(cut)).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_ENGINE_(CORRUPT|INCOMPATIBLE)$/),
      });
    }
    await using session = await InferenceSession.create(engine);
    requireAgreement(await session.run(feeds), expected, tolerance.fp32);
  });

  test('a damaged file is refused before TensorRT sees it', async () => {
    const file = await saved(folder, engine);
    const bytes = await readFile(file);
    bytes[bytes.length - 9]! ^= 1;
    await writeFile(file, bytes);
    await expect(Engine.load(file)).rejects.toMatchObject({ code: 'ERR_ENGINE_CORRUPT' });
  });

  test('an ONNX model compiles once: the second session takes the engine from the cache', async () => {
    const cache = path.join(folder, 'cache');
    const built = await buildEngine(linear, { shapes, cache });
    const again = await buildEngine(linear, { shapes, cache });
    expect([built.fromCache, again.fromCache]).toEqual([false, true]);
    expect(again.plan()).toEqual(built.plan());
    await using session = await InferenceSession.create(linear, {
      device: 'cuda',
      shapes,
      cache,
    });
    requireAgreement(await session.run(feeds), expected, tolerance.fp16);
  });
});

async function saved(folder: string, engine: Engine): Promise<string> {
  const file = path.join(folder, 'copy.engine');
  await engine.save(file);
  return file;
}
