import { Session } from 'node:inspector/promises';
import path from 'node:path';
import type { LanguageModel } from 'node-tensorrt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

// TypeScript checks and describes; native code does the work per element and per token. V8 counts how often every block
// of this package's JavaScript runs: the blocks that serve a request must run as often for a large request as for a
// small one.

const dist = `file://${path.join(import.meta.dirname, '../../dist')}/`;
const inspector = new Session();
let trt: typeof import('node-tensorrt');
let onnx: typeof import('node-tensorrt/onnx');
beforeAll(async () => {
  inspector.connect();
  await inspector.post('Profiler.enable');
  await inspector.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  // Imported only now: for code compiled earlier, V8 only counts calls.
  trt = await import('node-tensorrt');
  onnx = await import('node-tensorrt/onnx');
});
afterAll(() => inspector.disconnect());

/** How often blocks of dist/ ran during `work`, by function and position. */
async function countBlocks(work: () => Promise<unknown>): Promise<Map<string, number>> {
  await inspector.post('Profiler.takePreciseCoverage'); // resets the counts
  await work();
  const { result } = await inspector.post('Profiler.takePreciseCoverage');
  const counts = new Map<string, number>();
  for (const { url, functions } of result) {
    if (!url.startsWith(dist) && !url.startsWith(dist.slice('file://'.length))) continue;
    for (const { functionName, ranges } of functions) {
      for (const { startOffset, count } of ranges) {
        const block = `${functionName} (${path.basename(url)}:${startOffset})`;
        counts.set(block, Math.max(counts.get(block) ?? 0, count));
      }
    }
  }
  expect(counts.size).toBeGreaterThan(5);
  return counts;
}

/** Functions with a block that ran more often for the larger request than for the smaller one. */
async function growing(small: () => Promise<unknown>, large: () => Promise<unknown>): Promise<string[]> {
  // Code that runs only once, such as a first import, runs here.
  await small();
  await large();
  const before = await countBlocks(small);
  const after = await countBlocks(large);
  const names = [...after].filter(([block, count]) => count > (before.get(block) ?? 0) + 3);
  return [...new Set(names.map(([block]) => block.replace(/ \(.*/, '')))];
}

test('detects work that is done for each element', async () => {
  const make = (length: number) => async () => new trt.Tensor('float32', new Array<number>(length).fill(1));
  expect(await growing(make(2), make(500))).toEqual(['fromElements']);
});

describe('a run does as much for a large tensor as for a small one', () => {
  test.each(['float32', 'float16', 'int64', 'bool'] as const)('%s', async (type) => {
    const g = new onnx.GraphBuilder('same');
    g.op('Identity', [g.input('x', type, ['n'])], {}, { outputs: ['y'] });
    g.output('y', type, ['n']);
    await using session = await trt.InferenceSession.create(onnx.serializeModel(g.finish()), {
      device: 'cpu',
    });
    const tensor = (length: number) => trt.Tensor.allocate(type, [length]);
    const run = (length: number) => {
      const x = tensor(length);
      const plain = new trt.Tensor(type, x.data.slice() as never, [length]);
      const y = tensor(length);
      const own = new trt.Tensor(type, x.data.slice() as never, [length]);
      return async () => {
        await session.run({ x: plain });
        await session.run({ x }, { y });
        await session.run({ x }, { y: own });
        session.runSync({ x: plain });
      };
    };
    expect(await growing(run(2), run(100_000))).toEqual([]);
  });
});

describe('an answer', () => {
  let model: LanguageModel;
  beforeAll(async () => {
    model = await trt.LanguageModel.load(path.join(import.meta.dirname, '../../examples/demo-model'), {
      device: 'cpu',
    });
  });
  afterAll(() => model.dispose());
  const answer = (options: object) => () => model.generate([1, 2, 3], { ignoreEos: true, ...options });

  test('of many tokens costs as much as an answer of few', async () => {
    expect(await growing(answer({ maxTokens: 2 }), answer({ maxTokens: 50 }))).toEqual([]);
    const sampled = { temperature: 1, seed: 1, logprobs: 2 };
    const few = answer({ ...sampled, maxTokens: 2 });
    expect(await growing(few, answer({ ...sampled, maxTokens: 50 }))).toEqual([]);
  });

  test('to many tokens costs a check of each', async () => {
    const prompt = (length: number) => () =>
      model.generate(
        Array.from({ length }, (_, i) => 5 + (i % 7)),
        { maxTokens: 1 },
      );
    expect(await growing(prompt(2), prompt(50))).toEqual(['isToken', '']);
  });
});
