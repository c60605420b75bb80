// Sessions on GPUs simulated by stand-in libraries (test/native/stand_in). ONNX Runtime executes their plans, so that
// every number has the CPU runtime as its oracle.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { flavours, onStandIn, run, type Tools } from '../stand-in.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'node-tensorrt-'));
  process.env.NODE_TENSORRT_CACHE = folder;
});
afterAll(() => rm(folder, { recursive: true }));

onStandIn.each(flavours)('StandIn %s: a session on a GPU', (flavour) => {
  test("has the CPU's numbers for every shape, also when a graph is replayed", async () => {
    const { differing, ...found } = await run(
      flavour,
      async ({ trt, fixture, sines, failure }) => {
        const shapes = { x: { min: [1, 4], opt: [2, 4], max: [8, 4] } };
        const model = fixture('linear.onnx');
        const cpu = await trt.InferenceSession.create(model, { device: 'cpu' });
        const gpu = await trt.InferenceSession.create(model, { shapes, precision: 'fp32', cache: false });
        const differing: number[] = [];
        for (const rows of [1, 3, 8, 3, 3, 3, 1, 1]) {
          const x = sines(rows, 4);
          const [expected, found] = [await cpu.run({ x }), await gpu.run({ x })];
          for (const name of ['y', 's'])
            if (String(expected[name]!.data) !== String(found[name]!.data)) differing.push(rows);
          if (String(gpu.runSync({ x }).y!.data) !== String(expected.y!.data)) differing.push(-rows);
        }
        const outside = await failure(gpu.run({ x: sines(9, 4) }));
        let timing = {};
        const target = new trt.Tensor('float32', new Float32Array(6), [2, 3]);
        const fetched = await gpu.run(
          { x: sines(2, 4) },
          { y: target, s: null },
          { onTiming: (t) => (timing = t) },
        );
        const { runs, memory, graphs } = gpu.stats();
        const inPlace =
          fetched.y === target && String(target.data) === String((await cpu.run({ x: sines(2, 4) })).y!.data);
        const { device, why, runtime, inputMetadata } = gpu;
        await gpu.dispose();
        await gpu.dispose();
        const timings = Object.keys(timing);
        return {
          differing,
          outside,
          timings,
          runs,
          memory,
          graphs,
          inPlace,
          device,
          why,
          runtime,
          inputMetadata,
        };
        // runSync() runs on this thread.
      },
      { STAND_IN_JAVASCRIPT: 'none' },
    );
    expect(differing).toEqual([]);
    expect(found).toMatchObject({
      device: 'cuda:0',
      why: 'there is Stand-in GPU A (sm_89)',
      runtime: { name: flavour === 'rtx' ? 'tensorrt-rtx' : 'tensorrt' },
      inPlace: true,
      outside:
        "ERR_SHAPE_MISMATCH: feeds['x'] has dims [9,4], outside the plan, which allows [1,4] to [8,4].",
      timings: ['queueMs', 'enqueueMs', 'h2dMs', 'computeMs', 'd2hMs', 'totalMs'],
      runs: { completed: 9, failed: 0 },
      inputMetadata: [{ name: 'x', shape: ['', 4] }],
    });
    expect(found.memory!.total).toBe(24576 * 2 ** 20);
    expect(found.memory!.activations).toBeGreaterThan(0);
    // Runs of 1 and of 3 rows were repeated, on a thread of the session and on this one. TensorRT-RTX has its own
    // graphs.
    expect(found.graphs).toEqual(
      flavour === 'rtx'
        ? { captured: 0, replayed: 0, refused: 0 }
        : { captured: 4, replayed: expect.any(Number), refused: 0 },
    );
  });

  test('takes the profile that a shape belongs to, and several threads have the same numbers', async () => {
    const differing = await run(flavour, async ({ trt, fixture, sines }) => {
      const shapes = [
        { x: { min: [1, 4], opt: [2, 4], max: [4, 4] } },
        { x: { min: [50, 4], opt: [60, 4], max: [99, 4] } },
      ];
      const model = fixture('linear.onnx');
      const cpu = await trt.InferenceSession.create(model, { device: 'cpu' });
      const options = { shapes, precision: 'fp32', cache: false, concurrency: 3 } as const;
      const gpu = await trt.InferenceSession.create(model, options);
      await gpu.warmup();
      const rows = Array.from({ length: 60 }, (_, i) => (i % 2 ? 1 + (i % 4) : 50 + (i % 3)));
      const found = await Promise.all(rows.map((n) => gpu.run({ x: sines(n, 4) })));
      const differing: number[] = [];
      for (const [i, n] of rows.entries()) {
        const expected = await cpu.run({ x: sines(n, 4) });
        if (String(expected.y!.data) !== String(found[i]!.y!.data)) differing.push(n);
      }
      await gpu.dispose();
      return differing;
    });
    expect(differing).toEqual([]);
  });

  test('takes inputs whose values are shapes, within the values that it was compiled for', async () => {
    const found = await run(flavour, async ({ trt, onnx, sines, failure }) => {
      const g = new onnx.GraphBuilder('wider');
      const inputs = [g.input('x', 'float32', [1, 4]), g.input('shape', 'int64', [2])];
      g.op('Expand', inputs, {}, { outputs: ['y'] });
      g.output('y', 'float32', ['rows', 4]);
      const shapes = { shape: { min: [1, 4], opt: [2, 4], max: [8, 4] } };
      const options = { shapes, precision: 'fp32', cache: false } as const;
      const gpu = await trt.InferenceSession.create(onnx.serializeModel(g.finish()), options);
      const feeds = (rows: bigint) => ({
        x: sines(1, 4),
        shape: new trt.Tensor('int64', BigInt64Array.of(rows, 4n), [2]),
      });
      const differing: bigint[] = [];
      for (const rows of [3n, 3n, 3n, 8n, 1n, 3n]) {
        const { y } = await gpu.run(feeds(rows));
        const row = [...(sines(1, 4).data as Float32Array)];
        const expected = Array.from({ length: Number(rows) }, () => row).flat();
        if (String(y!.data) !== String(expected) || y!.dims[0] !== Number(rows)) differing.push(rows);
      }
      const outside = await failure(gpu.run(feeds(9n)));
      await gpu.dispose();
      return { differing: differing.map(String), outside };
    });
    expect(found.differing).toEqual([]);
    expect(found.outside).toBe(
      'ERR_SHAPE_MISMATCH: The input "shape" is [9, 4], outside the plan\'s [1, 4] to [8, 4].',
    );
  });

  test('leaves tensors on the GPU, and feeds them to another session, even on another GPU', async () => {
    const found = await run(flavour, async ({ trt, onnx, fixture, sines, failure }) => {
      const g = new onnx.GraphBuilder('twice');
      g.op('Mul', [g.input('y', 'float32', ['batch', 3]), g.scalar(2)], {}, { outputs: ['z'] });
      g.output('z', 'float32', ['batch', 3]);
      const twice = onnx.serializeModel(g.finish());
      const options = { precision: 'fp32', cache: false } as const;
      const first = await trt.InferenceSession.create(fixture('linear.onnx'), {
        ...options,
        preferredOutputLocation: 'cuda',
        shapes: { x: { min: [1, 4], opt: [2, 4], max: [8, 4] } },
      });
      const cpu = await trt.InferenceSession.create(fixture('linear.onnx'), { device: 'cpu' });
      const expected = Array.from((await cpu.run({ x: sines(5, 4) })).y!.data as Float32Array);
      const { y } = await first.run({ x: sines(5, 4) });
      const results: unknown[] = [];
      for (const device of ['cuda', 'cuda:1'] as const) {
        const second = await trt.InferenceSession.create(twice, { ...options, device });
        const { z } = await second.run({ y: y! });
        results.push(Array.from(z!.data as Float32Array, (value) => value / 2));
        await second.dispose();
      }
      const attempt = (act: () => unknown) => failure(Promise.resolve().then(act));
      const data = await attempt(() => y!.data);
      const lost = [
        await attempt(() => structuredClone(y)),
        await attempt(() => JSON.stringify(y)),
        await attempt(() => y!.reshape([15])),
      ];
      const location = y!.location;
      const kept = (await first.run({ x: sines(5, 4) })).y!;
      const moved = Array.from((await kept.getData(true)) as Float32Array);
      const inHostMemory = [kept.location, kept.data.length, structuredClone(kept).data.length];
      kept.dispose();
      const downloaded = Array.from((await y!.getData()) as Float32Array);
      const fedToCpu = await failure(
        (await trt.InferenceSession.create(twice, { device: 'cpu' })).run({ y: y! }),
      );
      await first.dispose();
      const afterDispose = Array.from((await y!.getData()) as Float32Array);
      y!.dispose();
      y!.dispose();
      const disposed = await failure(y!.getData());
      return {
        expected,
        results,
        data,
        downloaded,
        afterDispose,
        disposed,
        fedToCpu,
        lost,
        moved,
        inHostMemory,
        locations: [location, y!.location],
        dims: y!.dims,
        precisions: [first.precision, cpu.precision],
      };
    });
    expect(found.locations).toEqual(['cuda', 'none']);
    expect(found.lost).toEqual(
      Array(3).fill(expect.stringMatching(/^ERR_INVALID_ARG_VALUE: tensor\.data is on the GPU/)),
    );
    expect(found.moved).toEqual(found.expected);
    expect(found.inHostMemory).toEqual(['cpu', 15, 15]);
    expect(found.precisions).toEqual(['fp32', 'as-exported']);
    expect(found.dims).toEqual([5, 3]);
    expect(found.downloaded).toEqual(found.expected);
    expect(found.afterDispose).toEqual(found.expected);
    expect(found.results[0]).toEqual(found.expected);
    expect(found.results[1]).toEqual(found.expected);
    expect(found.data).toMatch(/^ERR_INVALID_ARG_VALUE: .*getData\(\)/);
    expect(found.fedToCpu).toMatch(/^ERR_INVALID_ARG_VALUE: .*lies on a GPU/);
    expect(found.disposed).toBe('ERR_DISPOSED: The tensor was disposed.');
  });

  // If JavaScript's thread calls the driver, the stand-in aborts.
  test("frees disposed and collected tensors, and counts their memory, without JavaScript's thread", async () => {
    const found = await run(
      flavour,
      async ({ trt, onnx, sines }) => {
        const g = new onnx.GraphBuilder('twice');
        g.op('Mul', [g.input('x', 'float32', ['rows', 64]), g.scalar(2)], {}, { outputs: ['y'] });
        g.output('y', 'float32', ['rows', 64]);
        const model = onnx.serializeModel(g.finish());
        const create = (preferredOutputLocation: 'cpu' | 'cuda') =>
          trt.InferenceSession.create(model, {
            precision: 'fp32',
            cache: false,
            preferredOutputLocation,
            shapes: { x: { min: [1, 64], opt: [256, 64], max: [256, 64] } },
          });
        process.getBuiltinModule('node:v8').setFlagsFromString('--expose-gc');
        const collect = process.getBuiltinModule('node:vm').runInNewContext('gc');
        const [first, second, busy] = [await create('cuda'), await create('cpu'), await create('cpu')];
        const free = () => busy.stats().memory!.free;
        const kept = [];
        for (let i = 0; i < 4; i++) kept.push((await first.run({ x: sines(256, 64) })).y);
        const collected: WeakRef<object>[] = [];
        const runAndForget = async () => {
          collected.push(new WeakRef((await second.run({ x: sines(256, 64) })).y!.data));
        };
        for (let i = 0; i < 4; i++) await runAndForget();
        // The sessions' pools would keep the memory.
        await first.dispose();
        await second.dispose();
        const held = free();
        const running = busy.run({ x: sines(256, 64) });
        for (const tensor of kept) tensor!.dispose();
        for (let i = 0; i < 20 && collected.some((reference) => reference.deref()); i++) {
          await new Promise((resolve) => setTimeout(resolve, 1));
          collect();
        }
        busy.stats();
        await running;
        await busy.run({ x: sines(1, 64) });
        await busy.dispose();
        const last = await create('cpu');
        const after = last.stats().memory!.free;
        return { held, after, left: collected.filter((reference) => reference.deref()).length };
      },
      { STAND_IN_FAULTS: 'slow:20' },
    );
    expect(found.left).toBe(0);
    // 4 outputs of 64 KiB.
    expect(found.after).toBe(found.held + 4 * 2 ** 16);
  });

  test('delivers outputs whose shape depends on the data', async () => {
    const found = await run(flavour, async ({ trt, onnx }) => {
      const g = new onnx.GraphBuilder('indices');
      g.op('NonZero', [g.input('x', 'float32', [6])], {}, { outputs: ['indices'] });
      g.output('indices', 'int64', [1, 'count']);
      const model = onnx.serializeModel(g.finish());
      const gpu = await trt.InferenceSession.create(model, { precision: 'fp32', cache: false });
      const results: string[] = [];
      for (const values of [
        [0, 1, 0, 2, 3, 0],
        [0, 0, 0, 0, 0, 9],
        [0, 0, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, 6],
      ]) {
        const { indices } = await gpu.run({ x: new trt.Tensor('float32', values, [6]) });
        results.push(`${indices!.dims}: ${indices!.data}`);
      }
      await gpu.dispose();
      return results;
    });
    expect(found).toEqual(['1,3: 1,3,4', '1,1: 5', '1,0: ', '1,6: 0,1,2,3,4,5']);
  });

  test('on a lost GPU rejects every run with a code and can be disposed, and the process ends', async () => {
    const found = await run(
      flavour,
      async ({ trt, fixture, sines, failure }) => {
        const gpu = await trt.InferenceSession.create(fixture('linear.onnx'), {
          precision: 'fp32',
          cache: false,
        });
        const failures: string[] = [];
        for (let i = 0; i < 4; i++) failures.push(await failure(gpu.run({ x: sines(2, 4) })));
        const { runs } = gpu.stats();
        await gpu.dispose();
        return { failures, runs };
      },
      { STAND_IN_FAULTS: 'kernel:2' },
    );
    expect(found.failures[0]).toBe('no error');
    for (const failure of found.failures.slice(1))
      expect(failure).toMatch(/^ERR_EXECUTION_FAILED: .*lost to this process/);
    expect(found.runs).toMatchObject({ completed: 1, failed: 3 });
  });

  test.each([
    ['uninitialized', /^ERR_NO_GPU: .*CUDA_ERROR_SYSTEM_DRIVER_MISMATCH/],
    ['build:1', /^ERR_BUILD_FAILED: .*Could not find any implementation/],
    ['deserialize:1', /^ERR_ENGINE_CORRUPT: /],
    ['truncated', /^ERR_ENGINE_CORRUPT: /],
    ['lost:40', /^ERR_/],
  ])("isn't created, with the reason: %s", async (fault, expected) => {
    const create = async ({ trt, fixture, failure }: Tools) =>
      failure(
        trt.InferenceSession.create(fixture('linear.onnx'), {
          device: 'cuda',
          precision: 'fp32',
          cache: false,
        }),
      );
    expect(await run(flavour, create, { STAND_IN_FAULTS: fault })).toMatch(expected);
  });

  test('continues after a run that fails', async () => {
    const found = await run(
      flavour,
      async ({ trt, fixture, sines, failure }) => {
        // With graphs, a failure during a capture would only mean that there is no graph.
        const options = { precision: 'fp32', cache: false, cudaGraph: false } as const;
        const gpu = await trt.InferenceSession.create(fixture('linear.onnx'), options);
        const failures: string[] = [];
        for (let i = 0; i < 3; i++) failures.push(await failure(gpu.run({ x: sines(2, 4) })));
        const { runs } = gpu.stats();
        await gpu.dispose();
        return { failures, runs };
      },
      { STAND_IN_FAULTS: 'enqueue:2' },
    );
    expect(found.failures).toEqual([
      'no error',
      expect.stringMatching(/^ERR_EXECUTION_FAILED: /),
      'no error',
    ]);
    expect(found.runs).toMatchObject({ completed: 2, failed: 1 });
  });

  test('reports that memory is lacking, and works again when there is some', async () => {
    for (const kind of ['allocation', 'pinned']) {
      let worked = 0;
      for (let n = 1; worked < 2 && n < 20; n++) {
        const failures = await run(
          flavour,
          async ({ trt, fixture, sines, failure }) => {
            const failures: string[] = [];
            const create = () =>
              trt.InferenceSession.create(fixture('linear.onnx'), {
                device: 'cuda',
                precision: 'fp32',
                cache: false,
              });
            const gpu = await create().catch((error) => {
              failures.push(`${error.code}: ${error.message}`);
              return create();
            });
            for (let i = 0; i < 3; i++) failures.push(await failure(gpu.run({ x: sines(2, 4) })));
            await gpu.dispose();
            return failures.filter((text) => text !== 'no error');
          },
          { STAND_IN_FAULTS: `${kind}:${n}` },
        );
        for (const text of failures) expect(text, `${kind}:${n}`).toMatch(/^ERR_OUT_OF_MEMORY: /);
        expect(failures.length, `${kind}:${n}`).toBeLessThanOrEqual(1);
        if (failures.length === 0) worked++;
      }
      expect(worked, kind).toBe(2);
    }
  });
});

