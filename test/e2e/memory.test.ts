import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { expect, test } from 'vitest';

const root = path.join(import.meta.dirname, '../..');

/** Resident set after a warm-up and after the work, MiB, of a process that does nothing else. */
function residentSet(body: string): { warm: number; after: number } {
  const script = `
    const { InferenceSession, Tensor } = require('node-tensorrt');
    const fixture = (name) => ${JSON.stringify(path.join(root, 'test/fixtures/session/'))} + name;
    const ones = (...dims) => new Tensor('float32', new Float32Array(dims[0] * dims[1]).fill(1), dims);
    const settle = async () => { await new Promise((r) => setTimeout(r, 100)); gc(); gc(); };
    const rss = async () => { await settle(); return process.memoryUsage.rss() / 2 ** 20; };
    (async () => {
      ${body}
      await work(3); const warm = await rss();
      await work(5); const after = await rss();
      console.log(JSON.stringify({ warm, after }));
    })();`;
  const child = spawnSync(process.execPath, ['--expose-gc', '-e', script], { cwd: root, encoding: 'utf8' });
  expect(child.stderr).toBe('');
  return JSON.parse(child.stdout);
}

test('10,000 runs leave no memory behind', () => {
  const { warm, after } = residentSet(`
    const session = await InferenceSession.create(fixture('linear.onnx'));
    const small = ones(64, 4), large = ones(40_000, 4), native = Tensor.allocate('float32', [64, 4]);
    const work = async (times) => {
      for (let i = 0; i < 2_000 * times; i++) {
        const x = i % 10 === 0 ? large : i % 3 === 0 ? native : small;
        await (i % 100 === 0 ? session.run({ x: 1 }).catch(() => {}) : session.run({ x }));
        // How much garbage piles up in between, and so how far the heap grows, would depend on the machine's load.
        if (i % 20 === 0) gc();
      }
    };`);
  expect(after / warm).toBeLessThan(1.05);
});

test('400 sessions, created and disposed, leave no memory behind', () => {
  const { warm, after } = residentSet(`
    const feeds = { x: ones(64, 64), v0: ones(64, 64) };
    const work = async (times) => {
      for (let i = 0; i < 80 * times; i++) {
        const session = await InferenceSession.create(fixture('slow.onnx'), { concurrency: 2 });
        await session.run(feeds);
        await session.dispose();
        await InferenceSession.create(fixture('sequence.onnx')).catch(() => {});
      }
    };`);
  expect(after / warm).toBeLessThan(1.05);
});
