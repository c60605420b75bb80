import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';

// Behaviour that takes a separate process to test: how it ends at each step of a session's life.
const root = path.join(import.meta.dirname, '../..');
const prelude = `
  const { buildEngine, Engine, InferenceSession, LanguageModel, Tensor } = require('node-tensorrt');
  const model = ${JSON.stringify(path.join(root, 'test/fixtures/session/slow.onnx'))};
  const square = (n) => new Tensor('float32', new Float32Array(n * n).fill(0.001), [n, n]);
  const feeds = { x: square(512), v0: square(512) };
  const shapes = { x: [64, 64], v0: [64, 64] };
  const build = (at, then) => buildEngine(model, {
    target: 'sm_89', shapes, onProgress: ({ phase }) => { if (phase === at) then(); },
  });
  // An engine file of zeros, which takes seconds to hash and no space on the disk.
  const hashing = () => {
    const { mkdtempSync, rmSync, truncateSync, writeFileSync } = require('node:fs');
    const folder = mkdtempSync(require('node:path').join(require('node:os').tmpdir(), 'life-'));
    const head = Buffer.alloc(72);
    head.set([0x89, 0x4e, 0x54, 0x52, 0x54, 0x0d, 0x0a, 0x1a, 1]);
    head.writeBigUInt64LE(2n ** 33n, 32);
    writeFileSync(folder + '/zeros.engine', head);
    truncateSync(folder + '/zeros.engine', 72 + 2 ** 33);
    process.once('exit', () => rmSync(folder, { recursive: true }));
    return Engine.load(folder + '/zeros.engine');
  };
  const loadDecoder = () =>
    LanguageModel.load(${JSON.stringify(path.join(root, 'test/fixtures/decoders/llama/genai'))}, { device: 'cpu' });
  const answer = (m, prompt = [5, 6, 7]) => m.generate(prompt, { maxTokens: 400, ignoreEos: true });
`;

function run(body: string) {
  const script = `${prelude} (async () => { ${body} })()`;
  const child = spawnSync(process.execPath, ['--expose-gc', '-e', script], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status: child.status, signal: child.signal, stdout: child.stdout.trim(), stderr: child.stderr };
}

