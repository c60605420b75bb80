// Compiling for GPUs simulated by stand-in libraries (test/native/stand_in), whose plans record what they were compiled
// with.
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Flavour, flavours, onStandIn, run, standIn, type Tools } from '../stand-in.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'node-tensorrt-'));
});
afterAll(() => rm(folder, { recursive: true }));

const versions: [Flavour, string][] = [
  ['trt10', '10.11.0'],
  ['trt10', ''],
  ['trt11', '11.0.0'],
  ['trt11', ''],
];

onStandIn.each(versions)('StandIn %s %s: buildEngine', (flavour, version) => {
  const played: Record<string, string> = version ? { STAND_IN_TENSORRT_VERSION: version } : {};

  test("compiles for this machine's GPU with the given options, and reports its steps", async () => {
    const found = await run(
      flavour,
      async ({ trt, fixture }) => {
        const progress: string[] = [];
        const built = [];
        for (const given of [
          { target: 'sm_89' },
          { optimizationLevel: 1, workspace: 4096, refit: true },
          { precision: 'as-exported' },
          { precision: 'fp16' },
          { precision: 'tf32' },
          {
            refit: ['w'],
            onProgress: ({ phase, step, steps }) => progress.push(`${phase} ${step}/${steps}`),
          },
        ] as import('node-tensorrt').BuildOptions[]) {
          const options = { precision: 'fp32', cache: false } as const;
          const engine = await trt.buildEngine(fixture('linear.onnx'), { ...options, ...given });
          const settings = /level .*?;/.exec(Buffer.from(engine.plan()).toString('latin1'))?.[0];
          built.push({ settings, targets: engine.manifest!.targets, library: engine.manifest!.library });
        }
        return { built, progress };
      },
      played,
    );
    const library = { flavour, version: version || expect.any(String) };
    expect(found.built).toEqual([
      { settings: `level 3, workspace ${2n ** 64n - 1n}, refit;`, targets: ['sm_89'], library },
      { settings: 'level 1, workspace 4096, refit all;', targets: ['sm_89'], library },
      ...['', '', ', TF32'].map((tf32) => ({
        settings: `level 3, workspace ${2n ** 64n - 1n}, refit${tf32};`,
        targets: ['sm_89'],
        library,
      })),
      { settings: `level 3, workspace ${2n ** 64n - 1n}, refit w;`, targets: ['sm_89'], library },
    ]);
    // A busy listener hears the latest of a phase's steps, and the end of each phase.
    expect(found.progress.slice(0, 2)).toEqual(['Preparing model 0/1', 'Preparing model 1/1']);
    for (const phase of ['Parsing 1/1', 'Building engine 2/2']) expect(found.progress).toContain(phase);
  });

  test('keeps its measurements, adds to those in the file, and replaces a damaged file', async () => {
    const file = path.join(folder, `${flavour}${version}.timings`);
    const build = async ({ trt, onnx }: Tools) => {
      const g = new onnx.GraphBuilder('two layers');
      const x = g.op('Abs', [g.input('x', 'float32', [4])], {}, { name: 'first' });
      g.op('Neg', [x], {}, { name: 'second', outputs: ['y'] });
      g.output('y', 'float32', [4]);
      const options = { precision: 'fp32', cache: false, timingCache: process.env.TIMINGS! } as const;
      return (await trt.buildEngine(onnx.serializeModel(g.finish()), options)).manifest!.warnings;
    };
    const env = { ...played, TIMINGS: file };
    expect(await run(flavour, build, env)).toEqual([]);
    const written = await readFile(file, 'utf8');
    expect(written).toBe('stand-in timing cache\nfirst\nsecond\n');

    await writeFile(file, 'stand-in timing cache\nof another model\n');
    expect(await run(flavour, build, env)).toEqual([]);
    expect(await readFile(file, 'utf8')).toBe('stand-in timing cache\nfirst\nof another model\nsecond\n');

    await writeFile(file, 'damaged');
    expect(await run(flavour, build, env)).toEqual([
      `The timing cache ${file} is damaged, or of another TensorRT or GPU: it was ignored, and is replaced.`,
    ]);
    expect(await readFile(file, 'utf8')).toBe(written);
  });

  test('adds what several processes measure at once to one file', async () => {
    const file = path.join(folder, `${flavour}${version}.shared`);
    const build = async ({ trt, onnx }: Tools) => {
      const models = Array.from({ length: 8 }, (_, i) => {
        const g = new onnx.GraphBuilder('one layer');
        const x = g.input('x', 'float32', [4]);
        g.op('Neg', [x], {}, { name: `of ${process.env.NAME} ${i}`, outputs: ['y'] });
        g.output('y', 'float32', [4]);
        return onnx.serializeModel(g.finish());
      });
      const options = { precision: 'fp32', cache: false, timingCache: process.env.TIMINGS! } as const;
      await Promise.all(models.map((model) => trt.buildEngine(model, options)));
    };
    const names = ['A', 'B'];
    await Promise.all(names.map((NAME) => run(flavour, build, { ...played, TIMINGS: file, NAME })));
    const layers = names.flatMap((name) => Array.from({ length: 8 }, (_, i) => `of ${name} ${i}`));
    expect((await readFile(file, 'utf8')).split('\n')).toEqual(['stand-in timing cache', ...layers, '']);
  });

  test.each<[string, string, Record<string, string>, RegExp]>([
    [
      'a build that fails',
      '{}',
      { STAND_IN_FAULTS: 'build:1' },
      /^ERR_BUILD_FAILED: .*raise options.workspace/,
    ],
    ['no memory', '{}', { STAND_IN_FAULTS: 'parse:1' }, /^ERR_OUT_OF_MEMORY: /],
    ['an operator', '{}', { STAND_IN_UNSUPPORTED_OPERATORS: 'MatMul' }, /^ERR_MODEL_UNSUPPORTED: .*MatMul/],
    ['no GPU', '{ "target": "sm_89" }', { STAND_IN_CUDA_DEVICES: 'none' }, /^ERR_NO_GPU: /],
    [
      'another GPU',
      '{ "target": "sm_75" }',
      {},
      /^ERR_LIBRARY_UNSUPPORTED: options.target names sm_75.*Stand-in GPU A, sm_89/,
    ],
    [
      'weights that there are not',
      '{ "refit": ["w", "v"] }',
      {},
      /^ERR_INVALID_ARG_VALUE: options.refit names "v", which is no weight/,
    ],
  ])('refuses %s', async (_, given, env, expected) => {
    const build = ({ trt, fixture, failure }: Tools) => {
      const options = { precision: 'fp32', cache: false, ...JSON.parse(process.env.OPTIONS!) };
      return failure(trt.buildEngine(fixture('linear.onnx'), options));
    };
    expect(await run(flavour, build, { ...played, ...env, OPTIONS: given })).toMatch(expected);
  });

  test('finds the library that TensorRT opens during a build in its own folder, and names it if it is missing', async () => {
    const build = ({ trt, fixture, failure }: Tools) =>
      failure(trt.buildEngine(fixture('linear.onnx'), { precision: 'fp32', cache: false }));
    expect(await run(flavour, build, played)).toBe('no error');
    const without = await mkdtemp(path.join(folder, 'without-'));
    const major = flavour.slice(3);
    for (const name of [`libnvinfer.so.${major}`, `libnvonnxparser.so.${major}`]) {
      await symlink(path.join(standIn, flavour, name), path.join(without, name));
    }
    expect(await run(flavour, build, { ...played, NODE_TENSORRT_TENSORRT_PATH: without })).toMatch(
      new RegExp(
        `^ERR_BUILD_FAILED: .*libnvinfer_builder_resource_ptx.so.${major}.*beside libnvinfer.so.*LD_LIBRARY_PATH`,
      ),
    );
  });

  test('a process exits as asked during a step that takes longer than it waits', async () => {
    const scenario = async ({ trt, fixture }: Tools) => {
      const onProgress = ({ phase }: { phase: string }) => {
        if (phase !== 'Building engine') return;
        console.log('"exits"');
        process.exit(0);
      };
      await trt.buildEngine(fixture('linear.onnx'), { precision: 'fp32', cache: false, onProgress });
    };
    expect(await run(flavour, scenario, { ...played, STAND_IN_FAULTS: 'stuck:10000' })).toBe('exits');
  });
});

