import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFile,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { buildEngine, Engine, InferenceSession, TensorRTError } from 'node-tensorrt';
import { castToFloat16, readModel, serializeModel } from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../../dist/system/native.js';

const model = path.join(import.meta.dirname, '../../fixtures/session/linear.onnx');
const withCode = (code: string) => expect.objectContaining({ code });

let directory: string;
let engine: Engine;
let file: string;
let bytes: Buffer;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'engine-'));
  engine = await buildEngine(model, {
    target: 'sm_89',
    shapes: { x: { min: [1, 4], opt: [2, 4], max: [8, 4] } },
  });
  file = path.join(directory, 'linear.engine');
  await engine.save(file);
  bytes = await readFile(file);
});
afterAll(() => rm(directory, { recursive: true }));

/** An engine file with this manifest and a correct checksum. */
function forge(manifest: string): Buffer {
  const plan = Buffer.from(engine.plan());
  const parts = [Buffer.from(manifest), Buffer.from('[]'), plan];
  const header = Buffer.alloc(72);
  bytes.copy(header, 0, 0, 16);
  parts.forEach((part, i) => {
    header.writeBigUInt64LE(BigInt(part.length), 16 + 8 * i);
  });
  const hash = createHash('sha256').update(header.subarray(0, 40));
  for (const part of parts) hash.update(part);
  hash.digest().copy(header, 40);
  return Buffer.concat([header, ...parts]);
}

test('cloning an engine is refused', () => {
  expect(() => structuredClone(engine)).toThrow(expect.objectContaining({ name: 'DataCloneError' }));
});

test("the manifest names the given model's weights that a weight of the plan was made from", async () => {
  expect(engine.manifest.weights).toEqual([{ weight: 'w__fp16', from: ['w'], changes: ['cast'] }]);
  const options = { target: 'sm_89', shapes: { x: [2, 4] } } as const;
  using exported = await buildEngine(model, { ...options, precision: 'as-exported' });
  expect(exported.manifest.weights).toBeUndefined();
  // Another model, with weights in FP16.
  const mixed = serializeModel(castToFloat16(await readModel(model)).model);
  using again = await buildEngine(mixed, options);
  expect(again.manifest.weights).toEqual([]);
});

test('models in any kind of memory are built; transferred ones are refused by name', async () => {
  const onnx = await readFile(model);
  const shared = new SharedArrayBuffer(onnx.length);
  new Uint8Array(shared).set(onnx);
  const options = { target: 'sm_89', shapes: { x: [2, 4] }, precision: 'fp32' } as const;
  for (const source of [Uint8Array.from(onnx).buffer, shared]) {
    using built = await buildEngine(source, options);
    expect(built.inputs.map(({ name, dims }) => [name, dims])).toEqual([['x', [-1, 4]]]);
  }
  const bytes = Uint8Array.from(onnx);
  const building = Promise.allSettled([
    buildEngine(bytes, options),
    buildEngine(bytes, { ...options, cache: false }),
  ]);
  structuredClone(bytes, { transfer: [bytes.buffer] });
  const detached = expect.objectContaining({
    code: 'ERR_INVALID_ARG_VALUE',
    message: expect.stringMatching(/^model is detached/),
  });
  expect(await building).toEqual(Array(2).fill({ status: 'rejected', reason: detached }));
  await expect(buildEngine(bytes, options)).rejects.toEqual(detached);
  await expect(buildEngine(bytes.buffer, options)).rejects.toEqual(detached);
  await expect(Engine.load(bytes)).rejects.toThrow(/^file is detached/);
  await expect(buildEngine(new DataView(new ArrayBuffer(4)) as never, options)).rejects.toEqual(
    withCode('ERR_INVALID_ARG_TYPE'),
  );
});

