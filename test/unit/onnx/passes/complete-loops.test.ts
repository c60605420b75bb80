import { buildEngine, InferenceSession, Tensor } from 'node-tensorrt';
import { GraphBuilder, type GraphProto, type ModelProto, serializeModel } from 'node-tensorrt/onnx';
import { describe, expect, test } from 'vitest';
import { completeLoops } from '../../../../dist/onnx/passes/complete-loops.js';

interface Options {
  /** The trip count: an input, a number, or none. */
  readonly trip: 'input' | bigint | undefined;
  readonly condition?: boolean;
  /** Without, the turns only add up. */
  readonly scan?: boolean;
  /** Outputs without a name, which nobody reads. */
  readonly unread?: boolean;
}

/** Adds x to itself until the sum of all is 100, `trip` times at most; what was added in each turn is `s`. */
function looping({ trip, condition = false, scan = false, unread = false }: Options): ModelProto {
  const g = new GraphBuilder('looping');
  const x = g.input('x', 'float32', ['n']);
  const limit =
    trip === 'input'
      ? g.input('trip', 'int64', [])
      : trip === undefined
        ? null
        : g.initializer('limit', 'int64', [], BigInt64Array.of(trip));
  const keep = condition ? g.initializer('keep', 'bool', [], Uint8Array.of(1)) : null;
  const scanned = scan ? [unread ? '' : 's'] : [];
  const attributes = { body: { graph: body(scan) } };
  g.op('Loop', [limit, keep, x], attributes, { outputs: ['y', ...scanned] });
  g.output('y', 'float32', ['n']);
  if (scan && !unread) g.output('s', 'float32', ['turns', 'n']);
  return g.finish();
}

function body(scan: boolean): GraphProto {
  const b = new GraphBuilder('body');
  const turn = b.input('turn', 'int64', []);
  const going = b.input('going', 'bool', []);
  const sum = b.input('sum', 'float32', ['n']);
  const [added] = b.op(
    'Add',
    [sum, b.op('Mul', [sum, b.op('Cast', [turn], { to: 1 })])],
    {},
    { outputs: ['next'] },
  );
  const all = b.op('ReduceSum', [added!], { keepdims: 0 });
  b.op('And', [going, b.op('Less', [all, b.scalar(100)])], {}, { outputs: ['goes on'] });
  b.output('goes on', 'bool', []);
  b.output('next', 'float32', ['n']);
  if (scan) {
    b.op('Neg', [added!], {}, { outputs: ['turned'] });
    b.output('turned', 'float32', ['n']);
  }
  return b.finish().graph;
}

/** What ONNX Runtime computes of [1, 2]. */
async function outputsOf(model: ModelProto): Promise<Record<string, number[]>> {
  await using session = await InferenceSession.create(serializeModel(model), { device: 'cpu' });
  const x = new Tensor('float32', [1, 2], [2]);
  const trip = new Tensor('int64', [3n], []);
  const results = await session.run(session.inputNames.includes('trip') ? { x, trip } : { x });
  return Object.fromEntries(
    Object.entries(results).map(([name, { data }]) => [name, Array.from(data as Float32Array)]),
  );
}

const largest = 2n ** 63n - 1n;
const variants: [string, Options, boolean][] = [
  ['without a condition', { trip: 'input', scan: true }, false],
  ['without a condition, a constant number of times', { trip: 4n, scan: true }, false],
  ['without a trip count', { trip: undefined, condition: true }, true],
  ['without either', { trip: undefined }, true],
  ['with PyTorch’s trip count of no limit', { trip: largest, condition: true }, true],
];

describe('a loop', () => {
  test.each(variants)('%s computes what it did, and compiles', async (_, options, isUnbounded) => {
    const model = looping(options);
    const expected = await outputsOf(model);
    expect(expected.y![0]).toBeGreaterThan(1);
    expect(completeLoops(model)).toEqual({ isChanged: true, isUnbounded });
    const [limit, condition] = model.graph.node.at(-1)!.input;
    expect([limit, condition]).not.toContain('');
    expect(await outputsOf(model)).toEqual(expected);
    for (const precision of ['fp32', 'fp16'] as const) {
      const bytes = serializeModel(looping(options));
      const engine = await buildEngine(bytes, { target: 'sm_89', precision, shapes: { x: [2] } });
      expect(engine.manifest.inputs.map(({ name }) => name)).toContain('x');
      if (precision === 'fp16' && isUnbounded) {
        expect(engine.manifest.cast!.ranges).toMatchObject({ reason: /options\.calibration/ });
      }
    }
  });

  test('whose trip count is an input has a range for it, which options.shapes replaces', async () => {
    const bytes = serializeModel(looping({ trip: 'input', scan: true }));
    const build = (shapes: object) => buildEngine(bytes, { target: 'sm_89', shapes: { x: [2], ...shapes } });
    const derived = { trip: { min: [0], opt: [128], max: [512] } };
    expect((await build({})).manifest.profiles[0]).toMatchObject(derived);
    const given = { trip: { min: [1], opt: [2], max: [3] } };
    expect((await build(given)).manifest.profiles[0]).toMatchObject(given);
  });

  test('that has all of it stays as it is', () => {
    const model = looping({ trip: 4n, condition: true });
    const before = serializeModel(model);
    expect(completeLoops(model)).toEqual({ isChanged: false, isUnbounded: false });
    expect(serializeModel(model)).toEqual(before);
  });

  test('in the body of another, and what nobody reads', async () => {
    const model = looping({ trip: 3n, scan: true, unread: true });
    const [loop] = model.graph.node;
    const inner = looping({ trip: 2n }).graph.node[0]!;
    const outer = loop!.attribute[0]!.g!;
    outer.node.push({ ...inner, input: ['', '', 'next'], output: ['inner'] });
    completeLoops(model);
    const completed = outer.node.at(-1)!;
    expect(completed.input.slice(0, 2)).toEqual(['trip_count', 'condition']);
    expect(model.graph.node.at(-1)!.output[1]).toBe('unused');
  });

  test('that collects what it computes any number of times is unsupported, by name', async () => {
    const bytes = serializeModel(looping({ trip: undefined, condition: true, scan: true }));
    await expect(buildEngine(bytes, { target: 'sm_89', shapes: { x: [2] } })).rejects.toThrow(
      expect.objectContaining({
        code: 'ERR_MODEL_UNSUPPORTED',
        message: expect.stringMatching(/Loop ".*": it has no trip count, and collects "s" of every turn/),
      }),
    );
  });
});