onStandIn('StandIn: TensorRT', () => {
  test('finishes opening before a process exits', async () => {
    const scenario = async ({ trt, fixture }: Tools) => {
      trt.buildEngine(fixture('linear.onnx'), { precision: 'fp32', cache: false });
      const { readFileSync } = process.getBuiltinModule('node:fs');
      // The loader maps a library before it runs the library's initialisers.
      while (!readFileSync('/proc/self/maps', 'utf8').includes('libnvinfer')) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      console.log('"exits"');
      process.exit(0);
    };
    expect(await run('trt10', scenario, { STAND_IN_FAULTS: 'opening:3000' })).toBe('exits');
  });
});

onStandIn.each(['trt10', 'trt11', 'rtx'] as const)('StandIn %s: of two GPUs', (flavour) => {
  test('each is compiled for separately, and has its own engine in the cache', async () => {
    const found = await run(
      flavour,
      async ({ trt, fixture, sines }) => {
        const results = [];
        const model = fixture('linear.onnx');
        for (const device of ['cuda:1', 'cuda:0', 'cuda:1'] as const) {
          const options = { device, precision: 'fp32', cache: process.env.ENGINES! } as const;
          const session = await trt.InferenceSession.create(model, options);
          const { y } = await session.run({ x: sines(2, 4) });
          results.push([session.device, session.why, y!.dims]);
          await session.dispose();
        }
        const named = await trt.buildEngine(model, { target: 'sm_120', precision: 'fp32', cache: false });
        return { results, named: named.manifest!.targets };
      },
      { ENGINES: path.join(folder, flavour), STAND_IN_CUDA_DEVICES: 'A:89:8192,B:120:8192' },
    );
    const [a, b] = ['A (sm_89)', 'B (sm_120)'].map((gpu) => `options.device asked for it: ${gpu}`);
    expect(found.results).toEqual([
      ['cuda:1', b, [2, 3]],
      ['cuda:0', a, [2, 3]],
      ['cuda:1', b, [2, 3]],
    ]);
    expect(found.named).toEqual(['sm_120']);
    const kept = (await readdir(path.join(folder, flavour))).filter((name) => name.endsWith('.engine'));
    expect(kept).toHaveLength(2);
  });

  test('a bare plan is described on the one that can run it', async () => {
    const scenario = async ({ trt, fixture }: Tools) => {
      const device = { target: 'sm_120', precision: 'fp32', cache: false } as const;
      const plan = (await trt.buildEngine(fixture('linear.onnx'), device)).plan();
      return (await trt.Engine.load(plan, { trusted: true })).inputs.map(({ name }) => name);
    };
    expect(await run(flavour, scenario, { STAND_IN_CUDA_DEVICES: 'A:89:8192,B:120:8192' })).toEqual(['x']);
  });

  test('with the same compute capability and different names, each has its own engine', async () => {
    const keys = [];
    for (const device of ['A:89:8192', 'B:89:8192', 'A:89:8192']) {
      const engines = path.join(folder, `${flavour}-kinds`);
      await run(
        flavour,
        async ({ trt, fixture }) => {
          await trt.buildEngine(fixture('linear.onnx'), { precision: 'fp32', cache: process.env.ENGINES! });
        },
        { ENGINES: engines, STAND_IN_CUDA_DEVICES: device },
      );
      keys.push((await readdir(engines)).filter((name) => name.endsWith('.engine')).length);
    }
    expect(keys).toEqual([1, 2, 2]);
  });
});

