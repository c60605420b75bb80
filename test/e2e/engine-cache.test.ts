import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync } from 'node:fs';
import {
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { type BuildOptions, buildEngine, Engine } from 'node-tensorrt';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

// The engine cache, with real builds in real processes.
const root = path.join(import.meta.dirname, '../..');
const fixture = (name: string) => path.join(root, 'test/fixtures/session', name);
const linear = fixture('linear.onnx');
const target = 'sm_89';
const shapes = { x: { min: [1, 4], opt: [2, 4], max: [8, 4] } };

let directory: string;
let cache: string;
let number = 0;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'cache-'));
});
beforeEach(() => {
  cache = path.join(directory, `cache-${number++}`);
});
afterAll(() => rm(directory, { recursive: true }));

const build = (options: BuildOptions = {}, model: string | Uint8Array = linear) =>
  buildEngine(model, { target, shapes, cache, ...options });

const entries = async () => (await readdir(cache)).filter((name) => name.endsWith('.engine'));
/** Files that no build should leave behind. */
const remains = async () =>
  (await readdir(cache)).filter((name) => !/\.engine$|^(models|libraries)\.json$/.test(name));

/** A build in its own process; it prints the value of the expression `then`. */
function child(then = 'e.fromCache', options = '{}', environment: Record<string, string> = {}) {
  const script = `
    const { buildEngine } = require('node-tensorrt');
    buildEngine(${JSON.stringify(linear)}, { target: 'sm_89', shapes: ${JSON.stringify(shapes)},
      cache: ${JSON.stringify(cache)}, ...${options} })
      .then((e) => console.log(${then}), (error) => console.log(error.code ?? error));`;
  const spawned = spawn(process.execPath, ['-e', script], {
    cwd: root,
    env: { ...process.env, ...environment },
  });
  return { process: spawned, ended: output(spawned) };
}

async function output(
  spawned: ChildProcess,
): Promise<{ stdout: string; stderr: string; end: number | string | null }> {
  let [stdout, stderr] = ['', ''];
  spawned.stdout!.on('data', (data) => {
    stdout += data;
  });
  spawned.stderr!.on('data', (data) => {
    stderr += data;
  });
  const end = await new Promise<number | string | null>((resolve) => {
    spawned.on('close', (code, signal) => resolve(signal ?? code));
  });
  return { stdout: stdout.trim(), stderr, end };
}

