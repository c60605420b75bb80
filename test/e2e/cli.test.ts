import { execFile, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Engine } from 'node-tensorrt';
import { GraphBuilder, serializeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { python } from '../oracle/python.js';

const cli = path.join(import.meta.dirname, '../../dist/apps/cli/main.js');
const addon = path.join(import.meta.dirname, '../../build/addon/Release/node_tensorrt.node');
const demoModel = path.join(import.meta.dirname, '../../examples/demo-model');
const fixture = (name: string) => path.join(import.meta.dirname, '../fixtures/session', name);

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'cli-'));
});
afterAll(() => rm(directory, { recursive: true }));

interface Result {
  code: number;
  stdout: string;
  stderr: string;
}
function run(args: string[], env: Record<string, string> = {}): Promise<Result> {
  return new Promise((resolve) => {
    const options = { cwd: directory, env: { ...process.env, ...env } };
    execFile(process.execPath, [cli, ...args], options, (error, stdout, stderr) => {
      resolve({ code: (error?.code as number | undefined) ?? 0, stdout, stderr });
    });
  });
}
async function json(args: string[], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await run([...args, '--json'], env);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return JSON.parse(stdout);
}

describe('exit codes', () => {
  test.each<[string, string[], number, RegExp]>([
    ['help', ['--help'], 0, /^$/],
    ['version', ['--version'], 0, /^$/],
    ['an unknown command', ['compile'], 2, /unknown command/],
    ['an unknown flag', ['build', 'x.onnx', '--fast'], 2, /unknown option/],
    ['no model', ['build'], 2, /missing required argument/],
    ['invalid shapes', ['build', 'x.onnx', '--shapes', 'x:1xtwo'], 2, /--shapes must be NAME:/],
    ['an invalid lineage', ['build', 'x.onnx', '--lineage', 'run 7'], 2, /--lineage must be a JSON object/],
    ['shapes given twice', ['build', 'x.onnx', '--shapes', 'x:1', '--shapes', 'x:2'], 2, /gives 'x' twice/],
    [
      'an invalid number',
      ['build', 'x.onnx', '--workspace', 'much'],
      2,
      /--workspace must be a whole number/,
    ],
    [
      'an unknown precision',
      ['build', 'x.onnx', '--precision', 'fp99'],
      2,
      /fp99.*fp16, bf16, fp32, tf32, as-exported/,
    ],
    ['no level', ['build', 'x.onnx', '--optimization-level', '9'], 2, /0, 1, 2, 3, 4, 5/],
    ['an unknown GPU name', ['build', 'x.onnx', '--target', 'rtx4090'], 2, /'rtx4090' is not a GPU target/],
    ['no device', ['run', 'x.onnx', '--device', 'gpu'], 2, /--device must be auto/],
    ['an input twice', ['run', 'x.onnx', '--input', 'x=random:1', '--input', 'x=random:2'], 2, /twice/],
    ['no batch', ['bench', 'x.onnx', '--batch', '1,0'], 2, /--batch must be a whole number of at least 1/],
    ['no seconds', ['bench', 'x.onnx', '--duration', 'long'], 2, /--duration must be a number of seconds/],
    ['an unknown peer', ['bench', 'x.onnx', '--compare', 'torch'], 2, /Allowed choices are onnxruntime/],
    ['two runs in one log', ['bench', 'x.onnx', '--batch', '1,8', '--mlperf', 'l'], 2, /--batch one size/],
    [
      'a stream of batches',
      ['bench', 'x.onnx', '--batch', '8', '--mlperf', 'l'],
      2,
      /SingleStream runs one sample at a time/,
    ],
    ['a scenario without a log', ['bench', 'x.onnx', '--scenario', 'Offline'], 2, /--mlperf FILE/],
    ['no prompt', ['generate', 'x'], 2, /missing required argument 'prompt'/],
    [
      "tokens that aren't a number",
      ['generate', 'x', 'y', '--max-tokens', 'few'],
      2,
      /--max-tokens must be a number/,
    ],
    ['an invalid seed', ['chat', 'x', '--seed', ''], 2, /--seed must be a number/],
    [
      'invalid tokens',
      ['generate', demoModel, '1+1', '--max-tokens', '0'],
      1,
      /^error: ERR_INVALID_ARG_VALUE: --max-tokens must be an integer/,
    ],
    [
      'no room',
      ['generate', demoModel, '1+1', '--max-length', '1'],
      1,
      /^error: ERR_SHAPE_MISMATCH: .*: see --max-length\.\n$/,
    ],
    ['no template', ['chat', 'x', '--chat-template', 'x.jinja'], 2, /--chat-template can't be read: ENOENT/],
    ['a missing folder', ['generate', 'x', 'y'], 1, /^error: ERR_MODEL_NOT_FOUND: .*\bx\b.*\n$/],
    ['a library that no one has', ['libs', 'install', 'trt9'], 2, /only 'rtx'/],
    [
      'a missing model',
      ['build', 'x.onnx', '--target', 'sm_89'],
      1,
      /^error: ERR_MODEL_NOT_FOUND: .*x\.onnx.*\n$/,
    ],
    ['timings without a file', ['build', 'x.onnx', '--timing-cache'], 2, /--timing-cache/],
    ['no GPU', ['build', fixture('linear.onnx')], 1, /^error: ERR_NO_GPU: .*name them in --target.*\n$/],
    ['a missing engine', ['inspect', 'x.engine'], 1, /^error: ERR_MODEL_NOT_FOUND: .*\n$/],
  ])('%s', async (_, args, code, stderr) => {
    const result = await run(args);
    expect(result.code).toBe(code);
    expect(result.stderr).toMatch(stderr);
    if (code !== 0) expect(result.stdout).toBe('');
  });
});

test('an interrupted build leaves nothing behind', async () => {
  const temporary = path.join(directory, 'tmp');
  await mkdir(temporary);
  const args = [
    cli,
    'build',
    fixture('slow.onnx'),
    '--target',
    'sm_89',
    '--shapes',
    'x:64x64',
    '--shapes',
    'v0:64x64',
  ];
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const child = spawn(process.execPath, args, {
      cwd: directory,
      env: { ...process.env, TMPDIR: temporary },
    });
    const ended = new Promise((resolve) => child.on('close', resolve));
    while ((await readdir(temporary)).length === 0 && child.exitCode === null) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    child.kill(signal);
    expect(await ended).toBe(code);
    expect(await readdir(temporary)).toEqual([]);
  }
});

