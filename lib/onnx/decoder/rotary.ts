import { dataTypeFromOnnx } from '../../base/data-type.js';
import type { TensorLike } from '../../base/tensor-like.js';
import type { TensorProto } from '../format/model.js';
import { operatorName } from '../graph/operators.js';
import type { GraphKnowledge } from './graph-knowledge.js';
import type { Step, StepPart, StepValues } from './step-values.js';
import { floats, largestDifference, numbers } from './tensor-numbers.js';

/** The rotation of a value by its position, found in the graph but not yet proven. */
export interface RotaryMatch {
  /** The value that is rotated. */
  readonly source: string;
  /** `[rows, heads, new, headDim]`, or `[rows, new, heads, headDim]`. */
  readonly layout: 'heads-first' | 'sequence-first';
  /** The rotated value: `[rows, heads, new, headDim]`. */
  readonly turned: string;
  /** The values that it is rotated with, which follow from positions. */
  readonly tables: readonly string[];
}

/** A rotary embedding (Su et al., RoFormer, 2021) in GroupQueryAttention's terms. */
export interface RotaryTable {
  /** True if elements 2i and 2i + 1 rotate together; otherwise, elements i and i + `pairs` do. */
  readonly interleaved: boolean;
  /** The number of pairs that rotate: at most half of the elements of a head. */
  readonly pairs: number;
  /** `[maxLength, pairs]`. */
  readonly cosines: Float32Array;
  readonly sines: Float32Array;
  /** The inverse frequencies that the graph computes the tables from. */
  readonly weights: readonly TensorProto[];
}

export function isSameTable(a: RotaryTable, b: RotaryTable): boolean {
  return (
    a === b ||
    (a.interleaved === b.interleaved &&
      a.pairs === b.pairs &&
      largestDifference(a.cosines, b.cosines) === 0 &&
      largestDifference(a.sines, b.sines) === 0)
  );
}

/** Operators that exporters build rotations from. */
const parts = new Set([
  ...['Add', 'Sub', 'Mul', 'Neg', 'Concat', 'Slice', 'Split', 'Reshape', 'Transpose', 'Unsqueeze', 'Squeeze'],
  ...[
    'Cast',
    'Identity',
    'Expand',
    'Gather',
    'RotaryEmbedding',
    'com.microsoft.RotaryEmbedding',
    'ScatterND',
  ],
]);

/** Finds the value from which `value` was rotated; undefined if it wasn't rotated. */
export function matchRotary(
  { graph, shapes, steps }: GraphKnowledge,
  value: string,
): RotaryMatch | undefined {
  const order = new Map([...graph.nodes].map((node, i) => [node, i]));
  const frontier = new Set([value]);
  const tables = new Set<string>();
  for (;;) {
    let latest: string | undefined;
    let latestOrder = -1;
    for (const each of frontier) {
      const at = order.get(graph.producer(each)!) ?? -1;
      if (at > latestOrder) [latest, latestOrder] = [each, at];
    }
    const node = latest === undefined ? undefined : graph.producer(latest);
    if (!node || !parts.has(operatorName(node))) return undefined;
    for (const output of node.output) frontier.delete(output);
    for (const input of node.input) {
      if (input === '') continue;
      if (!steps.has(input)) frontier.add(input);
      else if (steps.isPositional(input)) tables.add(input);
    }
    if (frontier.size === 1 && tables.size > 0) break;
  }
  const [source = ''] = frontier;
  const shape = shapes.shape(source);
  if (shape?.length !== 4) return undefined;
  const layout =
    `${shape[2]}` === 'new' ? 'heads-first' : `${shape[1]}` === 'new' ? 'sequence-first' : undefined;
  return layout && { source, layout, turned: value, tables: [...tables].sort() };
}

/** Tables are computed this many positions at a time, to limit the memory used. */
const chunk = 256;

/** The largest difference between elements of two tables that still count as equal. */
const tolerance = 1e-6;

export interface RotarySizes {
  readonly heads: number;
  readonly headDim: number;
  readonly type: 'float32' | 'float16';
  readonly maxLength: number;
}

/**
 * Computes the table of cosines and sines for all positions. It runs the part of the graph that rotates a value, so
 * scaled frequencies are exact. Returns undefined if that part does something other than GroupQueryAttention's
 * rotation, or depends on more than each token's position.
 */