describe('a saved engine', () => {
  test('comes back as it was, from its file and from its bytes', async () => {
    const shared = new SharedArrayBuffer(bytes.length);
    new Uint8Array(shared).set(bytes);
    for (const source of [file, new Uint8Array(bytes), new Uint8Array(bytes).buffer, shared]) {
      using loaded = await Engine.load(source);
      expect(loaded.manifest).toEqual(engine.manifest);
      expect(loaded.inputs).toEqual(engine.inputs);
      expect(loaded.outputs).toEqual(engine.outputs);
      expect(await loaded.inspect()).toEqual(await engine.inspect());
      expect(Buffer.compare(loaded.plan(), engine.plan())).toBe(0);
      expect(loaded.byteLength).toBe(bytes.length);
      expect(loaded.id).toBe(engine.id);
    }
  });

  test('has its SHA-256 as id, whether it is read before, during or after saving', async () => {
    const layers = await engine.inspect();
    const plan = new Uint8Array(5_000_000).map((_, i) => i % 251);
    // Assembled as in a build.
    const { assemble } = Engine as unknown as Record<'assemble', (...parts: unknown[]) => Engine>;
    const [first, meanwhile, after] = Array.from({ length: 3 }, () =>
      assemble!(engine.manifest, layers, new (native().NativeBytes)(plan)),
    );
    const ids = [first!.id];
    const saved = meanwhile!.save(`${file}.sealed`);
    await nextTurn();
    ids.push(meanwhile!.id);
    await saved;
    await Promise.all([first!, after!, after!].map((each, i) => each.save(`${file}.sealed-${i}`)));
    ids.push(after!.id);
    const content = await readFile(`${file}.sealed`);
    for (let i = 0; i < 3; i++) expect(content.equals(await readFile(`${file}.sealed-${i}`))).toBe(true);
    const hash = createHash('sha256').update(content.subarray(0, 40)).update(content.subarray(72));
    expect(ids).toEqual(Array(3).fill(hash.digest('hex')));
  });

  test('a lineage of the greatest depth comes back; a deeper one is refused when building', async () => {
    const nested = (depth: number): Record<string, unknown> =>
      depth === 1 ? { end: true } : { a: nested(depth - 1) };
    const build = (lineage: Record<string, unknown>) => buildEngine(model, { target: 'sm_89', lineage });
    const deepest = await build(nested(63));
    await deepest.save(`${file}.deep`);
    expect((await Engine.load(`${file}.deep`)).manifest.lineage).toEqual(nested(63));
    for (const depth of [64, 5_000]) {
      await expect(build(nested(depth))).rejects.toEqual(
        expect.objectContaining({
          code: 'ERR_INVALID_ARG_VALUE',
          message: expect.stringMatching(/options\.lineage/),
        }),
      );
    }
  });

  test('gives its bare plan as bytes and as a file', async () => {
    for (const each of [engine, await Engine.load(file), await Engine.load(bytes)]) {
      const plan = path.join(directory, 'bare.plan');
      await each.savePlan(plan);
      expect(Buffer.compare(each.plan(), bytes.subarray(bytes.length - each.plan().length))).toBe(0);
      expect(Buffer.compare(await readFile(plan), each.plan())).toBe(0);
      await rm(plan);
    }
  });

  test('describes its contents', () => {
    expect(engine.inputs).toEqual([
      { name: 'x', type: 'float32', dims: [-1, 4], profiles: [{ min: [1, 4], opt: [2, 4], max: [8, 4] }] },
    ]);
    expect(engine.manifest).toMatchObject({
      library: { flavour: 'rtx', version: expect.stringMatching(/^1\.\d+\.\d+$/) },
      targets: ['sm_89'],
      precision: 'fp16',
      model: { name: 'linear.onnx' },
    });
    const sum = execFileSync('sha256sum', [model], { encoding: 'utf8' }).split(' ')[0];
    expect(engine.manifest.model.sha256).toBe(sum);
  });

  test('holds layers by their TensorRT names', async () => {
    expect((await engine.inspect()).map((layer) => layer.type)).toContain('MATRIX_MULTIPLY');
  });

  test("doesn't change when given or returned objects do", async () => {
    for (const given of [new Uint8Array(bytes), Buffer.from(bytes)]) {
      const loading = Engine.load(given);
      given.fill(0);
      const loaded = await loading;
      loaded.plan().fill(0);
      const layers = await loaded.inspect();
      layers.length = 0;
      expect(Buffer.compare(loaded.plan(), engine.plan())).toBe(0);
      expect((await loaded.inspect()).length).toBeGreaterThan(0);
      await loaded.save(path.join(directory, 'again.engine'));
      expect(await readFile(path.join(directory, 'again.engine'))).toEqual(bytes);
    }
  });

  test('stays usable if its file is replaced or removed, and is refused if the file is written to', async () => {
    const place = path.join(directory, 'changing.engine');
    const copy = path.join(directory, 'copy.engine');
    const load = async () => {
      await copyFile(file, place);
      return Engine.load(place);
    };
    const replaced = await load();
    await (await buildEngine(model, { target: 'sm_120' })).save(place);
    await replaced.save(copy);
    expect(await readFile(copy)).toEqual(bytes);
    const removed = await load();
    await rm(place);
    await removed.save(copy);
    expect(await readFile(copy)).toEqual(bytes);
    const changes = [
      () => truncate(place, 100),
      () => truncate(place, bytes.length + 1),
      async () => {
        const opened = await open(place, 'r+');
        await opened.write('?', bytes.length - 1);
        await opened.close();
      },
    ];
    for (const change of changes) {
      const loaded = await load();
      await change();
      await expect(loaded.save(copy)).rejects.toThrow(
        expect.objectContaining({
          code: 'ERR_IO',
          message: expect.stringMatching(/changing\.engine was changed after it was loaded/),
        }),
      );
    }
    expect(await readFile(copy)).toEqual(bytes);
  });

  test("is refused by a session that can't run it, with the reason", async () => {
    await expect(InferenceSession.create(engine)).rejects.toThrow(withCode('ERR_NO_GPU'));
    await expect(InferenceSession.create(file)).rejects.toThrow(/is an engine, not an ONNX model/);
  });
});

