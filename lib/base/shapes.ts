import type { DataType } from './data-type.js';
import {
  type Dimension,
  parseDimension,
  rangeOfDimension,
  type SizeRange,
  solveForSymbol,
  symbolsIn,
} from './dimension.js';
import { describe, invalidArgType, invalidArgValue, shapeMismatch } from './errors.js';
import type { Dims } from './tensor-like.js';

/** The shapes an engine accepts for one input: the smallest, the one it is tuned for, the largest. */
export interface ShapeRange {
  readonly min: Dims;
  readonly opt: Dims;
  readonly max: Dims;
}

/** Ranges by input name; a plain shape is a range with one shape in it. */
export type ShapeRanges = Readonly<Record<string, ShapeRange | Dims>>;

/** One optimization profile: the range of every dynamic input. */
export type Profile = Readonly<Record<string, ShapeRange>>;

/** An input as the model declares it; a string (or -1) is a dynamic dimension. */
export interface DeclaredInput {
  readonly name: string;
  readonly type: DataType | undefined;
  readonly shape: readonly (number | string)[];
  /** The range of a loop's trip count, if this input is one. A profile then holds the input's values, not its shape. */
  readonly turns?: SizeRange;
}

const sides = ['min', 'opt', 'max'] as const;

/**
 * Checks the `shapes` option as far as possible without a model.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE naming the path, e.g.
 *   `options.shapes.input_ids.max`
 */
export function parseShapes(shapes: unknown): Profile[] {
  const path = 'options.shapes';
  if (shapes === undefined) return [];
  if (Array.isArray(shapes)) {
    if (shapes.length === 0) throw invalidArgValue(path, 'is an empty list of profiles.');
    return shapes.map((profile, i) => parseProfile(profile, `${path}[${i}]`));
  }
  return [parseProfile(shapes, path)];
}

function parseProfile(ranges: unknown, path: string): Profile {
  if (typeof ranges !== 'object' || ranges === null || Array.isArray(ranges)) {
    throw invalidArgType(path, 'an object of shapes by input name', ranges);
  }
  return Object.fromEntries(
    Object.entries(ranges).map(([name, range]) => [name, parseRange(range, `${path}.${name}`)]),
  );
}

function parseRange(range: unknown, path: string): ShapeRange {
  if (Array.isArray(range)) {
    const dims = parseDims(range, path);
    return { min: dims, opt: dims, max: dims };
  }
  if (typeof range !== 'object' || range === null) {
    throw invalidArgType(path, 'a shape or { min, opt, max }', range);
  }
  for (const key of Object.keys(range)) {
    if (!sides.includes(key as 'min'))
      throw invalidArgValue(`${path}.${key}`, 'is not one of min, opt and max.');
  }
  const { min, opt, max } = range as Record<string, unknown>;
  const parsed = {
    min: parseDims(min, `${path}.min`),
    opt: parseDims(opt, `${path}.opt`),
    max: parseDims(max, `${path}.max`),
  };
  for (const side of ['opt', 'max'] as const) {
    if (parsed[side].length !== parsed.min.length) {
      throw invalidArgValue(
        `${path}.${side}`,
        `has ${parsed[side].length} dimensions, but ${path}.min has ${parsed.min.length}.`,
      );
    }
  }
  parsed.min.forEach((least, i) => {
    if (least > parsed.opt[i]! || parsed.opt[i]! > parsed.max[i]!) {
      throw invalidArgValue(
        path,
        `is not in the order min, opt, max in dimension ${i}: ${least}, ${parsed.opt[i]}, ${parsed.max[i]}.`,
      );
    }
  });
  return parsed;
}

function parseDims(dims: unknown, path: string): Dims {
  if (!Array.isArray(dims)) throw invalidArgType(path, 'an array of dimensions', dims);
  dims.forEach((size, i) => {
    if (typeof size !== 'number') throw invalidArgType(`${path}[${i}]`, 'a number', size);
    if (!Number.isInteger(size) || size < 0 || size > 2 ** 31 - 1) {
      throw invalidArgValue(
        `${path}[${i}]`,
        `must be an integer from 0 to 2147483647, not ${describe(size)}.`,
      );
    }
  });
  return Object.freeze([...dims]) as Dims;
}