test("a reader that closes the pipe early isn't a failure", async () => {
  const script = 'set -o pipefail; "$0" "$1" --help | true; echo $?';
  const { stdout } = await new Promise<{ stdout: string }>((resolve) => {
    execFile('bash', ['-c', script, process.execPath, cli], (_, out) => resolve({ stdout: out }));
  });
  expect(stdout.trim()).toBe('0');
});

test('doctor shows what this machine has', async () => {
  const report = await json(['doctor']);
  expect(report).toMatchObject({
    node: process.version,
    gpus: expect.any(Array),
    tensorrt: [expect.objectContaining({ flavour: 'rtx', version: expect.stringMatching(/^1\./) })],
    onnxruntime: { version: expect.stringMatching(/^1\./), path: expect.stringContaining('libonnxruntime') },
  });
  expect(report.findings.map(({ works }: { works: boolean }) => works).slice(0, 2)).toEqual([true, true]);
  const { stdout } = await run(['doctor']);
  expect(stdout).toMatch(/✓ Run ONNX models on the CPU: ONNX Runtime 1\./);
});

test('doctor says what to do when parts are missing', async () => {
  const empty = {
    NODE_TENSORRT_TENSORRT_PATH: directory,
    NODE_TENSORRT_ONNXRUNTIME: path.join(directory, 'no.so'),
  };
  const report = await json(['doctor'], empty);
  expect(report.onnxruntime).toBeNull();
  for (const { works, remedy } of report.findings) {
    expect(works).toBe(false);
    expect(remedy).toBeTruthy();
  }
});