export async function computeRotary(
  { graph, steps }: GraphKnowledge,
  match: RotaryMatch,
  sizes: RotarySizes,
): Promise<RotaryTable | undefined> {
  const { headDim, maxLength } = sizes;
  if (!(await dependOnPositionAlone(steps, match.tables, maxLength))) return undefined;
  const part = await TurningPart.load(steps, match, sizes);
  if (!part) return undefined;
  await using _ = part;
  // Unit vectors rotated to position 1 are the columns of the rotation's matrix, which show where each element goes.
  const column = await part.run({ rows: headDim, new: 1, past: 1 }, (row, _token, _head, dim) =>
    row === dim ? 1 : 0,
  );
  const partners = Array.from({ length: headDim }, (_, dim) =>
    Array.from({ length: headDim }, (_, other) => other).filter(
      (other) => other !== dim && column(dim, 0, 0, other) !== 0,
    ),
  );
  const distance = partners[0]?.[0];
  if (distance === undefined || partners[0]!.length > 1) return undefined;
  const interleaved = distance === 1 && (partners[2]?.[0] === 3 || headDim === 2);
  const turning = partners.findLastIndex((others) => others.length > 0) + 1;
  const pairs = interleaved ? Math.ceil(turning / 2) : distance;
  const [first, second] = pairing(interleaved, pairs);
  const firsts = new Set(Array.from({ length: pairs }, (_, pair) => first(pair)));
  const cosines = new Float32Array(maxLength * pairs);
  const sines = new Float32Array(maxLength * pairs);
  for (let past = 0; past < maxLength; past += chunk) {
    const step = { rows: 1, new: Math.min(chunk, maxLength - past), past };
    const turned = await part.run(step, (_row, _token, _head, dim) => (firsts.has(dim) ? 1 : 0));
    for (let token = 0; token < step.new; token++) {
      for (let pair = 0; pair < pairs; pair++) {
        cosines[(past + token) * pairs + pair] = turned(0, token, 0, first(pair));
        sines[(past + token) * pairs + pair] = turned(0, token, 0, second(pair));
      }
    }
  }
  const weights = graph.constantsBehind(match.tables).filter(({ dataType }) => isFloat(dataType));
  const table = { interleaved, pairs, cosines, sines, weights };
  return (await part.agrees(table)) ? table : undefined;
}

function isFloat(type: number): boolean {
  return ['float32', 'float16', 'bfloat16', 'float64'].includes(dataTypeFromOnnx(type) ?? '');
}

/**
 * True if a value is rotated by a table. It compares random-looking numbers at the first, middle and last positions.
 */
export async function provesRotary(
  { steps }: GraphKnowledge,
  match: RotaryMatch,
  sizes: RotarySizes,
  table: RotaryTable,
): Promise<boolean> {
  const part = await TurningPart.load(steps, match, sizes);
  if (!part) return false;
  await using _ = part;
  return await part.agrees(table);
}

/** Returns functions for the indices of the first and the second element of pair i. */
function pairing(
  interleaved: boolean,
  pairs: number,
): [first: (i: number) => number, second: (i: number) => number] {
  return interleaved ? [(i) => 2 * i, (i) => 2 * i + 1] : [(i) => i, (i) => i + pairs];
}

/** The part of the graph that rotates a value. */
class TurningPart {
  readonly #part: StepPart;
  readonly #match: RotaryMatch;
  readonly #sizes: RotarySizes;

  private constructor(part: StepPart, match: RotaryMatch, sizes: RotarySizes) {
    this.#part = part;
    this.#match = match;
    this.#sizes = sizes;
  }

  static async load(
    steps: StepValues,
    match: RotaryMatch,
    sizes: RotarySizes,
  ): Promise<TurningPart | undefined> {
    const part = await steps.part([match.turned], [{ name: match.source, type: sizes.type, rank: 4 }]);
    return part && new TurningPart(part, match, sizes);
  }