onStandIn('StandIn: a session on a GPU', () => {
  test('ends a waiting run at once, and one on the GPU when it is done, with the reason', async () => {
    const found = await run(
      'trt10',
      async ({ trt, fixture, sines }) => {
        const gpu = await trt.InferenceSession.create(fixture('linear.onnx'), {
          precision: 'fp32',
          cache: false,
        });
        const reason = new Error('enough');
        const stops = [new AbortController(), new AbortController()];
        const order: string[] = [];
        const runs = stops.map(({ signal }, i) =>
          gpu.run({ x: sines(2, 4) }, { signal }).catch((error) => order.push(`${i} ${error === reason}`)),
        );
        await new Promise((resolve) => setTimeout(resolve, 20));
        for (const stop of stops.reverse()) stop.abort(reason);
        await Promise.all(runs);
        await gpu.run({ x: sines(2, 4) });
        const { runs: counts } = gpu.stats();
        await gpu.dispose();
        return { order, counts };
      },
      { STAND_IN_FAULTS: 'slow:400' },
    );
    expect(found.order).toEqual(['1 true', '0 true']);
    expect(found.counts).toMatchObject({ completed: 1, cancelled: 2 });
  });

  test("a shape that can't be captured runs without a graph", async () => {
    const found = await run(
      'trt11',
      async ({ trt, fixture, sines }) => {
        const counts: unknown[] = [];
        for (const cudaGraph of [true, false]) {
          const options = { precision: 'fp32', cache: false, cudaGraph } as const;
          const gpu = await trt.InferenceSession.create(fixture('linear.onnx'), options);
          for (let i = 0; i < 4; i++) await gpu.run({ x: sines(2, 4) });
          for (let i = 0; i < 3; i++) await gpu.run({ x: sines(3, 4) });
          counts.push(gpu.stats().graphs);
          await gpu.dispose();
        }
        return counts;
      },
      { STAND_IN_FAULTS: 'capture:1' },
    );
    expect(found).toEqual([
      { captured: 1, replayed: 2, refused: 1 },
      { captured: 0, replayed: 0, refused: 0 },
    ]);
  });

  test('refuses an engine for another GPU, version or flavour, naming what it is for and what is here', async () => {
    const file = path.join(folder, 'linear.engine');
    for (const flavour of flavours) {
      process.env.NODE_TENSORRT_TEST_ENGINE = file;
      await run(flavour, async ({ trt, fixture }) => {
        const engine = await trt.buildEngine(fixture('linear.onnx'), { precision: 'fp32', cache: false });
        await engine.save(process.env.NODE_TENSORRT_TEST_ENGINE!);
      });
      const load = async ({ trt, failure }: Tools) =>
        failure(trt.InferenceSession.create(await trt.Engine.load(process.env.NODE_TENSORRT_TEST_ENGINE!)));
      const product = flavour === 'rtx' ? 'TensorRT-RTX' : 'TensorRT';
      expect(await run(flavour, load)).toBe('no error');
      expect(await run(flavour, load, { STAND_IN_CUDA_DEVICES: 'Other:86:8192' })).toMatch(
        new RegExp(
          `^ERR_ENGINE_INCOMPATIBLE: .*compiled by ${product} .* for sm_89. This machine has ${product} .* Other \\(sm_86\\)`,
        ),
      );
      const older = { trt10: '10.13.0', trt11: '11.0.0', rtx: '1.5.0' }[flavour];
      expect(await run(flavour, load, { STAND_IN_TENSORRT_VERSION: older })).toMatch(
        /^ERR_ENGINE_INCOMPATIBLE: /,
      );
      const other = flavour === 'rtx' ? 'trt10' : 'rtx';
      expect(await run(other, load)).toMatch(
        /^ERR_ENGINE_INCOMPATIBLE: .*and only runs with that; found only TensorRT/,
      );
      expect(await run(flavour, load, { STAND_IN_CUDA_DEVICES: 'none' })).toMatch(/^ERR_NO_GPU: /);
    }
    delete process.env.NODE_TENSORRT_TEST_ENGINE;
  });

  test('a trusted bare plan describes itself, and runs', async () => {
    const found = await run('trt10', async ({ trt, fixture, sines, failure }) => {
      const shapes = { x: { min: [1, 4], opt: [2, 4], max: [8, 4] } };
      const built = await trt.buildEngine(fixture('linear.onnx'), {
        precision: 'fp32',
        cache: false,
        shapes,
      });
      const plan = await trt.Engine.load(built.plan(), { trusted: true });
      const gpu = await trt.InferenceSession.create(plan);
      const { y } = await gpu.run({ x: sines(2, 4) });
      const late = await failure(trt.InferenceSession.create(plan, { shapes }));
      const { inputs, outputs } = plan;
      const expected = [built.inputs, built.outputs];
      return {
        found: [inputs, outputs],
        expected,
        late,
        dims: y!.dims,
        outside: await failure(gpu.run({ x: sines(9, 4) })),
      };
    });
    expect(found.found).toEqual(found.expected);
    expect(found.late).toMatch(/^ERR_INVALID_ARG_VALUE: options.shapes is for compiling/);
    expect(found).toMatchObject({ dims: [2, 3], outside: expect.stringMatching(/^ERR_SHAPE_MISMATCH/) });
  });

  test('keeps what TensorRT-RTX compiled when it first ran a plan, by GPU and version', async () => {
    const cache = path.join(folder, 'kept');
    const scenario = async ({ trt, fixture }: Tools) => {
      const options = { precision: 'fp32', cache: false } as const;
      const gpu = await trt.InferenceSession.create(fixture('linear.onnx'), options);
      await gpu.warmup();
      await gpu.dispose();
    };
    await run('rtx', scenario, { NODE_TENSORRT_CACHE: cache });
    await run('rtx', scenario, { NODE_TENSORRT_CACHE: cache });
    const files = await readdir(path.join(cache, 'runtime'));
    expect(files).toEqual([expect.stringMatching(/^[0-9a-f]{64}\.cache$/)]);
  });

  test("'auto' without a GPU, or without a library for it, chooses the CPU, with the reason", async () => {
    const scenario = async ({ trt, fixture, failure }: Tools) => {
      const { device, why } = await trt.InferenceSession.create(fixture('linear.onnx'));
      const named = await failure(trt.InferenceSession.create(fixture('linear.onnx'), { device: 'cuda:7' }));
      return { device, why, named };
    };
    const none = await run('trt10', scenario, { STAND_IN_CUDA_DEVICES: 'none' });
    expect(none).toMatchObject({ device: 'cpu', why: expect.stringContaining('CUDA_ERROR_NO_DEVICE') });
    const noLibrary = await run('trt10', scenario, { NODE_TENSORRT_TENSORRT_PATH: folder });
    expect(noLibrary).toMatchObject({ device: 'cpu', why: expect.stringContaining('was not found') });
    expect(noLibrary.named).toBe('ERR_NO_GPU: This machine has no cuda:7; there are cuda:0 to cuda:1.');
  });

  test('a process that exits, and a worker that is terminated, with runs on the GPU end', async () => {
    const scenario = async ({ trt, fixture, sines }: Tools) => {
      const { Worker } = process.getBuiltinModule('node:worker_threads');
      const gpu = await trt.InferenceSession.create(fixture('linear.onnx'), {
        precision: 'fp32',
        cache: false,
      });
      for (let i = 0; i < 5; i++) gpu.run({ x: sines(2, 4) }).catch(() => {});
      const code = `
        const { InferenceSession, Tensor } = require('node-tensorrt');
        InferenceSession.create(${JSON.stringify(fixture('linear.onnx'))}, { precision: 'fp32', cache: false }).then((gpu) => {
          for (let i = 0; i < 5; i++) gpu.run({ x: new Tensor('float32', new Float32Array(8), [2, 4]) }).catch(() => {});
          require('node:worker_threads').parentPort.postMessage(0);
        });`;
      const worker = new Worker(code, { eval: true, execArgv: [] });
      await new Promise((resolve) => worker.once('message', resolve));
      await worker.terminate();
      console.log('"ended"');
      process.exit(0);
    };
    expect(await run('trt11', scenario, { STAND_IN_FAULTS: 'slow:20' })).toBe('ended');
  });
});