/**
 * Checks profiles against a model's inputs.
 * @throws RangeError ERR_INVALID_ARG_VALUE for a name, rank or static dimension that doesn't match the model, and for
 *   dimensions of the same name, or sums of them, whose ranges contradict each other
 */
export function checkProfiles(profiles: readonly Profile[], inputs: readonly DeclaredInput[]): void {
  profiles.forEach((profile, p) => {
    const option = profilePath(p, profiles);
    for (const [name, range] of Object.entries(profile)) {
      const input = inputs.find((candidate) => candidate.name === name);
      if (!input) {
        const names = inputs.map((candidate) => candidate.name).join(', ');
        throw invalidArgValue(`${option}.${name}`, `is not an input of the model. Its inputs are ${names}.`);
      }
      // For an input that is itself a shape, the range holds values, which TensorRT checks.
      if (isShape(input)) continue;
      if (range.min.length !== input.shape.length) {
        throw invalidArgValue(
          `${option}.${name}`,
          `has ${range.min.length} dimensions, but the model declares ${input.shape.length}: ${shapeText(input.shape)}.`,
        );
      }
      input.shape.forEach((size, i) => {
        if (typeof size !== 'number' || size < 0) return;
        const wrong = sides.find((side) => range[side][i] !== size);
        if (wrong) {
          throw invalidArgValue(
            `${option}.${name}.${wrong}`,
            `has ${range[wrong][i]} in dimension ${i}, which the model fixes at ${size}: ${shapeText(input.shape)}.`,
          );
        }
      });
    }
    // Throws if the ranges contradict each other.
    new ProfileSizes(profile, inputs, option);
  });
}

/** The name of a profile in errors. */
function profilePath(index: number, profiles: readonly Profile[]): string {
  return profiles.length > 1 ? `options.shapes[${index}]` : 'options.shapes';
}

/** Uses hasOwn because an input may be called `constructor`. */
export function rangeOf(profile: Profile, name: string): ShapeRange | undefined {
  return Object.hasOwn(profile, name) ? profile[name] : undefined;
}

/** True if the input's elements may be a shape. Only TensorRT knows whether they are. */
function isShape({ type, shape }: DeclaredInput): boolean {
  return (type === 'int64' || type === 'int32') && shape.length <= 1 && typeof (shape[0] ?? 1) === 'number';
}

/**
 * Adds the ranges that the given profiles lack. Without a given profile, returns one made of suggested ranges, or none
 * for a static model.
 * @throws RangeError ERR_INVALID_ARG_VALUE for a dimension without a given or suggested range
 */
export function completeProfiles(profiles: readonly Profile[], inputs: readonly DeclaredInput[]): Profile[] {
  const complete = (profiles.length > 0 ? profiles : [{}]).map((profile, i) =>
    completeProfile(profile, inputs, profilePath(i, profiles)),
  );
  return profiles.length > 0 ? complete : complete.filter((profile) => Object.keys(profile).length > 0);
}

/**
 * Adds the ranges that a profile lacks. A dimension takes the range that the profile gives to another dimension of the
 * same name, or the range that follows from a given sum, or else the one that its name suggests
 * ({@link suggestedRange}).
 */
function completeProfile(profile: Profile, inputs: readonly DeclaredInput[], path: string): Profile {
  const sizes = new ProfileSizes(profile, inputs, path);
  const complete: Record<string, ShapeRange> = Object.create(null);
  for (const { name, shape, turns } of inputs) {
    const given = rangeOf(profile, name);
    if (given) complete[name] = given;
    else if (turns) {
      const [min, opt, max] = turns.map((turn) => Object.freeze([turn]));
      complete[name] = { min: min!, opt: opt!, max: max! };
      continue;
    }
    if (given || shape.every((size) => typeof size === 'number' && size >= 0)) continue;
    const ranges = shape.map((size, i): SizeRange => {
      if (typeof size === 'number' && size >= 0) return [size, size, size];
      const range = sizes.complete(String(size), i, shape.length);
      if (!range) {
        throw invalidArgValue(
          `${path}.${name}`,
          `is needed: the model's shape is ${shapeText(shape)}, and the name of dimension ${i} doesn't suggest a size. ` +
            'Give { min, opt, max }.',
        );
      }
      return range;
    });
    const [min, opt, max] = [0, 1, 2].map((side) => Object.freeze(ranges.map((range) => range[side as 0])));
    complete[name] = { min: min!, opt: opt!, max: max! };
  }
  sizes.check();
  return complete;
}

