import { describe, expect, test } from 'vitest';
import { toBfloat16Bits, toFloat16Bits } from '../../../dist/base/float16.js';
import { normalNumbers, uniformNumbers } from '../../../dist/base/random.js';
import { SparseMask, Tensor, type TensorLike } from '../../../dist/index.js';
import { python } from '../../oracle/python.js';

type FloatType = 'float32' | 'float16' | 'bfloat16';

/** Weights, some of which tie. float16 is given as bits, which every version of Node takes. */
function weights(type: FloatType, dims: readonly number[], seed: number): TensorLike {
  const normal = normalNumbers(seed);
  const size = dims.reduce((a, b) => a * b, 1);
  const values = Float32Array.from({ length: size }, (_, i) =>
    i % 5 === 0 ? Math.round(normal()) : normal(),
  );
  if (type === 'float16') return { type, dims, data: toFloat16Bits(values) };
  return { type, dims, data: type === 'bfloat16' ? toBfloat16Bits(values) : values };
}

/** The rules in NumPy. Its stable sort keeps the first of equal scores. */
const numpyRules = `
import base64, json, sys
import numpy as np

def tensor(t):
    raw = base64.b64decode(t['data'])
    if t['type'] == 'bfloat16':
        values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, np.float16 if t['type'] == 'float16' else np.float32).astype(np.float32)
    return values.reshape(t['dims'])

def largest(scores, keep):
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.ravel(), kind='stable')[:keep]] = True
    return mask.reshape(scores.shape)

def groups(scores, pattern, axis):
    keep, of = map(int, pattern.split(':'))
    moved = np.moveaxis(scores, axis, -1)
    rows = moved.reshape(-1, of)
    mask = np.zeros(rows.shape, bool)
    np.put_along_axis(mask, np.argsort(-rows, axis=1, kind='stable')[:, :keep], True, 1)
    return np.moveaxis(mask.reshape(moved.shape), -1, axis)

def blocks(scores, block, density, norm):
    # [rows, block rows, columns, block columns, ...]
    split = [size for dim, b in zip(scores.shape, block) for size in (dim // b, b)]
    s = scores.astype(np.float64)
    sums = (s if norm == 1 else s * s).reshape(split).sum(axis=tuple(range(1, 2 * scores.ndim, 2)))
    kept = largest(sums, int(np.floor(density * sums.size + 0.5)))
    for axis, b in enumerate(block):
        kept = np.repeat(kept, b, axis)
    return kept

def update(case):
    # Evci et al. (2020), as in JaxPruner: what was just dropped may grow back.
    w, g = tensor(case['weights']), tensor(case['gradients'])
    old = np.unpackbits(np.frombuffer(base64.b64decode(case['old']), np.uint8), bitorder='little')[: w.size]
    old = old.reshape(w.shape).astype(bool)
    count = int(np.floor(case['rule']['dropFraction'] * old.sum() + 0.5))
    stays = largest(np.where(old, np.abs(w), -1), old.sum() - count)
    return stays | largest(np.where(stays, -1, np.abs(g)), count)

def mask(case):
    if 'old' in case:
        return update(case)
    scores = np.abs(tensor(case['weights']))
    if 'gradients' in case:
        scores = np.abs(tensor(case['weights']) * tensor(case['gradients']))
    rule = case['rule']
    if 'pattern' in rule:
        return groups(scores, rule['pattern'], rule.get('axis', -1))
    if case['kind'] == 'structured':
        axis = rule['axis'] % scores.ndim
        block = [1 if d == axis else dim for d, dim in enumerate(scores.shape)]
        return blocks(scores, block, rule['density'], rule.get('norm', 1))
    if 'block' in rule:
        return blocks(scores, rule['block'], rule['density'], rule.get('norm', 1))
    return largest(scores, int(np.floor(rule['density'] * scores.size + 0.5)))

for case in json.load(sys.stdin):
    bits = np.packbits(mask(case).ravel(), bitorder='little')
    print(base64.b64encode(bits.tobytes()).decode())
`;

interface Case {
  readonly kind: 'magnitude' | 'saliency' | 'structured' | 'update';
  readonly weights: TensorLike;
  readonly gradients?: TensorLike;
  readonly rule: object;
  /** The mask that is updated, as base64. */
  readonly old?: string;
}