describe('a cached engine', () => {
  test('comes back as it was built, here and in another process', async () => {
    const built = await build();
    const cached = await build();
    expect([built.fromCache, cached.fromCache]).toEqual([false, true]);
    expect(cached.manifest).toEqual(built.manifest);
    expect(await cached.inspect()).toEqual(await built.inspect());
    expect(Buffer.compare(cached.plan(), built.plan())).toBe(0);
    const other = await child('e.fromCache, e.id').ended;
    expect(other).toMatchObject({ stdout: `true ${built.id}`, stderr: '', end: 0 });
    expect(await remains()).toEqual([]);
  });

  test('is found by its bytes under any file name, and the manifest has that name', async () => {
    await build({ lineage: { run: 7 } });
    const copy = path.join(directory, 'copy.onnx');
    await copyFile(linear, copy);
    const parent = 'a'.repeat(64);
    const renamed = await build({ parent, lineage: { run: 8 } }, copy);
    expect(renamed.fromCache).toBe(true);
    expect(renamed.manifest).toMatchObject({ model: { name: 'copy.onnx' }, parent, lineage: { run: 8 } });
    const bytes = await build({}, new Uint8Array(await readFile(linear)));
    expect(bytes.fromCache).toBe(true);
    expect(bytes.manifest.model.name).toBeUndefined();
    expect(bytes.manifest.lineage).toBeUndefined();
    // The entry is an engine file like any other.
    const file = path.join(directory, 'renamed.engine');
    await renamed.save(file);
    expect((await Engine.load(file)).manifest).toEqual(renamed.manifest);
    expect((await entries()).length).toBe(1);
  });

  test.each<[string, BuildOptions]>([
    ['another target', { target: 'sm_86' }],
    ['another precision', { precision: 'fp32' }],
    ['other shapes', { shapes: { x: { min: [1, 4], opt: [2, 4], max: [9, 4] } } }],
    ['no shapes', { shapes: undefined }],
    ['another option', { optimizationLevel: 1 }],
    ['nodes in FP32', { keepFp32: ['MatMul'] }],
  ])('is not taken for %s', async (_, options) => {
    await build();
    expect((await build(options)).fromCache).toBe(false);
    expect((await build(options)).fromCache).toBe(true);
    expect((await build()).fromCache).toBe(true);
  });

  test('is not taken for other weights of the same size and time, in the file or beside it', async () => {
    const folder = path.join(directory, 'weights');
    await mkdir(folder);
    const names = (await readdir(path.dirname(linear))).filter((name) => name.startsWith('external'));
    for (const name of names) await copyFile(fixture(name), path.join(folder, name));
    const model = path.join(folder, 'external.onnx');
    const options = { shapes: undefined };
    expect((await build(options, model)).fromCache).toBe(false);
    // Wait until the file is old enough for its hash to be remembered.
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect((await build(options, model)).fromCache).toBe(true);
    const data = path.join(folder, names.find((name) => !name.endsWith('.onnx'))!);
    const { atime, mtime } = await stat(data);
    const bytes = await readFile(data);
    bytes[1]! ^= 1;
    await writeFile(data, bytes);
    await utimes(data, atime, mtime);
    expect((await build(options, model)).fromCache).toBe(false);
    expect((await build(options, model)).fromCache).toBe(true);
  });

  test('is not taken for FP16 without measured ranges once ONNX Runtime is there to measure them', async () => {
    const source = 'e.manifest.cast.ranges.source';
    const without = await child(source, '{}', { NODE_TENSORRT_ONNXRUNTIME: '/nowhere' }).ended;
    expect(without).toMatchObject({ stdout: 'none', end: 0 });
    const measured = await build();
    expect([measured.fromCache, measured.manifest.cast?.ranges.source]).toEqual([false, 'random']);
    expect((await build()).fromCache).toBe(true);
  });

  test('is not made for a model that changed while it was compiled', async () => {
    const model = path.join(directory, 'changing.onnx');
    await copyFile(linear, model);
    const producer = Buffer.from([0x12, 1, 0x78]); // producer_name: 'x'
    const onProgress: BuildOptions['onProgress'] = ({ phase, step }) => {
      if (phase === 'Preparing model' && step === 1) appendFileSync(model, producer);
    };
    await expect(build({ onProgress }, model)).rejects.toMatchObject({
      code: 'ERR_IO',
      message: `The model ${model} changed while it was compiled. Build it again.`,
    });
    expect(await entries()).toEqual([]);
    expect((await build({}, model)).fromCache).toBe(false);
    expect((await build({}, model)).manifest.model.producer).toBe('x');
  });

  test("isn't written when the cache is off", async () => {
    await build({ cache: false });
    await expect(readdir(cache)).rejects.toThrow('ENOENT');
  });
});

describe('a damaged entry', () => {
  test.each<[string, (bytes: Buffer) => Uint8Array]>([
    ['with a flipped bit', (bytes) => bytes.fill(bytes.at(-100)! ^ 1, bytes.length - 100, bytes.length - 99)],
    ['cut short', (bytes) => bytes.subarray(0, bytes.length / 2)],
    ['empty', () => Buffer.alloc(0)],
    ['of text', () => Buffer.from('engine')],
    ['of another version', (bytes) => bytes.fill(9, 8, 9)],
  ])('%s is built anew', async (_, damage) => {
    const { id } = await build();
    const file = path.join(cache, (await entries())[0]!);
    await writeFile(file, damage(await readFile(file)));
    const rebuilt = await build();
    expect(rebuilt.fromCache).toBe(false);
    expect((await Engine.load(file)).id).toBe(rebuilt.id);
    expect(rebuilt.id).not.toBe(id); // its build time differs
    expect((await build()).fromCache).toBe(true);
  });
});