describe('libs', () => {
  test('lists what is installed, with versions', async () => {
    const libraries = await json(['libs', 'list']);
    expect(libraries[0]).toMatchObject({ flavour: 'rtx', version: expect.stringMatching(/^1\./) });
    expect((await run(['libs'])).stdout).toContain(libraries[0].path);
  });

  test('installing again installs nothing, and shows the licence', async () => {
    const { code, stdout } = await run(['libs', 'install', 'rtx']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/is already installed[\s\S]*NVIDIA's licence[\s\S]*LICENSE/);
  });

  test('a cache that cannot be written', async () => {
    const file = path.join(directory, 'a-file');
    await writeFile(file, '');
    const { code, stderr } = await run(['libs', 'install', 'rtx'], { NODE_TENSORRT_CACHE: file });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: ERR_IO: .*NODE_TENSORRT_CACHE.*\n$/);
  });

  // In /proc, mkdir() claims that an existing parent folder is missing.
  test.each<Record<string, string>>([
    { HOME: '/proc/nobody', XDG_CACHE_HOME: '' },
    { XDG_CACHE_HOME: '/proc/cache' },
    { NODE_TENSORRT_CACHE: '/proc/self/cache' },
  ])('a cache in /proc is tried once: %j', async (env) => {
    const installed = await run(['libs', 'install', 'rtx'], env);
    expect(installed.code).toBe(1);
    expect(installed.stderr).toMatch(/^error: ERR_IO: .*mkdir '\/proc\/.*NODE_TENSORRT_CACHE.*\n$/);
    const [library] = await json(['libs']);
    const named = { NODE_TENSORRT_TENSORRT_PATH: library.path, NODE_TENSORRT_ENGINE_CACHE: '', ...env };
    const engine = path.join(directory, 'without-cache.engine');
    const built = await run(['build', fixture('linear.onnx'), '--target', 'sm_89', '-o', engine], named);
    expect(built.code).toBe(0);
    expect(built.stderr).toMatch(/The engine cache .* mkdir '\/proc\//);
  });

  test.each<[string, (closed: string) => Record<string, string>]>([
    ['of another user', (closed) => ({ HOME: closed })],
    ['that is a file', () => ({ HOME: fixture('linear.onnx') })],
    ['that is a link to itself', () => ({ HOME: path.join(directory, 'loop') })],
    ['with too long a name', () => ({ HOME: `/${'a'.repeat(300)}` })],
    ['that is relative', () => ({ HOME: 'home' })],
    ['that is empty', () => ({ HOME: '' })],
    ['and a cache of another user', (closed) => ({ HOME: closed, NODE_TENSORRT_CACHE: closed })],
    ['and folders of libraries of another user', (closed) => ({ HOME: closed, LD_LIBRARY_PATH: closed })],
    ['and packages of another user', (closed) => ({ HOME: closed, PYTHONUSERBASE: closed })],
    ['and programs of another user', (closed) => ({ HOME: closed, PATH: `${closed}:${process.env.PATH}` })],
  ])('a home folder %s: nothing is found there, and nothing fails', async (name, environment) => {
    const closed = path.join(directory, `closed ${name.slice(0, 20)}`);
    await mkdir(closed, { mode: 0 });
    await symlink('loop', path.join(directory, 'loop')).catch(() => {});
    // Root may read everything.
    const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
    const env = { ...process.env, ...environment(closed) };
    const asUser = (...args: string[]) =>
      spawnSync(process.execPath, [cli, ...args], { cwd: '/', env, encoding: 'utf8', ...user });
    expect(asUser('doctor')).toMatchObject({ status: 0, stderr: '' });
    expect(asUser('libs')).toMatchObject({ status: 0, stderr: '' });
    const built = asUser('build', fixture('linear.onnx'), '--target', 'sm_89', '-o', '/dev/null');
    // If a library is found elsewhere, it is used.
    if (built.status !== 0) expect(built.stderr).toMatch(/^error: ERR_LIBRARY_NOT_FOUND: /);
    const ran = asUser('run', fixture('linear.onnx'), '--input', 'x=random:2x4', '--device', 'cpu');
    expect(ran).toMatchObject({ status: 0, stderr: '' });
  });

  test("the error says that another user's folder can't be read", async () => {
    const closed = path.join(directory, 'closed-libraries');
    await mkdir(closed, { mode: 0 });
    const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
    const env = { ...process.env, NODE_TENSORRT_TENSORRT_PATH: closed };
    const args = [cli, 'build', fixture('linear.onnx'), '--target', 'sm_89'];
    const { status, stderr } = spawnSync(process.execPath, args, {
      cwd: '/',
      env,
      encoding: 'utf8',
      ...user,
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(/^error: ERR_LIBRARY_NOT_FOUND: .*closed-libraries \(EACCES: permission denied\)/);
  });

  test('a pip that fails, and no Python, leave nothing behind', async () => {
    const cache = path.join(directory, 'cache');
    const failing = await run(['libs', 'install', 'rtx'], {
      NODE_TENSORRT_CACHE: cache,
      PIP_INDEX_URL: 'http://127.0.0.1:1/simple',
      PIP_NO_INDEX: '1',
      PIP_RETRIES: '0',
      PIP_CONFIG_FILE: '/dev/null',
    });
    expect(failing).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^error: ERR_DOWNLOAD_FAILED: .*\n$/),
    });
    const missing = await run(['libs', 'install', 'rtx'], { NODE_TENSORRT_CACHE: cache, PATH: '/nowhere' });
    expect(missing).toMatchObject({ code: 1, stderr: expect.stringMatching(/ERR_DOWNLOAD_FAILED: python3/) });
    expect(await readdir(path.join(cache, 'lib'))).toEqual([]);
  });

  test("of two installations, the one for this machine's CUDA comes first", async () => {
    const cache = path.join(directory, 'two');
    for (const cuda of ['12', '13']) {
      const folder = path.join(cache, `lib/rtx-1.7.1.116-cu${cuda}/tensorrt_rtx_libs`);
      await mkdir(folder, { recursive: true });
      await writeFile(path.join(folder, 'libtensorrt_rtx.so.1'), 'not a library');
    }
    for (const cuda of ['12', '13']) {
      // The binary is this checkout's; the variable only concerns the libraries here.
      const env = { NODE_TENSORRT_CACHE: cache, NODE_TENSORRT_CUDA: cuda, NODE_TENSORRT_BINARY: addon };
      const [first] = await json(['libs', 'list'], env);
      expect(first).toMatchObject({ name: `rtx-1.7.1.116-cu${cuda}`, error: expect.any(String) });
    }
  });

  test('removes by name, and lists what is installed for an unknown one', async () => {
    const cache = path.join(directory, 'other-cache');
    await mkdir(path.join(cache, 'lib/rtx-0.0.0-test'), { recursive: true });
    const env = { NODE_TENSORRT_CACHE: cache };
    const unknown = await run(['libs', 'remove', 'trt'], env);
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('installed: rtx-0.0.0-test') });
    expect(await json(['libs', 'remove', 'rtx'], env)).toEqual({ removed: ['rtx-0.0.0-test'] });
    expect(await readdir(path.join(cache, 'lib'))).toEqual([]);
  });
});

