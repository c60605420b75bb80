import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { expect, test } from 'vitest';

const root = path.join(import.meta.dirname, '../..');

/** Windows of equal work, after work that warms up. */
const windows = 10;

/** Alone they take a few seconds; how many where others keep the cores busy is not what they are about. */
const limits = { timeout: 300_000 };

/**
 * MiB by which the resident set grows in a window, the median of all: what leaks does so in every one, while an allocator
 * that takes another block, or gives one back, does it in a few. `body` declares `work(times)`, which runs in a process
 * that does nothing else.
 */
function growth(body: string, warmUp: number, times: number): { median: number; resident: number[] } {
  const script = `
    const { InferenceSession, Tensor } = require('node-tensorrt');
    const fixture = (name) => ${JSON.stringify(path.join(root, 'test/fixtures/session/'))} + name;
    const ones = (...dims) => new Tensor('float32', new Float32Array(dims[0] * dims[1]).fill(1), dims);
    const settle = async () => { await new Promise((r) => setTimeout(r, 100)); gc(); gc(); };
    const rss = async () => { await settle(); return process.memoryUsage.rss() / 2 ** 20; };
    (async () => {
      ${body}
      await work(${warmUp});
      const resident = [await rss()];
      for (let i = 0; i < ${windows}; i++) {
        await work(${times});
        resident.push(await rss());
      }
      console.log(JSON.stringify(resident));
    })();`;
  const child = spawnSync(process.execPath, ['--expose-gc', '-e', script], {
    cwd: root,
    encoding: 'utf8',
    // Which thread allocates from which arena is chance, and so is how full they are.
    env: { ...process.env, MALLOC_ARENA_MAX: '1' },
  });
  expect(child.stderr).toBe('');
  const resident: number[] = JSON.parse(child.stdout);
  const grown = resident.slice(1).map((value, i) => value - resident[i]!);
  grown.sort((a, b) => a - b);
  return { median: (grown[windows / 2 - 1]! + grown[windows / 2]!) / 2, resident };
}

test('10,000 runs leave no memory behind', limits, () => {
  const { median, resident } = growth(
    `
    const session = await InferenceSession.create(fixture('linear.onnx'), { threads: 1 });
    const small = ones(64, 4), large = ones(40_000, 4), native = Tensor.allocate('float32', [64, 4]);
    const work = async (times) => {
      for (let i = 0; i < times; i++) {
        const x = i % 10 === 0 ? large : i % 3 === 0 ? native : small;
        await (i % 100 === 0 ? session.run({ x: 1 }).catch(() => {}) : session.run({ x }));
        // How much garbage piles up in between, and so how far the heap grows, would depend on the machine's load.
        if (i % 20 === 0) gc();
      }
    };`,
    6000,
    1000,
  );
  // Half a KiB a run.
  expect(median, resident.join(' ')).toBeLessThan(0.5);
});

test('500 sessions, created and disposed, leave no memory behind', limits, () => {
  const { median, resident } = growth(
    `
    const feeds = { x: ones(64, 64), v0: ones(64, 64) };
    const work = async (times) => {
      for (let i = 0; i < times; i++) {
        const session = await InferenceSession.create(fixture('slow.onnx'), { concurrency: 2 });
        await session.run(feeds);
        await session.dispose();
        await InferenceSession.create(fixture('sequence.onnx')).catch(() => {});
      }
    };`,
    200,
    50,
  );
  // 10 KiB a session.
  expect(median, resident.join(' ')).toBeLessThan(0.5);
});