test.each([
  [
    'awaits a run',
    `const s = await InferenceSession.create(model); const r = await s.run(feeds); console.log(r.v64.dims.join());`,
    0,
    '512,512',
  ],
  ['leaves a session idle', `await InferenceSession.create(model); console.log('idle');`, 0, 'idle'],
  [
    'does not await a run',
    `const s = await InferenceSession.create(model); s.run(feeds).then(() => console.log('ran'));`,
    0,
    'ran',
  ],
  ['exits during a load', `InferenceSession.create(model); process.exit(3);`, 3, ''],
  [
    'exits during runs',
    `const s = await InferenceSession.create(model, { concurrency: 2 }); for (let i = 0; i < 8; i++) s.run(feeds); setTimeout(() => process.exit(5), 20);`,
    5,
    '',
  ],
  [
    'throws during a run',
    `const s = await InferenceSession.create(model); s.run(feeds); setTimeout(() => { throw new Error('boom'); }, 5);`,
    1,
    '',
  ],
  [
    'exits during a dispose',
    `const s = await InferenceSession.create(model); s.run(feeds); s.dispose(); process.exit(4);`,
    4,
    '',
  ],
  [
    'drops sessions to the collector',
    `for (let i = 0; i < 20; i++) await InferenceSession.create(model); gc(); await new Promise((r) => setTimeout(r, 50)); gc(); console.log('collected');`,
    0,
    'collected',
  ],
  ['exits while an engine file is hashed', `hashing(); setTimeout(() => process.exit(6), 100);`, 6, ''],
  [
    'throws while an engine file is hashed',
    `hashing(); setTimeout(() => { throw new Error('boom'); }, 100);`,
    1,
    '',
  ],
  [
    'awaits an answer',
    `const m = await loadDecoder(); const { tokens } = await answer(m); console.log(tokens.length);`,
    0,
    '400',
  ],
  [
    'leaves a model and a sequence idle',
    `const m = await loadDecoder(); const s = m.createSequence(); await s.append([5, 6, 7]); console.log('idle');`,
    0,
    'idle',
  ],
  [
    'does not await an answer',
    `const m = await loadDecoder(); answer(m).then(() => console.log('answered'));`,
    0,
    'answered',
  ],
  ['exits while a decoder is loaded', `loadDecoder(); setTimeout(() => process.exit(3), 100);`, 3, ''],
  [
    'exits during answers',
    `const m = await loadDecoder(); for (let i = 0; i < 20; i++) answer(m, [5, i]); setTimeout(() => process.exit(5), 10);`,
    5,
    '',
  ],
  [
    'throws during an answer',
    `const m = await loadDecoder(); answer(m); setTimeout(() => { throw new Error('boom'); }, 5);`,
    1,
    '',
  ],
  [
    'exits while a model is disposed of',
    `const m = await loadDecoder(); answer(m); m.dispose(); process.exit(4);`,
    4,
    '',
  ],
  [
    'drops models to the collector, with sequences and abandoned streams',
    `for (let i = 0; i < 8; i++) {
       const m = await loadDecoder();
       await m.createSequence().append([5, 6, 7]);
       for await (const _ of m.stream([5, 6], { maxTokens: 50, ignoreEos: true })) break;
     }
     const threads = () => require('node:fs').readdirSync('/proc/self/task').length;
     const before = threads();
     for (let i = 0; i < 100 && threads() > before - 8; i++) {
       gc();
       await new Promise((resolve) => setTimeout(resolve, 50));
     }
     console.log(threads() <= before - 8 ? 'collected' : \`\${threads()} threads of \${before}\`);`,
    0,
    'collected',
  ],
  [
    'drops sequences to the collector, while one generates',
    `const m = await loadDecoder();
     for (let i = 0; i < 15; i++) await m.createSequence().append([5, 6, i]);
     const generate = async () => {
       const sequence = m.createSequence();
       await sequence.append([5, 6, 7]);
       return sequence.generate({ maxTokens: 400, ignoreEos: true });
     };
     const collecting = setInterval(gc, 1);
     const { tokens } = await generate();
     for (let i = 0; i < 1000 && m.kvCache.used > 0; i++) await new Promise((r) => setTimeout(r, 10));
     clearInterval(collecting);
     console.log(tokens.length, m.kvCache.used);`,
    0,
    '400 0',
  ],
  ['awaits a build', `const e = await build(); console.log(e.inputs.length);`, 0, '2'],
  ['does not await a build', `build().then(() => console.log('built'));`, 0, 'built'],
  ['exits while a model is prepared', `build('Preparing model', () => process.exit(6));`, 6, ''],
  ['exits during a build', `build('Building engine', () => process.exit(7));`, 7, ''],
  ['exits during a build, from elsewhere', `build(); setTimeout(() => process.exit(8), 150);`, 8, ''],
  [
    'throws during a build',
    `build('Building engine', () => setImmediate(() => { throw new Error('boom'); }));`,
    1,
    '',
  ],
])('a process that %s ends cleanly', (_what, body, status, stdout) => {
  const child = run(body);
  expect({ status: child.status, signal: child.signal, stdout: child.stdout }, child.stderr).toEqual({
    status,
    signal: null,
    stdout,
  });
});