onStandIn('StandIn rtx: of two GPUs, one of a kind that TensorRT-RTX has no kernels for', () => {
  test.each(['A:90:8192,B:89:8192', 'B:89:8192,A:90:8192'])(
    'the one that was chosen is judged: %s',
    async (gpus) => {
      const scenario = async ({ trt, fixture, failure }: Tools) => {
        const found: string[] = [];
        for (const device of ['cuda:0', 'cuda:1'] as const) {
          const options = { device, runtime: 'tensorrt-rtx', precision: 'fp32', cache: false } as const;
          const creating = trt.InferenceSession.create(fixture('linear.onnx'), options);
          found.push(await failure(creating.then((session) => session.dispose())));
        }
        return found;
      };
      const found = await run('rtx', scenario, { STAND_IN_CUDA_DEVICES: gpus });
      const refused = expect.stringMatching(/^ERR_LIBRARY_UNSUPPORTED: .*\(A, sm_90\)/);
      expect(found).toEqual(gpus.startsWith('A') ? [refused, 'no error'] : ['no error', refused]);
    },
  );
});

onStandIn.each(flavours)('StandIn %s: plugins', (flavour) => {
  // Each runs in its own process, since plugins stay registered.
  const roiAlign = async ({ trt, onnx, failure }: Tools) => {
    const g = new onnx.GraphBuilder('crops', { opset: 16 });
    const boxes = g.initializer('boxes', 'float32', [1, 4], Float32Array.of(0, 0, 3, 3));
    const batch = g.initializer('batch', 'int64', [1], BigInt64Array.of(0n));
    const x = g.input('x', 'float32', [1, 1, 4, 4]);
    g.op(
      'RoiAlign',
      [x, boxes, batch],
      { output_height: 2, output_width: 2 },
      { name: 'crop', outputs: ['y'] },
    );
    g.output('y', 'float32', [1, 1, 2, 2]);
    const model = onnx.serializeModel(g.finish());
    const file = process.env.ENGINE!;
    const run = async (from: Uint8Array | import('node-tensorrt').Engine, device: 'cpu' | 'cuda') => {
      const session = await trt.InferenceSession.create(from, { device });
      const x = new trt.Tensor(
        'float32',
        Float32Array.from({ length: 16 }, (_, i) => i),
        [1, 1, 4, 4],
      );
      const { y } = await session.run({ x });
      await session.dispose();
      return Array.from(y!.data as Float32Array);
    };
    const load = async () => {
      const y = await run(await trt.Engine.load(file), 'cuda');
      if (JSON.stringify(y) !== JSON.stringify(await run(model, 'cpu')))
        throw new Error(`other numbers: ${y}`);
    };
    if (process.env.STEP === 'load') return failure(load());
    const building = trt.buildEngine(model, { precision: 'fp32', cache: false });
    return failure(building.then((engine) => engine.save(file)));
  };

  test.skipIf(flavour === 'rtx')('are loaded if a model or an engine has one', async () => {
    const env = { ENGINE: path.join(folder, `${flavour}-crops.engine`), STEP: 'build' };
    expect(await run(flavour, roiAlign, env)).toBe('no error');
    env.STEP = 'load';
    expect(await run(flavour, roiAlign, env)).toBe('no error');
    const without = await librariesWithoutPlugins(flavour);
    expect(await run(flavour, roiAlign, { ...env, NODE_TENSORRT_TENSORRT_PATH: without })).toMatch(
      new RegExp(`^ERR_.*Plugin Registry.* ${path.join(without, 'libnvinfer_plugin.so')}.*is not there`),
    );
  });

  test('are named with the node if they are missing', async () => {
    const env = { ENGINE: path.join(folder, `${flavour}-missing.engine`), STEP: 'build' };
    const without = flavour === 'rtx' ? path.join(standIn, flavour) : await librariesWithoutPlugins(flavour);
    const reason =
      flavour === 'rtx' ? 'TensorRT-RTX has no plugins' : `${without}/libnvinfer_plugin.so.*is not there`;
    expect(await run(flavour, roiAlign, { ...env, NODE_TENSORRT_TENSORRT_PATH: without })).toMatch(
      new RegExp(`^ERR_MODEL_UNSUPPORTED: .*"crop" \\(RoiAlign\\).*${reason}`),
    );
  });
});

/** A folder with a flavour's libraries, except for its plugins. */
async function librariesWithoutPlugins(flavour: Flavour): Promise<string> {
  const without = await mkdtemp(path.join(folder, 'without-'));
  for (const name of await readdir(path.join(standIn, flavour))) {
    if (!name.includes('plugin')) await symlink(path.join(standIn, flavour, name), path.join(without, name));
  }
  return without;
}