describe('a damaged engine file', () => {
  test('every truncation is refused', async () => {
    const lengths = [
      ...Array(200).keys(),
      ...Array.from({ length: 100 }, (_, i) => Math.floor((bytes.length * i) / 100)),
    ];
    for (const length of lengths) {
      await expect(Engine.load(bytes.subarray(0, length))).rejects.toThrow(withCode('ERR_ENGINE_CORRUPT'));
    }
  });

  test('every flipped bit is found, in the header and anywhere else', async () => {
    const places = [
      ...Array(1000).keys(),
      ...Array.from({ length: 200 }, (_, i) => Math.floor((bytes.length * i) / 200)),
    ];
    for (const place of places) {
      const flipped = Uint8Array.from(bytes);
      flipped[place]! ^= 1 << (place % 8);
      const error = await Engine.load(flipped).catch((reason) => reason);
      expect(error).toBeInstanceOf(TensorRTError);
      // Bytes 8 to 11 are the version, so changing one yields another version.
      expect(error.code).toBe(place >= 8 && place < 12 ? 'ERR_ENGINE_INCOMPATIBLE' : 'ERR_ENGINE_CORRUPT');
    }
  });

  test('bytes after its end, text, an ONNX model, nothing', async () => {
    const longer = Buffer.concat([bytes, Buffer.of(0)]);
    for (const other of [longer, Buffer.from('text'), await readFile(model), Buffer.alloc(0)]) {
      await expect(Engine.load(other)).rejects.toThrow(withCode('ERR_ENGINE_CORRUPT'));
    }
  });

  test('a correct checksum over a wrong manifest', async () => {
    const good = JSON.stringify(engine.manifest);
    await expect(Engine.load(forge(good))).resolves.toBeInstanceOf(Engine);
    const changed = (change: object) => JSON.stringify({ ...engine.manifest, ...change });
    const range = { min: [1, 4], opt: [2, 4], max: [8, 4] };
    const bads = [
      '{}',
      'null',
      '[',
      good.replace('"float32"', '7'),
      good.replace('[-1,4]', '["a"]'),
      good.replace('[-1,4]', '[1e300,4]'),
      good.replace('[-1,4]', '[-2,4]'),
      good.replace('"float32"', '"__proto__"'),
      changed({ cast: 7 }),
      changed({ cast: { float16: {}, ranges: {} } }),
      changed({ parent: '../../etc/passwd' }),
      changed({ lineage: [] }),
      changed({ weights: {} }),
      changed({ weights: [{ weight: 'w', from: ['w'] }] }),
      changed({ weights: [{ weight: 7, from: ['w'], changes: ['cast'] }] }),
      changed({ profiles: [{ x: { ...range, max: [8] } }] }),
      changed({ profiles: [{ x: { ...range, min: [-1, 4] } }] }),
      changed({ model: { ...engine.manifest.model, name: 7 } }),
    ];
    for (const bad of bads) {
      await expect(Engine.load(forge(bad))).rejects.toThrow(withCode('ERR_ENGINE_CORRUPT'));
    }
  });

  test('an older manifest, without the origins of weights, is accepted', async () => {
    const { weights, ...older } = engine.manifest;
    expect(weights).toBeDefined();
    expect((await Engine.load(forge(JSON.stringify(older)))).manifest.weights).toBeUndefined();
  });

  test('another format version is named as the reason', async () => {
    const other = Uint8Array.from(bytes);
    other[8] = 2;
    await expect(Engine.load(other)).rejects.toThrow(/version 2; .* reads version 1/);
  });
});