function encoded({ type, dims, data }: TensorLike) {
  const { buffer, byteOffset, byteLength } = data as Uint8Array;
  return { type, dims, data: Buffer.from(buffer, byteOffset, byteLength).toString('base64') };
}

function numpyBits(cases: readonly Case[]): Buffer[] {
  const input = cases.map(({ weights, gradients, ...rest }) => ({
    ...rest,
    weights: encoded(weights),
    ...(gradients ? { gradients: encoded(gradients) } : {}),
  }));
  return python(numpyRules, [], JSON.stringify(input))
    .trim()
    .split('\n')
    .map((line) => Buffer.from(line, 'base64'));
}

const make = ({ kind, weights, gradients, rule }: Case): Promise<SparseMask> =>
  kind === 'saliency'
    ? SparseMask.saliency(weights, gradients!, rule as never)
    : SparseMask[kind as 'magnitude'](weights, rule as never);

const makeSync = ({ kind, weights, gradients, rule }: Case): SparseMask =>
  kind === 'saliency'
    ? SparseMask.saliencySync(weights, gradients!, rule as never)
    : SparseMask[kind === 'structured' ? 'structuredSync' : 'magnitudeSync'](weights, rule as never);

function randomCases(count: number): Case[] {
  const uniform = uniformNumbers(7);
  const below = (n: number) => Math.floor(uniform() * n);
  const types: FloatType[] = ['float32', 'float16', 'bfloat16'];
  return Array.from({ length: count }, (_, i) => {
    const type = types[i % 3]!;
    const of = [2, 3, 4, 8, 16, 20, 64, 80][below(8)]!;
    const rank = 1 + below(4);
    const dims = Array.from({ length: rank }, () => 1 + below(9));
    const axis = below(rank);
    dims[axis] = of * (1 + below(6));
    const block = dims.map((dim) => (dim % 2 === 0 ? 2 : 1));
    const density = [0, 0.1, 0.37, 0.5, 0.9, 1][below(6)]!;
    const rules = [
      { density },
      { pattern: `${1 + below(of)}:${of}`, axis: below(2) ? axis : axis - rank },
      { density, block },
      { density, block, norm: 2 },
    ];
    const isStructured = i % 5 === 0;
    return {
      kind: isStructured ? 'structured' : i % 2 === 0 ? 'magnitude' : 'saliency',
      weights: weights(type, dims, i),
      ...(i % 2 === 1 && !isStructured ? { gradients: weights(type, dims, i + 1000) } : {}),
      rule: isStructured ? { axis, density, norm: 1 + below(2) } : rules[below(4)]!,
    };
  });
}

