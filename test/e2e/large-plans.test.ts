// Plans that the stand-in TensorRT pads with zeros (test/native/stand_in): larger than a Uint8Array can be, and large
// enough to notice wherever they are in memory.
import { createHash } from 'node:crypto';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { flavours, onStandIn, run, type Tools } from '../stand-in.js';

const isFull = process.env.NODE_TENSORRT_TEST_FULL === '1';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'large-plans-'));
});
afterAll(() => rm(folder, { recursive: true }));

const mebibyte = 2 ** 20;
const builds = (megabytes: number) => ({ STAND_IN_PLAN_MIB: String(megabytes) });

onStandIn('a plan of more than 4 GiB', () => {
  const planBytes = 4100 * mebibyte;

  test('is built, runs, and is written; plan() names the alternative', async () => {
    const scenario = async ({ trt, fixture, sines, failure }: Tools) => {
      const model = fixture('linear.onnx');
      const engine = await trt.buildEngine(model, { precision: 'fp32', cache: false });
      const session = await trt.InferenceSession.create(engine);
      const cpu = await trt.InferenceSession.create(model, { device: 'cpu' });
      const x = sines(2, 4);
      const results = [await session.run({ x }), await cpu.run({ x })];
      await engine.savePlan('/dev/null');
      return {
        byteLength: engine.byteLength,
        results: results.map(({ y }) => Array.from(y!.data as Float32Array)),
        plan: await failure((async () => engine.plan())()),
      };
    };
    for (const flavour of flavours) {
      const { byteLength, results, plan } = await run(flavour, scenario, builds(4100));
      expect(byteLength).toBeGreaterThan(planBytes);
      expect(results[0]).toEqual(results[1]);
      expect(plan).toMatch(/^ERR_BUFFER_TOO_LARGE: The plan has 4299161600 bytes.*savePlan.* --plan FILE/);
    }
  });

  // Hashes about 4 GiB twice, and has them in memory once.
  test.runIf(isFull)('is loaded from a file', { timeout: 300_000 }, async () => {
    const file = path.join(folder, 'large.engine');
    await run(
      'trt10',
      async ({ trt, fixture }) => {
        const options = { precision: 'fp32', cache: false } as const;
        await (await trt.buildEngine(fixture('linear.onnx'), options)).save(process.env.TEST_FILE!);
      },
      { ...builds(1), TEST_FILE: file },
    );
    await lengthen(file, planBytes);
    const scenario = async ({ trt, sines }: Tools) => {
      const engine = await trt.Engine.load(process.env.TEST_FILE!);
      const session = await trt.InferenceSession.create(engine);
      const { y } = await session.run({ x: sines(2, 4) });
      return { byteLength: engine.byteLength, dims: y!.dims };
    };
    const env = { TEST_FILE: file };
    const { byteLength, dims } = await run('trt10', scenario, env, 240_000);
    expect(byteLength).toBeGreaterThan(planBytes);
    expect(dims).toEqual([2, 3]);
  });
});

/** Makes an engine file's plan longer, with zeros that take no space on the disk. */
async function lengthen(file: string, planBytes: number): Promise<void> {
  const content = await readFile(file);
  const [manifest, layers] = [16, 24].map((at) => Number(content.readBigUInt64LE(at)));
  const offset = 72 + manifest! + layers!;
  content.writeBigUInt64LE(BigInt(planBytes), 32);
  const hash = createHash('sha256').update(content.subarray(0, 40)).update(content.subarray(72));
  const zeros = Buffer.alloc(mebibyte);
  let missing = offset + planBytes - content.length;
  for (; missing > 0; missing -= zeros.length)
    hash.update(zeros.subarray(0, Math.min(zeros.length, missing)));
  hash.digest().copy(content, 40);
  const opened = await open(file, 'r+');
  await opened.write(content, 0, 72, 0);
  await opened.truncate(offset + planBytes);
  await opened.close();
}

onStandIn('a plan of 400 MiB', () => {
  const half = 200;

  test('is in memory once while it is built and saved, and not at all once it is on the GPU', async () => {
    const scenario = async ({ trt, fixture }: Tools) => {
      const megabytes = () => {
        const { arrayBuffers, rss } = process.memoryUsage();
        const peak = process.resourceUsage().maxRSS * 1024;
        return [arrayBuffers, rss, peak].map((bytes) => Math.round(bytes / 2 ** 20));
      };
      const options = { precision: 'fp32', cache: `${process.env.TEST_FILE}-cache` } as const;
      const before = megabytes();
      const built = await trt.buildEngine(fixture('linear.onnx'), options);
      await built.save(process.env.TEST_FILE!);
      const saved = megabytes();
      const cached = await trt.buildEngine(fixture('linear.onnx'), options);
      const engine = await trt.Engine.load(process.env.TEST_FILE!);
      const loaded = megabytes();
      const sessions = [
        await trt.InferenceSession.create(engine),
        await trt.InferenceSession.create(cached),
        await trt.InferenceSession.create(fixture('linear.onnx'), options),
      ];
      const running = megabytes();
      for (const session of sessions) await session.dispose();
      return { before, saved, loaded, running, fromCache: cached.fromCache };
    };
    const env = { ...builds(400), TEST_FILE: path.join(folder, 'memory.engine') };
    const found = await run('trt10', scenario, env);
    expect(found.fromCache).toBe(true);
    const grown = (stage: 'saved' | 'loaded' | 'running') => {
      const [arrayBuffers, rss, peak] = found[stage].map((value, i) => value - found.before[i]!);
      return { arrayBuffers: arrayBuffers!, rss: rss!, peak: peak! };
    };
    for (const stage of ['saved', 'loaded', 'running'] as const) {
      expect(grown(stage).arrayBuffers, stage).toBeLessThan(half);
    }
    // The zeros of the plan itself are not resident, so a copy of it would show.
    expect(grown('loaded').peak).toBeLessThan(half);
    // It was read while it was loaded onto the GPU, then freed.
    expect(grown('running').peak).toBeGreaterThan(400 - 1);
    expect(grown('running').peak).toBeLessThan(400 + half);
    expect(grown('running').rss).toBeLessThan(half);
  });

  test('is freed when nothing holds its engine', async () => {
    const scenario = async ({ trt, fixture }: Tools) => {
      const options = { precision: 'fp32', cache: false } as const;
      const bytes = (await trt.buildEngine(fixture('linear.onnx'), options)).plan();
      const resident = () => process.resourceUsage().maxRSS / 1024;
      const before = resident();
      for (let i = 0; i < 40; i++) await trt.Engine.load(bytes, { trusted: true });
      return (resident() - before) / (bytes.length / 2 ** 20);
    };
    // It loaded 40 plans.
    expect(await run('trt10', scenario, builds(20))).toBeLessThan(20);
  });

  test('is refused by a session if its file was changed meanwhile', async () => {
    const scenario = async ({ trt, failure }: Tools) => {
      const { truncateSync } = process.getBuiltinModule('node:fs');
      const engine = await trt.Engine.load(process.env.TEST_FILE!);
      truncateSync(process.env.TEST_FILE!, 1000);
      return failure(trt.InferenceSession.create(engine));
    };
    const env = { TEST_FILE: path.join(folder, 'memory.engine') };
    expect(await run('trt10', scenario, env)).toBe(
      `ERR_IO: ${env.TEST_FILE} was changed after it was loaded. Load it again.`,
    );
  });
});