describe('build and inspect', () => {
  test('an engine and its plan', async () => {
    const args = [
      'build',
      fixture('linear.onnx'),
      '-o',
      'a.engine',
      '--plan',
      'a.plan',
      '--target',
      'sm_86,sm_89',
    ];
    const built = await json([...args, '--shapes', 'x:1x4,2x4,8x4', '--optimization-level', '1']);
    expect(built).toMatchObject({
      engine: 'a.engine',
      plan: 'a.plan',
      manifest: { targets: ['sm_86', 'sm_89'], options: { optimizationLevel: 1 } },
    });
    const engine = await Engine.load(path.join(directory, 'a.engine'));
    expect(Buffer.compare(engine.plan(), await readFile(path.join(directory, 'a.plan')))).toBe(0);

    const inspected = await json(['inspect', 'a.engine']);
    expect(inspected.manifest).toEqual(built.manifest);
    expect(inspected.layers.length).toBeGreaterThan(0);
    const { stdout } = await run(['inspect', 'a.engine']);
    expect(stdout).toMatch(/sm_86, sm_89[\s\S]*input +x +float32 +\?×4 +1×4 to 2×4 to 8×4/);
  });

  test('into the working directory by default, in words', async () => {
    const { code, stdout, stderr } = await run(['build', fixture('linear.onnx'), '--target', 'sm_89']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^linear\.engine: .*fp16, for sm_89/);
    expect(stdout).toMatch(/x: 1×4 to 8×4 to 16×4/);
  });

  test('a damaged engine', async () => {
    const bytes = await readFile(path.join(directory, 'a.engine'));
    bytes[bytes.length - 9]! ^= 1;
    await writeFile(path.join(directory, 'bad.engine'), bytes);
    const { code, stderr } = await run(['inspect', 'bad.engine']);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/ERR_ENGINE_CORRUPT: .*SHA-256/),
    });
  });

  test('an engine, the model it came from and the engines it descends from', async () => {
    const folder = path.join(directory, 'lineage');
    await mkdir(folder);
    const inside = (name: string) => path.join('lineage', name);
    await copyFile(fixture('linear.onnx'), path.join(folder, 'linear.onnx'));
    const args = (name: string) => ['build', inside('linear.onnx'), '-o', inside(name), '--target', 'sm_89'];
    const oldest = await json(args('oldest.engine'));
    const middle = await json([...args('middle.engine'), '--parent', inside('oldest.engine')]);
    const newest = [...args('newest.engine'), '--parent', middle.id, '--lineage', '{"run": 7}'];
    expect((await json(newest)).manifest).toMatchObject({ parent: middle.id, lineage: { run: 7 } });

    const report = await json(['inspect', inside('newest.engine')]);
    expect(report.ancestors.map(({ id, file }: { id: string; file: string }) => [id, file])).toEqual([
      [middle.id, inside('middle.engine')],
      [oldest.id, inside('oldest.engine')],
    ]);
    expect(report.model).toMatchObject({ file: inside('linear.onnx'), matches: true });
    expect(report.layers).toContainEqual(
      expect.objectContaining({ type: 'CONSTANT', precision: 'float32', outputBytes: 12 }),
    );
    const { stdout } = await run(['inspect', inside('newest.engine'), '--layers']);
    expect(stdout).toMatch(/parent .*middle\.engine.*verified\nparent .*oldest\.engine.*verified\n/);
    expect(stdout).toMatch(/xw +MATRIX_MULTIPLY +float16 +\?×3/);

    // A damaged ancestor doesn't count, and the chain ends there.
    const bytes = await readFile(path.join(folder, 'middle.engine'));
    bytes[bytes.length - 9]! ^= 1;
    await writeFile(path.join(folder, 'middle.engine'), bytes);
    const { ancestors } = await json(['inspect', inside('newest.engine')]);
    expect(ancestors).toEqual([{ id: middle.id }]);

    const other = await run(['inspect', inside('newest.engine'), '--model', fixture('slow.onnx')]);
    expect(other).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/slow\.onnx is another model/),
    });
  });

  test('an engine of another model with the same weights', async () => {
    const { code, stdout } = await run(['inspect', 'a.engine', '--model', fixture('external.onnx')]);
    expect({ code, stdout }).toEqual({
      code: 1,
      stdout: expect.stringMatching(/the same weights in another/),
    });
  });

  test('a model, checked against the onnx package', async () => {
    const report = await json(['inspect', fixture('linear.onnx')]);
    const expected = JSON.parse(
      python(
        `
import collections, json, math, onnx, sys
m = onnx.load(sys.argv[1])
print(json.dumps({'parameters': sum(math.prod(t.dims) for t in m.graph.initializer), 'irVersion': m.ir_version,
  'operators': dict(collections.Counter(n.op_type for n in m.graph.node)), 'inputs': [i.name for i in m.graph.input]}))`,
        [fixture('linear.onnx')],
      ),
    );
    const { parameters, irVersion, operators, inputs } = report;
    const names = inputs.map(({ name }: { name: string }) => name);
    expect({ parameters, irVersion, operators, inputs: names }).toEqual(expected);
    expect(report.import).toMatchObject({ library: { flavour: 'rtx' }, failures: [], unchecked: [] });
    expect(report.import.layers).toBeGreaterThan(0);
    const { stdout } = await run(['inspect', fixture('linear.onnx')]);
    expect(stdout).toMatch(/input +x +float32 +batch×4[\s\S]*TensorRT-RTX 1\.\S+ imports it: .* \d+ layers/);
    const none = { NODE_TENSORRT_TENSORRT_PATH: directory };
    const without = await run(['inspect', fixture('linear.onnx')], none);
    expect(without).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/not known: ERR_LIBRARY_NOT_FOUND/),
    });
  });

  test("a model that TensorRT doesn't support, by a real parse", async () => {
    const g = new GraphBuilder('bad');
    const a = g.input('a', 'float32', [2, 3]);
    g.op('DeformConv', [a, a, a], {}, { outputs: ['y'], name: 'the.node' });
    g.output('y', 'float32', [2, 3]);
    await writeFile(path.join(directory, 'bad.onnx'), serializeModel(g.finish()));
    const report = await json(['inspect', 'bad.onnx']);
    expect(report.import).toMatchObject({
      layers: null,
      failures: [{ node: 'the.node', operator: 'DeformConv', reason: expect.any(String) }],
    });
    const { code, stdout } = await run(['inspect', 'bad.onnx']);
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringMatching(/TensorRT-RTX 1\.\S+ can't import it:\n.*\nthe\.node +DeformConv +\S/),
    });
  });
});