describe('NumPy makes the same masks', () => {
  test('of random shapes, types and rules, with ties', async () => {
    const cases = randomCases(300);
    const expected = numpyBits(cases);
    for (const [i, each] of cases.entries()) {
      const [mask, sync] = [await make(each), makeSync(each)];
      const about = JSON.stringify({ i, kind: each.kind, rule: each.rule, dims: each.weights.dims });
      expect({ about, bits: Buffer.from(mask.bits()).toString('hex') }).toEqual({
        about,
        bits: expected[i]!.toString('hex'),
      });
      expect(sync.equals(mask)).toBe(true);
    }
  });

  test.each<{ name: string; each: Case }>([
    {
      name: 'a density',
      each: { kind: 'magnitude', weights: weights('float32', [1500, 1021], 1), rule: { density: 0.1 } },
    },
    {
      name: 'few elements',
      each: { kind: 'magnitude', weights: weights('float32', [1500, 1021], 1), rule: { density: 1e-6 } },
    },
    {
      name: 'float16',
      each: { kind: 'magnitude', weights: weights('float16', [1500, 1021], 2), rule: { density: 0.9 } },
    },
    {
      name: '2:4',
      each: { kind: 'magnitude', weights: weights('float32', [1001, 1304], 3), rule: { pattern: '2:4' } },
    },
    {
      name: '2:4 along axis 0',
      each: {
        kind: 'magnitude',
        weights: weights('float32', [1304, 1001], 4),
        rule: { pattern: '2:4', axis: 0 },
      },
    },
    {
      name: 'long groups along axis 0',
      each: {
        kind: 'magnitude',
        weights: weights('bfloat16', [1300, 1001], 5),
        rule: { pattern: '600:1300', axis: 0 },
      },
    },
    {
      name: 'long groups',
      each: { kind: 'magnitude', weights: weights('bfloat16', [1001, 1300], 5), rule: { pattern: '7:1300' } },
    },
    {
      name: 'columns',
      each: {
        kind: 'structured',
        weights: weights('float32', [1300, 1001], 6),
        rule: { axis: 1, density: 0.3 },
      },
    },
    {
      name: 'blocks',
      each: {
        kind: 'magnitude',
        weights: weights('float32', [1300, 1004], 6),
        rule: { block: [10, 4], density: 0.3 },
      },
    },
    {
      name: 'saliency',
      each: {
        kind: 'saliency',
        weights: weights('float32', [1300, 1001], 6),
        gradients: weights('float32', [1300, 1001], 9),
        rule: { density: 0.5 },
      },
    },
  ])('of more than a million elements: $name', async ({ each }) => {
    const [expected] = numpyBits([each]);
    const mask = await make(each);
    expect(Buffer.from(mask.bits()).equals(expected!)).toBe(true);
    expect(makeSync(each).equals(mask)).toBe(true);
    const { type, dims, data } = each.weights;
    const ours = Tensor.allocate(type as 'float32', dims);
    (ours.data as Float32Array).set(data as Float32Array);
    expect((await make({ ...each, weights: ours })).equals(mask)).toBe(true);
  });

  test('of weights that are nearly all equal', async () => {
    const data = new Float32Array(3_000_000).fill(0.5);
    data[2_999_999] = -0.75;
    const each: Case = {
      kind: 'magnitude',
      weights: { type: 'float32', dims: [3_000_000], data },
      rule: { density: 0.4 },
    };
    const mask = await make(each);
    expect(mask.kept).toBe(1_200_000);
    expect(Buffer.from(mask.bits()).equals(numpyBits([each])[0]!)).toBe(true);
  });
});

/** Elements of a mask, row-major. */
const kept = (mask: SparseMask) =>
  Array.from({ length: mask.size }, (_, i) => (mask.bits()[i >> 3]! >> (i & 7)) & 1);
const vector = (...values: number[]) => new Tensor('float32', values, [values.length]);
const dims = [37, 41];

describe('an update', () => {
  test('follows NumPy, keeps the density, and says what changed', async () => {
    const cases = [0, 0.1, 0.3, 1].flatMap((dropFraction, i) =>
      (['float32', 'float16', 'bfloat16'] as const).map((type, j) => {
        const old = SparseMask.randomSync(dims, { density: 0.3, seed: 10 * i + j });
        const each: Case = {
          kind: 'update',
          weights: weights(type, dims, 20 * i + j),
          gradients: weights(type, dims, 40 * i + j),
          rule: { dropFraction },
          old: Buffer.from(old.bits()).toString('base64'),
        };
        return { old, each, dropFraction };
      }),
    );
    const expected = numpyBits(cases.map(({ each }) => each));
    for (const [i, { old, each, dropFraction }] of cases.entries()) {
      const options = { dropFraction, grow: 'gradient' } as const;
      const { mask, dropped, grown } = await old.update(each.weights, each.gradients, options);
      expect(Buffer.from(mask.bits()).equals(expected[i]!)).toBe(true);
      expect(mask.kept).toBe(old.kept);
      const [before, after] = [kept(old), kept(mask)];
      expect([...dropped]).toEqual(before.flatMap((bit, at) => (bit > after[at]! ? [at] : [])));
      expect([...grown]).toEqual(before.flatMap((bit, at) => (bit < after[at]! ? [at] : [])));
      expect(old.updateSync(each.weights, each.gradients, options).mask.equals(mask)).toBe(true);
    }
  });

  test('grows at random without gradients, the same for the same seed', async () => {
    const old = await SparseMask.random(dims, { density: 0.5 });
    const w = weights('float32', dims, 1);
    const update = (seed: number) => old.update(w, undefined, { dropFraction: 0.4, grow: 'random', seed });
    const [first, again, other] = [await update(1), await update(1), await update(2)];
    expect(first.mask.kept).toBe(old.kept);
    expect(first.mask.equals(again.mask)).toBe(true);
    expect(first.mask.equals(other.mask)).toBe(false);
  });
});