/**
 * The ranges of a profile's symbolic dimensions. Symbols belong to the model, not to one input, so the ranges must
 * agree.
 */
class ProfileSizes {
  readonly #known = new Map<string, { range: SizeRange; from: string }>();
  /** Dimensions whose ranges the profile gives. */
  readonly #given: { path: string; index: number; text: string; dimension: Dimension; range: SizeRange }[] =
    [];
  readonly #symbols: readonly string[];

  /** @throws RangeError ERR_INVALID_ARG_VALUE if given ranges contradict each other */
  constructor(profile: Profile, inputs: readonly DeclaredInput[], path: string) {
    this.#symbols = inputs.flatMap(({ shape }) =>
      shape.flatMap((size) => (typeof size === 'string' ? symbolsIn(parseDimension(size)) : [])),
    );
    for (const { name, shape } of inputs) {
      const range = rangeOf(profile, name);
      if (!range) continue;
      shape.forEach((text, index) => {
        if (typeof text !== 'string' || text === '') return;
        const dimension = parseDimension(text);
        const sides: SizeRange = [range.min[index]!, range.opt[index]!, range.max[index]!];
        this.#given.push({ path: `${path}.${name}`, index, text, dimension, range: sides });
      });
    }
    for (const { path, index, dimension, range } of this.#given) {
      if (dimension.kind !== 'symbol' || this.#known.has(dimension.name)) continue;
      this.#known.set(dimension.name, { range, from: `${path}, dimension ${index}` });
    }
    this.check();
    while (this.#solveOne()) this.check();
  }

  /** @throws RangeError ERR_INVALID_ARG_VALUE for a given range that differs from the one that its symbols yield */
  check(): void {
    for (const { path, index, text, dimension, range } of this.#given) {
      const made = rangeOfDimension(dimension, this.#range);
      if (!made || made.every((size, side) => size === range[side])) continue;
      const sources = symbolsIn(dimension).map((symbol) => {
        const { range, from } = this.#known.get(symbol)!;
        return `"${symbol}" is ${range.join(', ')} (${from})`;
      });
      const makes =
        dimension.kind === 'symbol' ? '' : ` which makes ${made.join(', ')}: the sizes must agree.`;
      throw invalidArgValue(
        path,
        `has ${range.join(', ')} (min, opt, max) in dimension ${index}, "${text}", but ${sources.join(' and ')}` +
          (makes ? `,${makes}` : '. The same name is the same size.'),
      );
    }
  }

  /** The range of a dimension that isn't given; undefined if its name suggests none. */
  complete(text: string, index: number, rank: number): SizeRange | undefined {
    const dimension = parseDimension(text);
    // Unnamed dimensions have nothing in common.
    if (text === '' || text === '-1') return suggestedRange(text, index, rank);
    for (const symbol of symbolsIn(dimension)) {
      if (this.#known.has(symbol)) continue;
      // Inside a sum, a symbol's position suggests nothing.
      const place = dimension.kind === 'symbol' ? index : 1;
      const range = this.#total(symbol) ?? suggestedRange(symbol, place, rank);
      if (range) this.#known.set(symbol, { range, from: 'from its name' });
    }
    const range = rangeOfDimension(dimension, this.#range);
    return range?.every((size) => size >= 0) ? range : undefined;
  }

  readonly #range = (symbol: string): SizeRange | undefined => this.#known.get(symbol)?.range;

  /** Solves one given sum for a symbol whose range isn't known yet. Returns false if there is none. */
  #solveOne(): boolean {
    for (const { path, index, text, dimension, range } of this.#given) {
      const solved = solveForSymbol(dimension, range, this.#range);
      if (!solved) continue;
      const [min, opt, max] = solved.range;
      if (min < 0 || min > opt || opt > max) {
        throw invalidArgValue(
          path,
          `has ${range.join(', ')} (min, opt, max) in dimension ${index}, "${text}", which leaves ` +
            `${solved.range.join(', ')} for "${solved.symbol}".`,
        );
      }
      this.#known.set(solved.symbol, { range: solved.range, from: `${path}, dimension ${index}` });
      return true;
    }
    return false;
  }

  /** onnxruntime-genai's exports call the sum of past and new tokens total_sequence_length. */
  #total(symbol: string): SizeRange | undefined {
    if (!/total/i.test(symbol)) return undefined;
    const named = (pattern: RegExp) => [
      ...new Set(this.#symbols.filter((other) => pattern.test(other) && !/total/i.test(other))),
    ];
    const [past, ...otherPasts] = named(pastName);
    const [tokens, ...otherTokens] = named(tokensName).filter((name) => !pastName.test(name));
    if (past === undefined || tokens === undefined || otherPasts.length + otherTokens.length > 0)
      return undefined;
    const [before, added] = [past, tokens].map((name) => this.#range(name) ?? suggestedRange(name, 1, 2)!);
    return [before![0] + added![0], before![1] + added![1], before![2] + added![2]];
  }
}

const pastName = /past|cache/i;
const tokensName = /seq|length|token|time|frames/i;

/** Dimension names that exporters (PyTorch, optimum, onnxruntime-genai) use, with ranges that suit servers. */
const namedRanges: readonly (readonly [RegExp, SizeRange])[] = [
  [/batch|^[nb]$/i, [1, 8, 16]],
  [pastName, [0, 128, 2048]],
  [/total/i, [1, 256, 2560]],
  [tokensName, [1, 128, 512]],
  [/height|width|^[hw]$/i, [32, 224, 512]],
];

/** Dimensions that get no suggested range: the model's weights fix their size, though the exporter didn't record it. */
const modelsOwnName = /head|hidden|embed|channel|dim$/i;

/**
 * The range that a dimension's name suggests. If the name says nothing, the first dimension is taken for a batch, and
 * the last two of four for an image's height and width.
 */
function suggestedRange(name: string, index: number, rank: number): SizeRange | undefined {
  const range = namedRanges.find(([pattern]) => pattern.test(name))?.[1];
  if (range) return range;
  if (modelsOwnName.test(name)) return undefined;
  if (index === 0) return [1, 8, 16];
  if (rank === 4 && index >= 2) return [32, 224, 512];
  return undefined;
}

/**
 * Checks that at least one profile accepts a run's shapes.
 * @throws RangeError ERR_SHAPE_MISMATCH
 */
export function requireProfile(
  profiles: readonly Profile[],
  shapes: readonly { readonly name: string; readonly dims: Dims }[],
  /** Names the owner of the profiles in the error. */
  origin: string,
): void {
  const misfits = profiles.map((profile) =>
    shapes.find(({ name, dims }) => {
      const range = rangeOf(profile, name);
      return range?.min.some((least, i) => dims[i]! < least || dims[i]! > range.max[i]!);
    }),
  );
  const misfit = misfits[0];
  if (misfits.includes(undefined)) return;
  const { min, max } = rangeOf(profiles[0]!, misfit!.name)!;
  throw shapeMismatch(
    `feeds['${misfit!.name}'] has dims [${misfit!.dims}], outside ` +
      (profiles.length > 1 ? `every profile of ${origin}; the first` : `${origin}, which`) +
      ` allows [${min}] to [${max}].`,
  );
}

/** A shape as text: `[batch, 3, ?]`. */
export function shapeText(shape: readonly (number | string)[]): string {
  return `[${shape.map((size) => (size === '' || size === -1 ? '?' : size)).join(', ')}]`;
}
