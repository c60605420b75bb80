import { describe, expect, test } from 'vitest';
import { parseDimension, type SizeRange, symbolsIn } from '../../../dist/base/dimension.js';
import {
  checkProfiles,
  completeProfiles,
  type DeclaredInput,
  parseShapes,
} from '../../../dist/base/shapes.js';

// Profiles: how ranges are completed and checked before TensorRT sees them.

const input = (name: string, ...shape: (number | string)[]): DeclaredInput => ({
  name,
  type: 'float32',
  shape,
});
const llama = [
  input('ids', 'batch', 'seq'),
  input('mask', 'batch', 'past + seq'),
  input('past', 'batch', 2, 'past', 4),
];

function complete(shapes: unknown, inputs: readonly DeclaredInput[]) {
  const profiles = parseShapes(shapes);
  checkProfiles(profiles, inputs);
  return completeProfiles(profiles, inputs);
}

/** The three sizes of one dimension of the first profile. */
function sizes(shapes: unknown, inputs: readonly DeclaredInput[], name: string, index: number): SizeRange {
  const { min, opt, max } = complete(shapes, inputs)[0]![name]!;
  return [min[index]!, opt[index]!, max[index]!];
}

describe('dimensions', () => {
  test.each<[string, string[]]>([
    ['batch', ['batch']],
    ['past + seq', ['past', 'seq']],
    ['past+seq', ['past', 'seq']],
    ['2*s0', ['s0']],
    ['s0 // 2', ['s0']],
    ['a-b/c', ['a-b/c']],
    ['floor((s0 - 1)/2)', ['floor((s0 - 1)/2)']],
    ['7', []],
    ['+', ['+']],
    ['a + ', ['a +']],
  ])('%s', (text, symbols) => {
    expect(symbolsIn(parseDimension(text))).toEqual(symbols);
  });

  test.each<[string, SizeRange]>([
    ['a + b', [11, 22, 33]],
    ['a - 1', [0, 1, 2]],
    ['b - a - 1', [8, 17, 26]],
    ['2 * a + b', [12, 24, 36]],
    ['b / 4', [2, 5, 7]],
    ['b // 4', [2, 5, 7]],
  ])('%s, from the ranges of its parts', (text, expected) => {
    const inputs = [input('x', 'a', 'b'), input('y', text)];
    const shapes = { x: { min: [1, 10], opt: [2, 20], max: [3, 30] } };
    expect(sizes(shapes, inputs, 'y', 0)).toEqual(expected);
  });
});

describe('ranges that are not given', () => {
  test('a sum yields its one unknown part', () => {
    const ids = { min: [1, 1], opt: [2, 8], max: [4, 16] };
    const mask = { min: [1, 1], opt: [2, 72], max: [4, 1040] };
    expect(sizes({ ids, mask }, llama, 'past', 2)).toEqual([0, 64, 1024]);
    const past = { min: [1, 2, 0, 4], opt: [2, 2, 64, 4], max: [4, 2, 1024, 4] };
    expect(sizes({ past, mask }, llama, 'ids', 1)).toEqual([1, 8, 16]);
  });

  test('a total is the sum of past and new tokens', () => {
    const inputs = [
      input('ids', 'batch_size', 'sequence_length'),
      input('mask', 'batch_size', 'total_sequence_length'),
      input('past', 'batch_size', 2, 'past_sequence_length', 4),
    ];
    expect(sizes(undefined, inputs, 'mask', 1)).toEqual([1, 256, 2560]);
    const ids = { min: [1, 1], opt: [1, 1], max: [1, 1] };
    expect(sizes({ ids }, inputs, 'mask', 1)).toEqual([1, 129, 2049]);
    expect(sizes({ ids }, inputs, 'mask', 0)).toEqual([1, 1, 1]);
  });

  test('each profile has its own', () => {
    const given = [{ ids: [1, 1] }, { ids: [4, 32] }];
    expect(complete(given, llama).map(({ mask }) => mask!.opt)).toEqual([
      [1, 129],
      [4, 160],
    ]);
  });

  test.each<[string, DeclaredInput]>([
    ['heads', input('x', 'batch', 'num_heads')],
    ['the width of a head', input('x', 'batch', 2, 'past', 'head_dim')],
    ['nothing', input('x', 2, '')],
  ])('%s suggest none', (_, x) => {
    expect(() => complete(undefined, [x])).toThrow(
      /options\.shapes\.x is needed: .* dimension \d doesn't suggest a size/,
    );
  });
});

describe('ranges that contradict each other', () => {
  const wrong = (shapes: unknown, inputs: readonly DeclaredInput[] = llama) => {
    try {
      complete(shapes, inputs);
    } catch (error) {
      const { code, message } = error as { code: string; message: string };
      return `${code}: ${message}`;
    }
    return 'no error';
  };

  test('of one name', () => {
    const ids = { min: [1, 1], opt: [2, 8], max: [4, 16] };
    const past = { min: [1, 2, 0, 4], opt: [2, 2, 64, 4], max: [8, 2, 1024, 4] };
    expect(wrong({ ids, past })).toBe(
      'ERR_INVALID_ARG_VALUE: options.shapes.past has 1, 2, 8 (min, opt, max) in dimension 0, "batch", but ' +
        '"batch" is 1, 2, 4 (options.shapes.ids, dimension 0). The same name is the same size.',
    );
    expect(wrong([{ ids }, { ids, past }])).toMatch(/options\.shapes\[1\]\.past has 1, 2, 8/);
  });

  test('of a sum', () => {
    const ids = { min: [1, 1], opt: [2, 8], max: [4, 16] };
    const mask = { min: [1, 1], opt: [2, 64], max: [4, 1024] };
    const past = { min: [1, 2, 0, 4], opt: [2, 2, 64, 4], max: [4, 2, 1024, 4] };
    expect(wrong({ ids, mask, past })).toBe(
      'ERR_INVALID_ARG_VALUE: options.shapes.mask has 1, 64, 1024 (min, opt, max) in dimension 1, "past + seq", but ' +
        '"past" is 0, 64, 1024 (options.shapes.past, dimension 2) and "seq" is 1, 8, 16 (options.shapes.ids, ' +
        'dimension 1), which makes 1, 72, 1040: the sizes must agree.',
    );
  });

  test('of a sum that leaves no range for its other part', () => {
    const ids = { min: [1, 8], opt: [2, 8], max: [4, 8] };
    const mask = { min: [1, 1], opt: [2, 64], max: [4, 128] };
    expect(wrong({ ids, mask })).toMatch(
      /mask has 1, 64, 128 .* "past \+ seq", which leaves -7, 56, 120 for "past"/,
    );
  });

  test('of a sum, with what its parts are called', () => {
    const mask = { min: [1, 1], opt: [2, 64], max: [4, 128] };
    expect(wrong({ mask })).toMatch(/"past" is 0, 128, 2048 \(from its name\)/);
  });

  test('of one name within one input', () => {
    const square = [input('x', 'n', 'n')];
    expect(wrong({ x: { min: [1, 1], opt: [2, 2], max: [4, 5] } }, square)).toMatch(
      /has 1, 2, 5 .* dimension 1, "n"/,
    );
  });
});