describe('several builders', () => {
  test('processes at once build a model once', async () => {
    const results = await Promise.all(Array.from({ length: 3 }, () => child('e.fromCache, e.id').ended));
    const ids = new Set(results.map(({ stdout }) => stdout.split(' ')[1]));
    expect(ids.size).toBe(1);
    expect(results.map(({ stdout }) => stdout.split(' ')[0]).sort()).toEqual(['false', 'true', 'true']);
    expect(await remains()).toEqual([]);
  });

  test('so do calls in one process', async () => {
    const engines = await Promise.all(Array.from({ length: 3 }, () => build()));
    expect(engines.map(({ fromCache }) => fromCache).sort()).toEqual([false, true, true]);
  });

  test('a waiting build reports it, and stops waiting when its signal is aborted', async () => {
    // Holds the key until it is killed.
    const forever = 'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)';
    const other = child('', `{ onProgress: () => { console.log('building'); ${forever}; } }`);
    await once(other.process.stdout, 'data');
    const controller = new AbortController();
    const reason = new Error('enough');
    const phases: string[] = [];
    const waiting = build({
      signal: controller.signal,
      onProgress: ({ phase }) => {
        phases.push(phase);
        setTimeout(() => controller.abort(reason), 50);
      },
    });
    await expect(waiting).rejects.toBe(reason);
    expect(phases).toEqual(['Waiting for another build']);
    // The next builder needn't know that the holder was killed.
    const next = build();
    other.process.kill('SIGKILL');
    expect((await next).fromCache).toBe(false);
    await other.ended;
    expect(await remains()).toEqual([]);
  });

  test('a worker that is terminated while it builds leaves its turn to the next', async () => {
    const script = `
      const { buildEngine } = require('node-tensorrt');
      const { parentPort, workerData } = require('node:worker_threads');
      const onProgress = () => parentPort.postMessage('building');
      buildEngine(workerData.linear, { target: 'sm_89', ...workerData.options, onProgress });`;
    const workerData = { linear, options: { shapes, cache } };
    const worker = new Worker(script, { eval: true, workerData });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await worker.terminate();
    expect((await build()).fromCache).toBe(false);
    expect(await remains()).toEqual([]);
  });

  test('a build that fails leaves its turn to the next', async () => {
    const wrong = { shapes: { y: [1] } };
    const failed = await Promise.allSettled([build(wrong), build(wrong)]);
    expect(failed.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(await remains()).toEqual([]);
  });
});

test('builders killed at any moment leave a cache that works', async () => {
  const began = performance.now();
  await child().ended;
  const whole = performance.now() - began;
  for (let i = 0; i < 24; i++) {
    await rm(cache, { recursive: true, force: true });
    const { process: spawned, ended } = child();
    await new Promise((resolve) => setTimeout(resolve, (whole * (i + Math.random())) / 24));
    spawned.kill('SIGKILL');
    await ended;
    const kept = await entries().catch(() => [] as string[]);
    for (const name of kept)
      await expect(Engine.load(path.join(cache, name))).resolves.toBeInstanceOf(Engine);
    if (i % 4 > 0) continue;
    const engine = await build();
    expect(engine.fromCache).toBe(kept.length > 0);
    expect((await build()).fromCache).toBe(true);
  }
}, 120_000);

test('the next build removes what killed builders left behind', async () => {
  await build();
  const [entry] = await entries();
  const [own, foreign] = [entry!.slice(0, 64), 'b'.repeat(64)];
  for (const key of [own, foreign]) {
    await writeFile(path.join(cache, `.${key}.engine.x1y2.tmp`), 'half an engine');
    await writeFile(path.join(cache, `${key}.lock`), '');
  }
  await writeFile(path.join(cache, entry!), 'damaged');
  await build();
  expect(await remains()).toEqual([]);
});

describe('room', () => {
  test('the least recently used entries go first', async () => {
    const fill = async (name: string, bytes: number, daysAgo: number) => {
      const file = path.join(cache, `${name.repeat(64)}.engine`);
      await writeFile(file, '');
      await truncate(file, bytes); // takes no space on the disk
      const time = new Date(Date.now() - daysAgo * 864e5);
      await utimes(file, time, time);
    };
    await build();
    const [used] = await entries();
    await utimes(path.join(cache, used!), 0, 0);
    await fill('a', 8e9, 3);
    await fill('b', 8e9, 2);
    await fill('c', 8e9, 1);
    await build(); // updates its time of use
    await build({ precision: 'fp32' });
    const left = await entries();
    expect(left).toContain(used);
    expect(left.length).toBe(4);
    expect(
      left
        .filter((name) => /^(.)\1+\.engine$/.test(name))
        .map((name) => name[0])
        .sort(),
    ).toEqual(['b', 'c']);
  });

  test('an impossible folder, or a full disk, only causes a warning', async () => {
    await writeFile(cache, 'a file');
    const none = await child('e.fromCache').ended;
    expect(none).toMatchObject({
      stdout: 'false',
      end: 0,
      stderr: expect.stringMatching(
        /engine cache can't be used: .*\. Set options\.cache to another folder\./,
      ),
    });
    await rm(cache);
    // Files are limited to 4 kB here, as on a full disk; FP16 would need a temporary file for the model.
    const script = `
      process.on('SIGXFSZ', () => {});
      const { buildEngine } = require('node-tensorrt');
      buildEngine(process.argv[1], { target: 'sm_89', cache: process.argv[2], precision: 'fp32' })
        .then((e) => console.log(e.fromCache, e.byteLength > 4096));`;
    const args = ['-c', 'ulimit -f 8; exec "$0" -e "$1" "$2" "$3"', process.execPath, script, linear, cache];
    const full = await output(spawn('bash', args, { cwd: root }));
    expect(full).toMatchObject({
      stdout: 'false true',
      end: 0,
      stderr: expect.stringMatching(/engine cache/),
    });
    expect(await entries()).toEqual([]);
    expect(await remains()).toEqual([]);
  });
});