describe('a bare plan', () => {
  test('needs to be trusted, and has no description', async () => {
    const plan = engine.plan();
    await expect(Engine.load(plan)).rejects.toThrow(/trusted: true/);
    const bare = await Engine.load(plan, { trusted: true });
    expect(Buffer.compare(bare.plan(), plan)).toBe(0);
    expect(() => bare.manifest).toThrow(withCode('ERR_ENGINE_INCOMPATIBLE'));
    expect(() => bare.inputs).toThrow(withCode('ERR_ENGINE_INCOMPATIBLE'));
    await expect(bare.inspect()).rejects.toThrow(withCode('ERR_ENGINE_INCOMPATIBLE'));
  });
});

describe('life', () => {
  test("files that don't exist, or can't exist", async () => {
    await expect(Engine.load(path.join(directory, 'absent'))).rejects.toThrow(
      withCode('ERR_MODEL_NOT_FOUND'),
    );
    await expect(Engine.load(directory)).rejects.toThrow(withCode('ERR_IO'));
    await expect(engine.save(path.join(file, 'below'))).rejects.toThrow(withCode('ERR_IO'));
    await mkdir(path.join(directory, 'folder'));
    await expect(engine.save(path.join(directory, 'folder'))).rejects.toThrow(withCode('ERR_IO'));
    await writeFile(path.join(directory, 'folder/kept'), '');
    expect((await readdir(directory)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('a full disk loses nothing', () => {
    // A child process whose files are limited to 4 kB, so that the write fails halfway, as on a full disk.
    const code = `
process.on('SIGXFSZ', () => {});
const { Engine } = require('node-tensorrt');
Engine.load(process.argv[1]).then((engine) => engine.save(process.argv[2])).then(
  () => console.log('saved'), (error) => console.log(error.code));`;
    const target = path.join(directory, 'old.engine');
    const script = `cp "$2" "$3"; ulimit -f 8; exec "$0" -e "$1" "$2" "$3"`;
    const out = execFileSync('bash', ['-c', script, process.execPath, code, file, target], {
      encoding: 'utf8',
      cwd: import.meta.dirname,
    });
    expect(out.trim()).toBe('ERR_IO');
    expect(execFileSync('cmp', [file, target])).toBeDefined();
  });

  test('a link is followed, and a pipe is written to', async () => {
    const link = path.join(directory, 'link.engine');
    await symlink(file, link);
    await (await Engine.load(file)).save(link);
    expect((await lstat(link)).isSymbolicLink()).toBe(true);
    const pipe = path.join(directory, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const [read] = await Promise.all([readFile(pipe), engine.save(pipe)]);
    expect(read).toEqual(bytes);
    expect((await lstat(pipe)).isFIFO()).toBe(true);
  });

  test('its manifest does not change', () => {
    expect(() => (engine.manifest.targets as string[]).push('sm_1')).toThrow(TypeError);
  });

  test('refuses everything after dispose; disposing twice has no effect', async () => {
    const loaded = await Engine.load(file);
    loaded.dispose();
    loaded.dispose();
    expect(() => loaded.plan()).toThrow(withCode('ERR_DISPOSED'));
    expect(() => loaded.manifest).toThrow(withCode('ERR_DISPOSED'));
    await expect(loaded.save(file)).rejects.toThrow(withCode('ERR_DISPOSED'));
  });

  test('may be disposed while it is being saved, which continues', async () => {
    const saved = path.join(directory, 'disposed.engine');
    for (const each of [await Engine.load(file), await Engine.load(bytes)]) {
      const saving = each.save(saved);
      each.dispose();
      await saving;
      expect(await readFile(saved)).toEqual(bytes);
      await rm(saved);
    }
  });

  test('leaves no file open', async () => {
    const opened = () => readdir('/proc/self/fd').then((names) => names.length);
    const damaged = path.join(directory, 'damaged.engine');
    await writeFile(
      damaged,
      Uint8Array.from(bytes, (byte, i) => (i === bytes.length - 1 ? byte ^ 1 : byte)),
    );
    const before = await opened();
    for (let i = 0; i < 20; i++) {
      (await Engine.load(file)).dispose();
      await expect(Engine.load(damaged)).rejects.toThrow(withCode('ERR_ENGINE_CORRUPT'));
    }
    // The thread that hashed the last one closes the file a moment after it has answered.
    await expect.poll(opened).toBe(before);
  });

  test('wrong arguments', async () => {
    await expect(Engine.load(42 as never)).rejects.toThrow(withCode('ERR_INVALID_ARG_TYPE'));
    await expect(Engine.load(file, { trust: true } as never)).rejects.toThrow(/did you mean 'trusted'/);
    await expect(engine.save(undefined as never)).rejects.toThrow(withCode('ERR_INVALID_ARG_TYPE'));
    await expect(engine.savePlan(undefined as never)).rejects.toThrow(withCode('ERR_INVALID_ARG_TYPE'));
  });
});