describe('run', () => {
  test('on a file, into a file', async () => {
    python(
      `
import numpy as np, sys
np.save(sys.argv[1] + '/x.npy', np.arange(8, dtype='<f4').reshape(2, 4))`,
      [directory],
    );
    const report = await json(['run', fixture('linear.onnx'), '--input', 'x=x.npy', '--output', 'out']);
    expect(report.outputs.map(({ name, dims }: { name: string; dims: number[] }) => [name, dims])).toEqual([
      ['y', [2, 3]],
      ['s', [2, 3]],
    ]);
    const sum = python("import numpy as np, sys; print(np.load(sys.argv[1]).astype('f8').mean())", [
      path.join(directory, 'out/y.npy'),
    ]);
    expect(report.outputs[0].mean).toBeCloseTo(Number(sum), 4);
  });

  test('names missing flags and inputs', async () => {
    const dynamic = await run(['run', fixture('linear.onnx')]);
    expect(dynamic).toMatchObject({ code: 1, stderr: expect.stringMatching(/--input x=random:batchx4/) });
    await copyFile(path.join(directory, 'a.engine'), path.join(directory, 'b.engine'));
    const engine = await run(['run', 'b.engine']);
    expect(engine).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error: ERR_NO_GPU: /) });
    const noInput = await run(['run', fixture('linear.onnx'), '--input', 'x']);
    expect(noInput.code).toBe(2);
  });
});

