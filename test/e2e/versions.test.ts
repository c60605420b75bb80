import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { Engine, LanguageModel } from '../../dist/index.js';

// Files across versions, as docs/versions.md promises: those of an earlier commit are read, those of a later format refused.
const root = path.resolve(import.meta.dirname, '../..');
const fixture = (name: string) => path.join(root, 'test/fixtures', name);
const folder = mkdtempSync(path.join(os.tmpdir(), 'versions-'));
afterAll(() => rmSync(folder, { recursive: true }));

const engineFile = fixture('versions/linear.engine');
const sequenceFile = fixture('versions/llama.sequence');

test('an engine of an earlier version loads, whole', async () => {
  const bytes = readFileSync(engineFile);
  using engine = await Engine.load(engineFile);
  const checksum = createHash('sha256')
    .update(bytes.subarray(0, 40))
    .update(bytes.subarray(72))
    .digest('hex');
  expect(engine.id).toBe(checksum);
  expect(engine.manifest).toMatchObject({
    builder: '0.1.0',
    library: { flavour: 'rtx', version: '1.7.1' },
    targets: ['sm_89'],
    precision: 'fp16',
    model: {
      sha256: createHash('sha256')
        .update(readFileSync(fixture('session/linear.onnx')))
        .digest('hex'),
    },
  });
  expect(engine.inputs).toEqual([
    { name: 'x', type: 'float32', dims: [-1, 4], profiles: [{ min: [1, 4], opt: [2, 4], max: [8, 4] }] },
  ]);
  expect((await engine.inspect()).map(({ type }) => type)).toContain('MATRIX_MULTIPLY');
  // The plan is the end of the file.
  const plan = Buffer.from(engine.plan());
  expect(plan.equals(bytes.subarray(bytes.length - plan.length))).toBe(true);
});

test('an engine of a later format is refused', async () => {
  const bytes = readFileSync(engineFile);
  bytes.writeUInt32LE(2, 8);
  await expect(Engine.load(bytes)).rejects.toMatchObject({
    code: 'ERR_ENGINE_INCOMPATIBLE',
    message: expect.stringMatching(/version 2/),
  });
});

test('a sequence of an earlier version is restored, and answers as it did then', async () => {
  const model = await LanguageModel.load(fixture('decoders/llama/optimum'), {
    device: 'cpu',
    kvCache: { maxLength: 64, maxBatchSize: 2 },
  });
  const sequence = await model.restoreSequence(sequenceFile);
  expect(sequence.tokens).toEqual([5, 6, 7, 8, 9]);
  const before = model.stats().tokens.prefilled;
  const { tokens } = await sequence.generate({ maxTokens: 6, temperature: 0, ignoreEos: true });
  expect(tokens).toEqual([105, 183, 118, 266, 218, 167]);
  // Nothing but the last token, whose logits aren't saved, is computed again.
  expect(model.stats().tokens.prefilled - before).toBeLessThanOrEqual(1);
  const later = readFileSync(sequenceFile);
  later.writeUInt32LE(2, 8);
  await expect(model.restoreSequence(later)).rejects.toMatchObject({
    code: 'ERR_STATE_MISMATCH',
    message: expect.stringMatching(/version 2/),
  });
  await model.dispose();
});

test('engines in the cache are those of one version; saved ones go from one to the next', () => {
  const build = (version: string) => {
    const script = `
      require('./package.json').version = ${JSON.stringify(version)};
      const { buildEngine, Engine } = require('./dist/index.js');
      const cache = ${JSON.stringify(path.join(folder, 'cache'))};
      const file = ${JSON.stringify(path.join(folder, 'saved.engine'))};
      (async () => {
        const engine = await buildEngine('test/fixtures/session/linear.onnx', { target: 'sm_89', cache });
        const { builder } = await Engine.load(file).then(({ manifest }) => manifest, () => ({}));
        await engine.save(file);
        console.log(JSON.stringify({ fromCache: engine.fromCache, built: engine.manifest.builder, before: builder }));
      })();`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { cwd: root, encoding: 'utf8' });
    expect(stderr).toBe('');
    return JSON.parse(stdout);
  };
  expect(build('0.1.0')).toEqual({ fromCache: false, built: '0.1.0' });
  expect(build('0.1.0')).toEqual({ fromCache: true, built: '0.1.0', before: '0.1.0' });
  expect(build('0.2.0')).toEqual({ fromCache: false, built: '0.2.0', before: '0.1.0' });
  expect(build('0.1.0')).toEqual({ fromCache: true, built: '0.1.0', before: '0.2.0' });
});