describe('a random mask', () => {
  test('keeps exactly the share that was asked for', async () => {
    for (const density of [0, 0.001, 0.1, 1 / 3, 0.5, 0.999, 1]) {
      const mask = await SparseMask.random([1001, 997], { density });
      expect(mask.kept).toBe(Math.round(density * 1001 * 997));
      expect(mask.equals(SparseMask.randomSync([1001, 997], { density }))).toBe(true);
    }
  });

  test('chooses every element as often as any other', async () => {
    const counts = new Array(20).fill(0);
    for (let seed = 0; seed < 3000; seed++) {
      kept(SparseMask.randomSync([20], { density: 0.3, seed })).forEach((bit, i) => {
        counts[i] += bit;
      });
    }
    // 900 expected; a binomial's standard deviation is 25.
    for (const count of counts) expect(Math.abs(count - 900)).toBeLessThan(125);
  });
});

describe('applied to', () => {
  const mask = SparseMask.fromBits(Uint8Array.of(0b101), [3]);

  test.each([
    [new Tensor('float32', [1, -2, Number.NaN], [3]), [1, 0, Number.NaN]],
    [new Tensor('float64', [1, 2, 3], [3]), [1, 0, 3]],
    [new Tensor('int8', [-1, -2, -3], [3]), [-1, 0, -3]],
    [new Tensor('int64', [1n, 2n, 3n], [3]), [1n, 0n, 3n]],
    [new Tensor('bfloat16', Uint16Array.of(1, 2, 3), [3]), [1, 0, 3]],
  ])('%o', async (tensor, expected) => {
    const before = Array.from(tensor.data as Iterable<unknown>);
    const result = await mask.apply(tensor as Tensor);
    expect(Array.from(result.data as Iterable<unknown>)).toEqual(expected);
    expect(Array.from(tensor.data as Iterable<unknown>)).toEqual(before);
    expect(await mask.apply(tensor as Tensor, { inPlace: true })).toBe(tensor);
    expect(Array.from(tensor.data as Iterable<unknown>)).toEqual(expected);
  });

  test('a dropped negative number becomes a positive zero', () => {
    expect(Object.is((mask.applySync(vector(1, -2, 3)).data as Float32Array)[1], 0)).toBe(true);
  });

  test('memory of ours, and plain objects', async () => {
    const ours = Tensor.allocate('float32', [3]);
    ours.data.set([4, 5, 6]);
    expect([...(await mask.apply(ours)).data]).toEqual([4, 0, 6]);
    expect(await mask.apply(ours, { inPlace: true })).toBe(ours);
    expect([...ours.data]).toEqual([4, 0, 6]);
    const plain: TensorLike = { type: 'float32', dims: [3], data: Float32Array.of(7, 8, 9) };
    expect(await mask.apply(plain)).toEqual({ type: 'float32', dims: [3], data: Float32Array.of(7, 0, 9) });
  });

  test('every length', async () => {
    for (const size of [0, 1, 3, 63, 64, 65, 127, 128, 300, 262_145]) {
      for (const type of ['int8', 'float16', 'float32', 'float64'] as const) {
        const some = SparseMask.randomSync([size], { density: 0.6, seed: size });
        const x = Tensor.allocate(type, [size]);
        new Uint8Array(x.data.buffer).fill(1);
        const result = await some.apply(x);
        expect(SparseMask.fromDense(result).equals(some)).toBe(true);
      }
    }
  });
});

describe('masks combine', () => {
  const [a, b] = [
    SparseMask.randomSync(dims, { density: 0.4, seed: 1 }),
    SparseMask.randomSync(dims, { density: 0.7, seed: 2 }),
  ];

  test('by and, or and not', () => {
    const [x, y] = [kept(a), kept(b)];
    expect(kept(a.and(b))).toEqual(x.map((bit, i) => bit & y[i]!));
    expect(kept(a.or(b))).toEqual(x.map((bit, i) => bit | y[i]!));
    expect(kept(a.not())).toEqual(x.map((bit) => 1 - bit));
    expect(a.not().kept).toBe(a.size - a.kept);
    expect(a.and(a.not()).kept).toBe(0);
    expect(a.or(a.not()).density).toBe(1);
  });

  test('are equal if dimensions and bits are', () => {
    expect(a.equals(SparseMask.fromBits(a.bits(), dims))).toBe(true);
    expect(a.equals(b)).toBe(false);
    expect(a.equals(SparseMask.fromBits(a.bits(), [...dims].reverse()))).toBe(false);
  });

  test('of elements that are not zero', () => {
    expect(kept(SparseMask.fromDense(vector(0, -0, 2, Number.NaN, 1e-45)))).toEqual([0, 0, 1, 1, 1]);
    expect(kept(SparseMask.fromDense(new Tensor('bool', [true, false], [2])))).toEqual([1, 0]);
    expect(kept(SparseMask.fromDense(new Tensor('uint16', Uint16Array.of(0x8000, 0), [2])))).toEqual([1, 0]);
    expect(
      kept(SparseMask.fromDense({ type: 'float16', dims: [2], data: Uint16Array.of(0x8000, 1) })),
    ).toEqual([0, 1]);
  });
});