describe('bench', () => {
  test('batches, beside onnxruntime-node', async () => {
    const args = ['--batch', '1,8', '--duration', '0.1', '--compare', 'onnxruntime', '--json', 'bench.json'];
    const { code, stdout, stderr } = await run(['bench', fixture('linear.onnx'), ...args]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/batch 8, on cpu[\s\S]*onnxruntime-node[\s\S]*ratio of median latencies/);
    const { reports, sha256 } = JSON.parse(await readFile(path.join(directory, 'bench.json'), 'utf8'));
    const digest = createHash('sha256')
      .update(await readFile(fixture('linear.onnx')))
      .digest('hex');
    expect(sha256).toBe(digest);
    expect(reports.map(({ batch, inputs }: never) => [batch, inputs])).toEqual([
      [1, [{ name: 'x', type: 'float32', dims: [1, 4] }]],
      [8, [{ name: 'x', type: 'float32', dims: [8, 4] }]],
    ]);
    for (const { rows, ratioOfMedians, batch } of reports) {
      const [ours, theirs] = rows;
      expect([ours.name, theirs.name]).toEqual(['node-tensorrt', 'onnxruntime-node']);
      expect(ratioOfMedians).toBe(ours.result.latency.median / theirs.result.latency.median);
      for (const { result, samplesPerSecond } of rows) {
        expect(result.queries).toBeGreaterThanOrEqual(10);
        expect(samplesPerSecond).toBeCloseTo((1000 * batch * result.queries) / result.wallMs, 6);
      }
      expect(ours.hostBytes).toBeGreaterThanOrEqual(0);
    }
  });

  test('a drawing, with more queries in flight', async () => {
    const args = [
      '--concurrency',
      '1,2',
      '--duration',
      '0.05',
      '--plot',
      'bench.svg',
      '--json',
      'drawn.json',
    ];
    const { code, stdout } = await run(['bench', fixture('linear.onnx'), ...args]);
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringMatching(/batch 1, 2 in flight, on cpu/),
    });
    const { reports } = JSON.parse(await readFile(path.join(directory, 'drawn.json'), 'utf8'));
    expect(reports.map(({ concurrency }: { concurrency: number }) => concurrency)).toEqual([1, 2]);
    expect(await readFile(path.join(directory, 'bench.svg'), 'utf8')).toMatch(
      /^<svg [\s\S]*linear\.onnx[\s\S]*<\/svg>\n$/,
    );
  });

  test('an MLPerf log', async () => {
    const args = ['--batch', '16', '--duration', '0.05', '--scenario', 'Offline', '--mlperf', 'offline.log'];
    expect(await run(['bench', fixture('linear.onnx'), ...args])).toMatchObject({ code: 0, stderr: '' });
    const lines = (await readFile(path.join(directory, 'offline.log'), 'utf8')).trimEnd().split('\n');
    const values = Object.fromEntries(
      lines.map((line) => JSON.parse(line.slice(':::MLLOG '.length))).map(({ key, value }) => [key, value]),
    );
    expect(values).toMatchObject({ submission_benchmark: 'linear', effective_scenario: 'Offline' });
    expect(values.result_samples_per_second).toBeGreaterThan(0);
  });

  test('names missing flags and inputs', async () => {
    const args = ['--duration', '0.05'];
    const unknown = await run(['bench', fixture('linear.onnx'), ...args, '--shapes', 'z:1x4']);
    expect(unknown).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/--shapes names 'z'.*inputs are x/),
    });
    const contradiction = ['--batch', '8', '--input', 'x=random:2x4'];
    expect(await run(['bench', fixture('linear.onnx'), ...args, ...contradiction])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/--input gives 'x' dims \[2,4\], but --batch needs \[8,4\]/),
    });
  });
});

describe('errors', () => {
  const linear = fixture('linear.onnx');
  let odd: string;
  beforeAll(async () => {
    odd = path.join(directory, 'folder of a model');
    await cp(demoModel, odd, { recursive: true });
    const config = { eos_token_id: 2, do_sample: true, top_p: -1 };
    await writeFile(path.join(odd, 'generation_config.json'), JSON.stringify(config));
    const g = new GraphBuilder('letters');
    g.op('Neg', [g.input('ünï', 'float32', ['n', 4])], {}, { outputs: ['y'] });
    g.output('y', 'float32', ['n', 4]);
    await writeFile(path.join(directory, 'ünï.onnx'), serializeModel(g.finish()));
  });

  test.each<[string, string[], RegExp]>([
    ['build', ['build', linear, '--target', 'sm_89', '--shapes', 'z:1x4'], /: --shapes z is not an input/],
    ['build', ['build', linear, '--target', 'sm_89', '--shapes', 'x:1x5'], /: --shapes x\.min has 5 in dim/],
    ['build', ['build', linear, '--target', 'sm_89', '--workspace', '9e99'], /: --workspace must be/],
    ['build', ['build', linear], /ERR_NO_GPU: .*name them in --target/],
    ['run', ['run', linear, '--device', 'cuda'], /ERR_NO_GPU/],
    ['run', ['run', linear, '--input', 'x=random:2x5'], /: --input x has dims \[2,5\]/],
    ['bench', ['bench', linear, '--shapes', 'x:1x5'], /: --shapes x\.min has 5 in dim/],
    [
      'bench',
      ['bench', linear, '--input', 'x=random:2x5'],
      /: --input x has 5 in dimension 1, which the mod/,
    ],
    ['bench', ['bench', linear, '--input', 'x=random:2x4x1'], /: --input x has 3 dimensions/],
    ['bench', ['bench', 'ünï.onnx', '--shapes', 'ünï:1x5'], /: --shapes ünï\.min has 5 in dimension 1/],
    ['bench', ['bench', linear, '--concurrency', '99999'], /: --concurrency must be/],
    ['bench', ['bench', linear, '--precision', 'fp99'], /: --precision must be one of/],
    ['generate', ['generate', demoModel, '1+1', '--top-p', '0'], /: --top-p must be more than 0/],
    ['generate', ['generate', demoModel, '1+1', '--stop', ''], /: --stop is empty/],
    ['generate', ['generate', demoModel, '1+1', '--max-length', '99999'], /: --max-length must be at most/],
    ['generate', ['generate', 'folder of a model', '1+1'], /top_p can't be -1\. Correct it, or give --top-p/],
    ['chat', ['chat', demoModel, '--max-length', '99999'], /: --max-length must be at most/],
    ['chat', ['chat', demoModel, '--threads', '0'], /: --threads must be an integer/],
  ])('of %s name flags: %j', async (_, args, message) => {
    const { code, stderr } = await run(args);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/options\.|feeds\[/);
  });

  test('errors of a conversation name flags too', async () => {
    const child = spawn(process.execPath, [cli, 'chat', demoModel, '--max-length', '9', '--device', 'cpu']);
    let stderr = '';
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.stdin.end('1 + 2 + 3 + 4 + 5 = ?\n');
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: ERR_SHAPE_MISMATCH: .*: see --max-length\.\n/);
  });

  test.each(['in=put:0', 'a', 'a=b', 'a,b c', "it's", '-x', 'é:1x2', '=x'])(
    'suggest a command that works, for any input name: %s',
    async (name) => {
      const g = new GraphBuilder('names');
      g.op(
        'Add',
        [g.input('a=', 'float32', [4]), g.input(name, 'float32', ['n', 4])],
        {},
        { outputs: ['y'] },
      );
      g.output('y', 'float32', ['n', 4]);
      await writeFile(path.join(directory, 'names.onnx'), serializeModel(g.finish()));
      const { code, stderr } = await run(['run', 'names.onnx', '--device', 'cpu']);
      expect(code).toBe(1);
      const suggested = /such as (--input .*)\n$/.exec(stderr)![1]!;
      const inShell = (command: string) =>
        spawnSync('sh', ['-c', `node ${cli} ${command}`], { cwd: directory, encoding: 'utf8' });
      const ran = inShell(`run names.onnx --device cpu --json ${suggested}`);
      expect(ran.stderr).toBe('');
      expect(JSON.parse(ran.stdout).inputs).toContainEqual({ name, type: 'float32', dims: [1, 4] });
      const shape = ['--shapes', `${name}:3x4`];
      const bench = ['bench', 'names.onnx', '--device', 'cpu', '--duration', '0.01', '--json', 'names.json'];
      const benched = await run([...bench, ...shape]);
      expect(benched.code).toBe(0);
      const built = await run(['build', 'names.onnx', '--target', 'sm_89', '--json', ...shape]);
      expect(built.stderr).toBe('');
      expect(JSON.parse(built.stdout).manifest.profiles[0][name].max).toEqual([3, 4]);
    },
  );
});