test('a process may exit at any moment of loads, runs and builds, and leaves nothing behind', async () => {
  const temporary = mkdtempSync(path.join(os.tmpdir(), 'life-'));
  const body = `${prelude}
    setTimeout(() => process.exit(9), Number(process.argv[1]));
    build();
    (async () => {
      for (;;) {
        const session = await InferenceSession.create(model, { concurrency: 2 });
        session.run(feeds);
        session.run(feeds).catch(() => {});
        session.dispose();
      }
    })();
    (async () => {
      for (;;) {
        const model = await loadDecoder();
        for (let i = 0; i < 20; i++) answer(model, [5, i]).catch(() => {});
        const sequence = model.createSequence();
        await sequence.append([5, 6, 7]);
        (await sequence.fork()).generate({ maxTokens: 400 }).catch(() => {});
        sequence.save().catch(() => {});
        await answer(model);
        model.dispose();
      }
    })();`;
  // Four at a time on fewer cores, so that their threads get in each other's way.
  const exits = (delay: number) =>
    new Promise((resolve) => {
      const env = { ...process.env, TMPDIR: temporary };
      const child = spawn(process.execPath, ['-e', body, String(delay)], {
        cwd: root,
        env,
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let stderr = '';
      child.stderr.on('data', (text) => {
        stderr += text;
      });
      child.on('close', (status, signal) => resolve(signal ? `${signal}: ${stderr}` : status));
    });
  for (let delay = 0; delay < 400; delay += 40) {
    const ends = await Promise.all([0, 10, 20, 30].map((more) => exits(delay + more)));
    expect(ends).toEqual([9, 9, 9, 9]);
  }
  expect(readdirSync(temporary)).toEqual([]);
  rmSync(temporary, { recursive: true });
}, 120_000);

test("the next build removes a killed process's temporary folders, but not a living one's", async () => {
  const temporary = mkdtempSync(path.join(os.tmpdir(), 'life-'));
  const start = (body: string) =>
    spawn(process.execPath, ['-e', `${prelude} ${body}`], {
      cwd: root,
      env: { ...process.env, TMPDIR: temporary },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  const built = async () => {
    const [status] = await once(start('build()'), 'close');
    expect(status).toBe(0);
    return readdirSync(temporary);
  };
  const forever = 'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)';
  const builder = start(`build('Building engine', () => { console.log('building'); ${forever}; })`);
  await once(builder.stdout, 'data');
  const inUse = readdirSync(temporary);
  expect(inUse.length).toBe(2); // the folder and its lock
  expect(await built()).toEqual(inUse);
  builder.kill('SIGKILL');
  await once(builder, 'close');
  expect(readdirSync(temporary)).toEqual(inUse);
  expect(await built()).toEqual([]);
  rmSync(temporary, { recursive: true });
}, 120_000);

test("processes that look for abandoned folders don't disturb those that make one, and leave nothing behind", async () => {
  const prefix = path.join(mkdtempSync(path.join(os.tmpdir(), 'life-')), 'made-');
  const body = `
    const { temporaryDirectory } = require('./dist/system/files/temporary-directory.js');
    const [, prefix, times, exitAfter] = process.argv;
    const make = async () => {
      for (let i = 0; i < Number(times); i++) await (await temporaryDirectory(prefix)).remove();
    };
    if (exitAfter) setTimeout(() => process.exit(0), Number(exitAfter));
    for (let i = 0; i < (exitAfter ? 4 : 1); i++) make();`;
  const make = async (times: number, exitAfter?: number) => {
    const args = ['-e', body, prefix, String(times), ...(exitAfter ? [String(exitAfter)] : [])];
    const [status] = await once(spawn(process.execPath, args, { cwd: root, stdio: 'inherit' }), 'close');
    return status;
  };
  expect(await Promise.all([1, 2, 3, 4].map(() => make(400)))).toEqual([0, 0, 0, 0]);
  for (let round = 0; round < 12; round++) {
    // It also ends while it looks for abandoned folders.
    const exits = [20, 25, 30, 35].map((exitAfter) => make(Infinity, exitAfter + (round % 5)));
    expect(await Promise.all(exits)).toEqual([0, 0, 0, 0]);
    expect(readdirSync(path.dirname(prefix))).toEqual([]);
  }
  rmSync(path.dirname(prefix), { recursive: true });
}, 120_000);

test('50 workers load, run and are terminated', async () => {
  const script = `${prelude}
    const { parentPort } = require('node:worker_threads');
    (async () => {
      const s = await InferenceSession.create(model, { threads: 1 });
      await s.run({ x: square(8), v0: square(8) });
      for (let i = 0; i < 3; i++) s.run(feeds);
      parentPort.postMessage('running');
    })();`;
  for (let batch = 0; batch < 10; batch++) {
    const codes = await Promise.all(
      Array.from({ length: 5 }, async () => {
        const worker = new Worker(script, { eval: true });
        await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
        return worker.terminate();
      }),
    );
    expect(codes).toEqual([1, 1, 1, 1, 1]);
  }
}, 120_000);

test('workers are terminated while they build, and leave nothing behind', async () => {
  const temporary = mkdtempSync(path.join(os.tmpdir(), 'life-'));
  const script = `${prelude}
    const { parentPort } = require('node:worker_threads');
    build('Building engine', () => parentPort.postMessage('building'));`;
  for (let i = 0; i < 5; i++) {
    const worker = new Worker(script, { eval: true, env: { ...process.env, TMPDIR: temporary } });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    expect(await worker.terminate()).toBe(1);
    expect(readdirSync(temporary)).toEqual([]);
  }
  rmSync(temporary, { recursive: true });
}, 120_000);

test('a worker is terminated while an engine file is hashed', async () => {
  const temporary = mkdtempSync(path.join(os.tmpdir(), 'life-'));
  const script = `${prelude}
    const { parentPort } = require('node:worker_threads');
    hashing();
    setTimeout(() => parentPort.postMessage('hashing'), 100);`;
  const worker = new Worker(script, { eval: true, env: { ...process.env, TMPDIR: temporary } });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  expect(await worker.terminate()).toBe(1);
  rmSync(temporary, { recursive: true });
});

test('importing opens no library', () => {
  const child = run(
    `console.log(/\\.node|libonnxruntime|libcuda|nvinfer|tensorrt_rtx/.test(require('node:fs').readFileSync('/proc/self/maps', 'utf8')));`,
  );
  expect(child.stdout).toBe('false');
});

test('arguments are read before a call returns: what the caller does with them afterwards changes nothing', () => {
  const { stdout, stderr } = run(`
    const onCpu = { device: 'cpu' };
    const creating = InferenceSession.create(model, onCpu);
    const loading = LanguageModel.load('test/fixtures/decoders/llama/genai', onCpu);
    onCpu.device = 'elsewhere';
    const lineage = { run: 7 };
    const ahead = { target: 'sm_89', shapes, lineage };
    const building = buildEngine(model, ahead);
    lineage.run = 8;
    ahead.target = 'sm_86';
    const { targets, lineage: recorded } = (await building).manifest;
    console.log((await creating).device, (await loading).device, targets.join(), recorded.run);
    process.exit();`);
  expect({ stdout, stderr }).toEqual({ stdout: 'cpu cpu sm_89 7', stderr: '' });
});

test('importing loads no file that only creating, loading or building needs', () => {
  const child = run(`
    const files = Object.keys(require.cache).filter((file) => file.includes('/dist/'));
    const late = /create-session|open-language-model|place-decoder|build-engine-on|build-options|session-options|prepare-model/;
    console.log(files.some((file) => /session\\/session\\.js$/.test(file)), files.filter((file) => late.test(file)).join());`);
  expect(child).toMatchObject({ stdout: 'true', stderr: '' });
});

describe('after the working directory was removed', () => {
  const gone = (remember: boolean) => `
    const fs = require('node:fs');
    const folder = fs.mkdtempSync(require('node:path').join(require('node:os').tmpdir(), 'gone-'));
    process.chdir(folder);
    ${remember ? 'process.cwd();' : ''}
    fs.rmdirSync(folder);`;

  test.each([true, false])('absolute paths work; working directory known before: %s', (remember) => {
    const { stdout, stderr, status } = run(`${gone(remember)}
      const s = await InferenceSession.create(model, { device: 'cpu' });
      console.log((await s.run({ x: square(8), v0: square(8) })).v64.dims.join());
      const fp16 = await InferenceSession.create(model, { device: 'cpu', precision: 'fp16' });
      console.log(fp16.outputNames.join());
      console.log((await buildEngine(model, { target: 'sm_89', shapes })).manifest.targets.join());
      const m = await loadDecoder();
      console.log((await m.generate([5, 6, 7], { maxTokens: 3, ignoreEos: true })).tokens.length);
      const of = (promise) => promise.catch(({ name, code }) => console.log(name, code));
      await of(InferenceSession.create('slow.onnx', { device: 'cpu' }));
      await of(buildEngine('slow.onnx', { target: 'sm_89' }));
      await of(LanguageModel.load('llama'));
      await Promise.all([s, fp16, m].map((each) => each.dispose()));`);
    expect(stderr).toBe('');
    const missing = 'TensorRTError ERR_MODEL_NOT_FOUND';
    expect(stdout.split('\n')).toEqual(['8,8', 'v64', 'sm_89', '3', missing, missing, missing]);
    expect(status).toBe(0);
  });

  test('commands work', () => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'gone-'));
    const linear = path.join(root, 'test/fixtures/session/linear.onnx');
    const main = path.join(root, 'dist/apps/cli/main.js');
    const command = `rmdir "$PWD"; exec node ${main}`;
    const inGone = (args: string) =>
      spawnSync('sh', ['-c', `${command} ${args}`], { cwd: folder, encoding: 'utf8' });
    for (const args of ['doctor', `inspect ${linear}`, `run ${linear} --input x=random:2x4 --device cpu`]) {
      mkdirSync(folder, { recursive: true });
      const { status, stderr } = inGone(args);
      expect(stderr).toBe('');
      expect(status).toBe(0);
    }
    mkdirSync(folder, { recursive: true });
    expect(inGone('run linear.onnx')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^error: ERR_MODEL_NOT_FOUND: .*linear\.onnx/),
    });
  });
});
