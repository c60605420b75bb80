import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';

const root = path.join(import.meta.dirname, '../..');

/** Windows of equal work, after a warm-up. */
const windows = 10;

/** Alone they take a few seconds. They don't test how long they take when others keep the cores busy. */
const limits = { timeout: 300_000 };

/** Returns what the script prints when it runs alone in a process. */
function runAlone(script: string): string {
  const child = spawnSync(process.execPath, ['--expose-gc', '-e', script], {
    cwd: root,
    encoding: 'utf8',
    // Chance decides which thread allocates from which arena, and so how full the arenas get.
    env: { ...process.env, MALLOC_ARENA_MAX: '1' },
  });
  expect(child.stderr).toBe('');
  return child.stdout;
}

/**
 * The median growth of the resident set per window, in MiB. A leak grows in every window, but an allocator that takes
 * or returns a block does so in few. `body` declares `work(times)`.
 */
function growth(body: string, warmUp: number, times: number): { median: number; resident: number[] } {
  const resident = JSON.parse(
    runAlone(`
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
    })();`),
  ) as number[];
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
        // Otherwise the amount of garbage, and so the heap's growth, would depend on the machine's load.
        if (i % 20 === 0) gc();
      }
    };`,
    6000,
    1000,
  );
  // Half a KiB per run.
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
  // 10 KiB per session.
  expect(median, resident.join(' ')).toBeLessThan(0.5);
});

/** The demo model with more positions; its graph computes the rotary embedding of any position. */
function longModel(positions: number): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'long-row-'));
  cpSync(path.join(root, 'examples/demo-model'), folder, { recursive: true });
  const file = path.join(folder, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8'));
  writeFileSync(file, JSON.stringify({ ...config, max_position_embeddings: positions }));
  return folder;
}

test('a row of 32,768 tokens takes the memory that kvCache reports, and frees it', limits, () => {
  const tokens = 32_768;
  const folder = longModel(tokens);
  try {
    const measured = JSON.parse(
      runAlone(`
      const { LanguageModel } = require('node-tensorrt');
      const { setTimeout } = require('node:timers/promises');
      const { getHeapStatistics } = require('node:v8');
      (async () => {
        const model = await LanguageModel.load(${JSON.stringify(folder)}, {
          device: 'cpu',
          threads: 1,
          kvCache: { maxBatchSize: 2, maxLength: ${tokens} },
        });
        const { kvCache } = model;
        // Without JavaScript's heap: V8 decides when to return the memory that loading the model took.
        const resident = async () => {
          gc();
          // Another thread returns collected memory to the system.
          await setTimeout(100);
          return process.memoryUsage.rss() - getHeapStatistics().total_physical_size;
        };
        const release = async (sequence, left) => {
          sequence.dispose();
          kvCache.clear();
          while (kvCache.bytesUsed > left) await setTimeout(10);
        };
        const ids = Array.from({ length: ${tokens} }, (_, i) => 5 + ((i * 7919) % 500));
        // The memory in which a prompt's chunk is computed stays allocated, and isn't part of the cache.
        const short = model.createSequence();
        await short.append(ids.slice(0, 1024));
        await release(short, 0);
        const before = await resident();
        const grown = [];
        const measure = async () => grown.push({ used: kvCache.bytesUsed, resident: (await resident()) - before });
        const row = model.createSequence();
        await row.append(ids);
        await measure();
        const { used } = grown[0];
        for (let i = 0; i < 4; i++) {
          const copy = await row.fork();
          while (kvCache.bytesUsed < 2 * used) await setTimeout(10);
          await measure();
          await release(copy, used);
          await measure();
        }
        await release(row, 0);
        await measure();
        await model.dispose();
        console.log(JSON.stringify(grown));
      })();`),
    ) as { used: number; resident: number }[];
    // Three layers, keys and values, two heads of 32 floats.
    const row = tokens * 3 * 2 * 2 * 32 * 4;
    const rows = [1, 2, 1, 2, 1, 2, 1, 2, 1, 0];
    expect(measured.map(({ used }) => used / row)).toEqual(rows);
    const differences = measured.map(({ used, resident }) => Math.abs(resident - used) / row);
    expect(Math.max(...differences), differences.join(' ')).toBeLessThan(0.05);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