describe('generate and chat', () => {
  const decoder = path.join(import.meta.dirname, '../fixtures/decoders/llama/static-cache');

  /** Runs `chat`; `converse` writes to its standard input, and `onText` is called as output comes. */
  function chat(
    args: string[],
    converse: (input: NodeJS.WritableStream, child: ReturnType<typeof spawn>) => void,
    onText: (text: string, child: ReturnType<typeof spawn>) => void = () => {},
  ): Promise<Result> {
    const child = spawn(process.execPath, [cli, 'chat', decoder, '--device', 'cpu', ...args]);
    const result: Result = { code: 0, stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => {
      result.stdout += chunk;
      onText(result.stdout, child);
    });
    child.stderr.on('data', (chunk) => {
      result.stderr += chunk;
    });
    converse(child.stdin, child);
    return new Promise((resolve) => child.on('close', (code) => resolve({ ...result, code: code ?? -1 })));
  }

  test('continue a text: the same words, streamed and as JSON', async () => {
    const args = ['generate', decoder, 'Hello', '--max-tokens', '12', '--device', 'cpu'];
    const report = await json([...args, '--logprobs', '1']);
    expect(report).toMatchObject({
      device: 'cpu',
      kvCache: { mode: 'in-place', why: expect.any(String) },
      prompt: 'Hello',
      tokens: expect.any(Array),
      usage: { promptTokens: 5, cachedTokens: 0, completionTokens: report.tokens.length },
    });
    expect(report.logprobs.length).toBe(report.tokens.length);
    expect(await run(args)).toEqual({ code: 0, stdout: `${report.text}\n`, stderr: '' });
    const seeded = [...args, '--temperature', '0.9', '--top-p', '0.9', '--seed', '3'];
    expect(await run(seeded)).toEqual(await run(seeded));
    const stop = report.text.slice(4, 6);
    const stopped = await json([...args, '--stop', stop]);
    expect(stopped).toMatchObject({
      finishReason: 'stop',
      text: report.text.slice(0, report.text.indexOf(stop)),
    });
  });

  test('apply the template to a question', async () => {
    const args = ['--max-tokens', '5', '--device', 'cpu'];
    const framed = await json(['generate', decoder, 'Hello', '--chat', ...args]);
    const text = '<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n';
    expect(framed.tokens).toEqual((await json(['generate', decoder, text, ...args])).tokens);
    expect(framed.usage.promptTokens).toBeGreaterThan(5);
    await writeFile(path.join(directory, 'bare.jinja'), '{{ messages[0].content }}');
    const bare = await json([
      ...['generate', decoder, 'Hello', '--chat', '--chat-template', 'bare.jinja'],
      ...args,
    ]);
    expect(bare.tokens).toEqual((await json(['generate', decoder, 'Hello', ...args])).tokens);
  });

  test('read a prompt from standard input, without the newline that echo writes', async () => {
    const args = ['generate', decoder, '-', '--max-tokens', '5', '--json', '--device', 'cpu'];
    for (const [input, prompt] of [
      ['Hello\n', 'Hello'],
      ['Hello\n\n', 'Hello\n'],
      ['Hello', 'Hello'],
    ]) {
      const { stdout } = spawnSync(process.execPath, [cli, ...args], { input, encoding: 'utf8' });
      expect(JSON.parse(stdout).prompt).toBe(prompt);
    }
  });

  test('explain that a prompt is too long', async () => {
    const args = ['generate', decoder, 'x'.repeat(600), '--device', 'cpu'];
    expect(await run(args)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^error: ERR_SHAPE_MISMATCH: prompt has 600 tokens.*\n$/),
    });
  });

  test('converse by lines from a pipe; each answer knows what came before', async () => {
    const { code, stdout, stderr } = await chat(['--max-tokens', '6', '--json', '--system', 'Hm.'], (input) =>
      input.end('One?\n\nTwo?\nThree?'),
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { turns } = JSON.parse(stdout);
    expect(turns.map((turn: { question: string }) => turn.question)).toEqual(['One?', 'Two?', 'Three?']);
    const cached = turns.map((turn: { usage: { cachedTokens: number } }) => turn.usage.cachedTokens);
    expect(cached[0]).toBe(0);
    expect(cached[1]).toBeGreaterThan(20);
    expect(cached[2]).toBeGreaterThan(cached[1]);
    const plain = await chat(['--max-tokens', '6', '--system', 'Hm.'], (input) =>
      input.end('One?\nTwo?\nThree?'),
    );
    expect(plain.stdout).toBe(turns.map(({ text }: { text: string }) => `${text}\n`).join(''));
  });

  test.each(['One?\n', 'One?', 'One?\nTwo?\nThree?', 'One?\n\nTwo?\n'])(
    'answer all that a pipe asked before its end: %j',
    async (text) => {
      const { code, stdout } = await chat(['--max-tokens', '6', '--json'], (input) => input.end(text));
      expect(code).toBe(0);
      const { turns } = JSON.parse(stdout);
      expect(turns.map(({ question }: { question: string }) => question)).toEqual(text.match(/\w+\?/g));
      for (const { usage } of turns) expect(usage.completionTokens).toBe(6);
    },
  );

  test('at a terminal, the end may come before the answer', () => {
    const python = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
shown = b''
asked = False
while True:
    try: chunk = os.read(terminal, 4096)
    except OSError: break
    if not chunk: break
    shown += chunk
    if not asked and b'> ' in shown:
        os.write(terminal, b'One?\\r\\x04')
        asked = True
sys.stdout.write(shown.decode(errors='replace'))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`;
    const args = [process.execPath, cli, 'chat', decoder, '--device', 'cpu', '--max-tokens', '6'];
    const { status, stdout } = spawnSync('python3', ['-c', python, ...args], { encoding: 'utf8' });
    expect(stdout).toMatch(/\+ 6 tokens/);
    expect(stdout).not.toContain('error');
    expect(status).toBe(0);
  });

  test('a conversation that outgrows its row goes on without the question, or starts over', async () => {
    const converse = (input: NodeJS.WritableStream) =>
      input.end(`One?\n${'x'.repeat(600)}\nTwo?\n/clear\nOne?`);
    const { code, stdout, stderr } = await chat(['--max-tokens', '6', '--json'], converse);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: ERR_SHAPE_MISMATCH: prompt has \d+ tokens; .*\n\(.*\/clear .*\)\n$/);
    const { turns } = JSON.parse(stdout);
    expect(turns.map((turn: { error?: string }) => turn.error)).toEqual([
      undefined,
      expect.stringMatching(/^prompt has \d+ tokens/),
      undefined,
      undefined,
    ]);
    const [first, tooLong, second, anew] = turns;
    expect(tooLong.text).toBe('');
    const without = await chat(['--max-tokens', '6', '--json'], (input) => input.end('One?\nTwo?'));
    expect(second.text).toBe(JSON.parse(without.stdout).turns[1].text);
    expect({ text: anew.text, prompt: anew.usage.promptTokens }).toEqual({
      text: first.text,
      prompt: first.usage.promptTokens,
    });
  });

  test('an interrupt ends the answer, not the program; two at the prompt end it', async () => {
    const answers = (text: string) => text.split('\n').length - 1;
    let told = 0;
    let interrupted = false;
    const { code, stdout, stderr } = await chat(
      ['--max-tokens', '400', '--stop', '\n'],
      (input, child) => {
        input.write('One?\n');
        child.stderr!.on('data', () => {
          if (told === 2) child.kill('SIGINT');
        });
      },
      (text, child) => {
        if (!interrupted) child.kill('SIGINT');
        interrupted = true;
        while (told < answers(text)) {
          told++;
          if (told === 1) child.stdin!.write('Two?\n');
          else child.kill('SIGINT');
        }
      },
    );
    expect(answers(stdout)).toBe(2);
    expect(stderr).toMatch(/Ctrl-C again/);
    expect(code).toBe(0);
  });
});