describe('a check', () => {
  test('finds the first group that keeps too many', () => {
    const data = new Float32Array(8 * 12 * 3).fill(0);
    const at = (i: number, j: number, k: number) => (i * 12 + j) * 3 + k;
    for (const j of [4, 5, 7]) data[at(6, j, 1)] = 1;
    for (const j of [8, 9, 10]) data[at(6, j, 0)] = 1;
    const mask = SparseMask.fromDense(new Tensor('float32', data, [8, 12, 3]));
    expect(mask.check('2:4', 1)).toEqual({ ok: false, groups: 72, violations: 2, first: [6, 4, 1] });
    expect(mask.check('3:4', -2)).toEqual({ ok: true, groups: 72, violations: 0 });
    expect(mask.check('1:3')).toEqual({ ok: true, groups: 96, violations: 0 });
    const row = SparseMask.fromBits(Uint8Array.of(0b0011_0101, 0b0111), [12]);
    expect(row.check('2:4')).toEqual({ ok: false, groups: 3, violations: 1, first: [8] });
    expect(row.check('4:4').ok).toBe(true);
  });
});

describe('refuses', () => {
  const w = weights('float32', [4, 6], 1);
  const cases: [name: string, make: () => unknown, code: string, message: RegExp][] = [
    [
      'a NaN',
      () => SparseMask.magnitudeSync(vector(1, 2, Number.NaN), { density: 0.5 }),
      'ERR_INVALID_ARG_VALUE',
      /weights has .* NaN or infinite: element 2\./,
    ],
    [
      'an infinite gradient',
      () => SparseMask.saliencySync(vector(1, 2), vector(1, -Infinity), { density: 0.5 }),
      'ERR_INVALID_ARG_VALUE',
      /gradients has .* element 1/,
    ],
    [
      'infinite float16',
      () =>
        SparseMask.magnitudeSync(
          { type: 'float16', dims: [2], data: Uint16Array.of(0, 0xfc00) },
          { density: 0.5 },
        ),
      'ERR_INVALID_ARG_VALUE',
      /element 1/,
    ],
    [
      'a density above 1',
      () => SparseMask.magnitudeSync(w, { density: 1.5 }),
      'ERR_INVALID_ARG_VALUE',
      /options\.density must be a number from 0 to 1/,
    ],
    [
      'a density that is NaN',
      () => SparseMask.randomSync([4], { density: Number.NaN }),
      'ERR_INVALID_ARG_VALUE',
      /options\.density/,
    ],
    ['no density', () => SparseMask.randomSync([4], {} as never), 'ERR_INVALID_ARG_TYPE', /options\.density/],
    [
      'a pattern of nothing',
      () => SparseMask.magnitudeSync(w, { pattern: '0:4' }),
      'ERR_INVALID_ARG_VALUE',
      /options\.pattern/,
    ],
    [
      'an impossible pattern',
      () => SparseMask.magnitudeSync(w, { pattern: '5:4' }),
      'ERR_INVALID_ARG_VALUE',
      /options\.pattern/,
    ],
    [
      'a pattern that is none',
      () => SparseMask.magnitudeSync(w, { pattern: '2/4' as '2:4' }),
      'ERR_INVALID_ARG_VALUE',
      /'2:4'/,
    ],
    [
      'groups that do not fit',
      () => SparseMask.magnitudeSync(w, { pattern: '2:4' }),
      'ERR_SHAPE_MISMATCH',
      /dimension 1 of \[4,6\] has 6/,
    ],
    [
      'blocks that do not fit',
      () => SparseMask.magnitudeSync(w, { block: [3, 2], density: 1 }),
      'ERR_SHAPE_MISMATCH',
      /options\.block\[0\]/,
    ],
    [
      'an axis that is not there',
      () => SparseMask.structuredSync(w, { axis: 2, density: 1 }),
      'ERR_INVALID_ARG_VALUE',
      /options\.axis/,
    ],
    [
      'a misspelled option',
      () => SparseMask.magnitudeSync(w, { densty: 1 } as never),
      'ERR_INVALID_ARG_VALUE',
      /did you mean 'density'/,
    ],
    [
      'weights of integers',
      () => SparseMask.magnitudeSync(new Tensor('int8', [1], [1]), { density: 1 }),
      'ERR_INVALID_ARG_VALUE',
      /weights\.type/,
    ],
    [
      'gradients of other dimensions',
      () => SparseMask.saliencySync(w, weights('float32', [6, 4], 1), { density: 1 }),
      'ERR_SHAPE_MISMATCH',
      /gradients\.dims is \[6,4\]/,
    ],
    [
      'too many bits',
      () => SparseMask.fromBits(Uint8Array.of(1, 1), [3]),
      'ERR_INVALID_ARG_VALUE',
      /2 bytes/,
    ],
    [
      'bits behind the last element',
      () => SparseMask.fromBits(Uint8Array.of(0b1000), [3]),
      'ERR_INVALID_ARG_VALUE',
      /after the last/,
    ],
    [
      'masks of other dimensions',
      () => SparseMask.randomSync([4], { density: 1 }).and(SparseMask.randomSync([2, 2], { density: 1 })),
      'ERR_SHAPE_MISMATCH',
      /other\.dims/,
    ],
    [
      'what is no mask',
      () => SparseMask.randomSync([4], { density: 1 }).or({} as never),
      'ERR_INVALID_ARG_TYPE',
      /a SparseMask/,
    ],
    [
      'tensors of other dimensions',
      () => SparseMask.randomSync([4], { density: 1 }).applySync(vector(1)),
      'ERR_SHAPE_MISMATCH',
      /tensor\.dims/,
    ],
    [
      'strings',
      () => SparseMask.fromDense(new Tensor('string', ['a'], [1])),
      'ERR_INVALID_ARG_VALUE',
      /string/,
    ],
    [
      'update without gradients',
      () =>
        SparseMask.randomSync([4, 6], { density: 1 }).updateSync(w, undefined, {
          dropFraction: 0.1,
          grow: 'gradient',
        }),
      'ERR_INVALID_ARG_TYPE',
      /gradients/,
    ],
  ];
  test.each(cases)('%s', (_, make, code, message) => {
    expect(make).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test('work that is aborted', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(SparseMask.random([4], { density: 1, signal })).rejects.toThrow('enough');
    const controller = new AbortController();
    const big = { type: 'float32' as const, dims: [20_000_000], data: new Float32Array(20_000_000) };
    const making = SparseMask.magnitude(big, { density: 0.1, signal: controller.signal });
    controller.abort(new Error('stop'));
    await expect(making).rejects.toThrow('stop');
  });

  test('an array that is transferred while it is read', async () => {
    const data = Float32Array.from({ length: 20_000_000 }, (_, i) => i);
    const making = SparseMask.magnitude({ type: 'float32', dims: [data.length], data }, { density: 0.1 });
    structuredClone(data.buffer, { transfer: [data.buffer] });
    await expect(making).rejects.toThrow(
      expect.objectContaining({ name: 'RangeError', code: 'ERR_INVALID_ARG_VALUE' }),
    );
  });

  test('an object whose data is another array each time', async () => {
    const arrays = [new Float32Array(64), new Float32Array(3)];
    let turn = 0;
    const tensor = {
      type: 'float32' as const,
      dims: [64],
      get data() {
        return arrays[turn++ % 2]!;
      },
    };
    for (let i = 0; i < 2; i++) {
      turn = 0;
      expect(() => SparseMask.magnitudeSync(tensor, { pattern: '2:4' })).toThrow(/changed its length/);
      turn = 0;
      await expect(SparseMask.magnitude(tensor, { pattern: '2:4' })).rejects.toThrow(/changed its length/);
      turn = 0;
      expect(() => SparseMask.fromDense(tensor)).toThrow(/changed its length/);
    }
  });
});