  /** Rotates given elements, `[rows, new, heads, headDim]`, and returns the results. */
  async run(
    step: Step,
    element: (row: number, token: number, head: number, dim: number) => number,
  ): Promise<(row: number, token: number, head: number, dim: number) => number> {
    const { heads, headDim, type } = this.#sizes;
    const { source, turned, layout } = this.#match;
    const [a, b] = layout === 'heads-first' ? [heads, step.new] : [step.new, heads];
    const values = new Float32Array(step.rows * a * b * headDim);
    let i = 0;
    for (let row = 0; row < step.rows; row++) {
      for (let x = 0; x < a; x++) {
        for (let y = 0; y < b; y++) {
          const [head, token] = layout === 'heads-first' ? [x, y] : [y, x];
          for (let dim = 0; dim < headDim; dim++) values[i++] = element(row, token, head, dim);
        }
      }
    }
    const given = floats(type, values, [step.rows, a, b, headDim]);
    const result = numbers((await this.#part.run(step, { [source]: given }))[turned]!);
    return (row, token, head, dim) => result[((row * heads + head) * step.new + token) * headDim + dim]!;
  }

  async agrees({ interleaved, pairs, cosines, sines }: RotaryTable): Promise<boolean> {
    const { heads, headDim, type, maxLength } = this.#sizes;
    const [first, second] = pairing(interleaved, pairs);
    const slack = type === 'float16' ? 4e-3 : 4 * tolerance;
    const number = (token: number, head: number, dim: number) =>
      Math.sin(1 + 7 * token + 31 * head + 3 * dim + token * dim);
    for (const past of [0, Math.floor(maxLength / 2), maxLength - 1]) {
      const step = { rows: 1, new: Math.min(16, maxLength - past), past };
      const result = await this.run(step, (_row, token, head, dim) => number(token, head, dim));
      for (let token = 0; token < step.new; token++) {
        const at = (past + token) * pairs;
        for (let head = 0; head < heads; head++) {
          const expected = Array.from({ length: headDim }, (_, dim) => number(token, head, dim));
          for (let pair = 0; pair < pairs; pair++) {
            const [cos, sin] = [cosines[at + pair]!, sines[at + pair]!];
            const [x, y] = [expected[first(pair)]!, expected[second(pair)]!];
            expected[first(pair)] = x * cos - y * sin;
            expected[second(pair)] = y * cos + x * sin;
          }
          const isSame = (value: number, dim: number) =>
            Math.abs(value - result(0, token, head, dim)) <= slack * Math.max(1, Math.abs(value));
          if (!expected.every(isSame)) return false;
        }
      }
    }
    return true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#part.dispose();
  }
}

/** True if a token's rotation doesn't depend on the other tokens of a step, nor on the length of its row. */
async function dependOnPositionAlone(
  steps: StepValues,
  tables: readonly string[],
  maxLength: number,
): Promise<boolean> {
  const part = await steps.part(tables);
  if (!part) return false;
  await using _ = part;
  const all = await part.run({ rows: 1, new: maxLength, past: 0 });
  const half = Math.floor(maxLength / 2);
  for (const step of [
    { rows: 1, new: 1, past: 0 },
    { rows: 1, new: 1, past: half },
    { rows: 1, new: 1, past: maxLength - 1 },
    { rows: 1, new: half, past: 0 },
  ]) {
    const some = await part.run(step);
    if (!tables.every((name) => agree(all[name]!, some[name]!, step, maxLength))) return false;
  }
  return true;
}

/** True if a step's table equals its positions in the table of all positions. Positions lie along one axis. */
function agree(all: TensorLike, some: TensorLike, step: Step, maxLength: number): boolean {
  if (all.type === 'int64') {
    const isPosition = ({ data }: TensorLike, past: number) =>
      (data as BigInt64Array).every((value, i) => Number(value) === past + i);
    return isPosition(all, 0) && isPosition(some, step.past);
  }
  const axis = all.dims.indexOf(maxLength);
  if (axis < 0 || some.dims[axis] !== step.new) return false;
  const inner = all.dims.slice(axis + 1).reduce((a, b) => a * b, 1);
  const outer = all.dims.slice(0, axis).reduce((a, b) => a * b, 1);
  const [a, b] = [numbers(all), numbers(some)];
  for (let o = 0; o < outer; o++) {
    for (let token = 0; token < step.new; token++) {
      for (let i = 0; i < inner; i++) {
        const x = a[(o * maxLength + step.past + token) * inner + i]!;
        if (!(Math.abs(x - b[(o * step.new + token) * inner + i]!) <= tolerance)) return false;
      }
    }
  }
  return true;
}
