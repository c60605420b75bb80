import { isDeepStrictEqual } from 'node:util';
import { invalidArgValue } from '../base/errors.js';
import { maxFloat16 } from '../base/float16.js';
import { measureRanges } from '../engine/measure-ranges.js';
import type { ModelProto, NodeProto } from '../onnx/format/model.js';
import { castToBfloat16, castToFloat16 } from '../onnx/precision/cast-precision.js';
import type { LowPrecision } from '../onnx/precision/low-type.js';
import type { Ranges } from '../onnx/precision/ranges.js';
import { castOf } from './cast-model.js';
import { compareLayers } from './compare-layers.js';
import { type Outputs, tensorDifference } from './compare-outputs.js';
import { ComparedModel } from './compared-model.js';
import type { Bisection } from './comparison.js';
import { KeptNodes } from './keep-nodes.js';
import { ModelPair } from './model-pair.js';

interface BisectOptions {
  /** The type of b, if b is this package's cast of a to it. */
  readonly precision: LowPrecision | undefined;
  readonly tolerance: number;
  readonly onStep: (step: number, steps: number) => void;
}

/**
 * Finds a set of nodes of a which, kept in FP32, bring its cast to b's precision within a tolerance, and of which none
 * can be left out. Each set is tried: a is cast with it as `keepFp32`, simulated, and its outputs are compared. If b is
 * not this package's cast, nodes of b are put back to FP32 instead.
 *
 * @throws RangeError ERR_INVALID_ARG_VALUE if b has nothing in 16 bits, or a has
 */
export async function bisectCast(
  models: ModelPair,
  references: readonly Outputs[],
  options: BisectOptions,
): Promise<Bisection> {
  const { a, b } = models;
  const precision = options.precision ?? b.precision;
  if (precision === 'fp32') {
    throw invalidArgValue('options.bisect', 'needs a model b that computes in FP16 or BF16.');
  }
  if (a.precision !== 'fp32') {
    throw invalidArgValue('options.bisect', `needs a model a in FP32, to cast it; a has ${a.precision}.`);
  }
  const source = castSource(models, precision);
  const trials = new Trials(models, references, source, options);
  const before = await trials.difference([]);
  const common = { of: source.of, precision, tolerance: options.tolerance, before };
  const result = (keepFp32: readonly string[], after: number, reached = true): Bisection => ({
    ...common,
    keepFp32: keepFp32.map(patternOf),
    reached,
    after,
    tried: trials.count,
  });
  if (before <= options.tolerance) return result([], before);
  const order = await suspects(models, source, precision);
  const all = await trials.difference(order);
  if (!(all <= options.tolerance)) return result(order, all, false);
  const kept = await trials.reduced(await trials.prefix(order));
  const inOrder = source.patterns.filter((pattern) => kept.includes(pattern));
  return result(inOrder, await trials.difference(inOrder));
}

/** Tries sets of patterns, each once. */
class Trials {
  readonly #models: ModelPair;
  readonly #references: readonly Outputs[];
  readonly #options: BisectOptions;
  readonly #known = new Map<string, number>();
  readonly #source: CastSource;

  constructor(models: ModelPair, references: readonly Outputs[], source: CastSource, options: BisectOptions) {
    this.#models = models;
    this.#references = references;
    this.#source = source;
    this.#options = options;
  }

  get count(): number {
    return this.#known.size;
  }

  /** The largest relative difference of the outputs with these patterns kept in FP32. */
  async difference(patterns: readonly string[]): Promise<number> {
    const key = JSON.stringify([...patterns].sort());
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const { a, samples, signal } = this.#models;
    const pair = new ModelPair(a, this.#source.make(patterns), samples, signal);
    const names = [...pair.outputs.names.values()];
    // Only outputs that b has too are compared, as before.
    const compared = this.#references.map((outputs) =>
      Object.fromEntries(Object.entries(outputs).filter(([name]) => names.includes(name))),
    );
    const others = await pair.runWhole('b', Object.keys(compared[0]!));
    const most = worstOf(compared, others);
    this.#known.set(key, most);
    this.#options.onStep(this.count, this.count);
    return most;
  }

  async isEnough(patterns: readonly string[]): Promise<boolean> {
    return (await this.difference(patterns)) <= this.#options.tolerance;
  }

  /** The shortest beginning of a list that is enough, as far as more is never worse. */
  async prefix(order: readonly string[]): Promise<string[]> {
    let high = 1;
    while (high < order.length && !(await this.isEnough(order.slice(0, high)))) high *= 2;
    high = Math.min(high, order.length);
    let low = high >> 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (await this.isEnough(order.slice(0, middle))) high = middle;
      else low = middle;
    }
    return order.slice(0, high);
  }

  /** Leaves out what isn't needed, in ever smaller pieces, until every single pattern is. */
  async reduced(patterns: readonly string[]): Promise<string[]> {
    let kept = [...patterns];
    for (let piece = Math.max(1, kept.length >> 1); ; piece = Math.max(1, piece >> 1)) {
      let isReduced = false;
      // From the end: the last suspects are the least suspicious.
      for (let end = kept.length; end > 0; end -= piece) {
        const fewer = [...kept.slice(0, Math.max(0, end - piece)), ...kept.slice(end)];
        if (!(await this.isEnough(fewer))) continue;
        kept = fewer;
        isReduced = true;
      }
      if (piece === 1 && !isReduced) return kept;
    }
  }
}

/** Where 16-bit models come from, of which some nodes are kept in FP32. */
interface CastSource {
  readonly of: Bisection['of'];
  /** The patterns that name the nodes in 16 bits, in the model's order: names, or operators of nodes without one. */
  readonly patterns: readonly string[];
  readonly make: (keepFp32: readonly string[]) => ComparedModel;
}

/** This package's cast of a, if that is what b is; else b itself. */
function castSource({ a, b }: ModelPair, precision: LowPrecision): CastSource {
  const cast = precision === 'fp16' ? castToFloat16 : castToBfloat16;
  const { model, report } = cast(a.given, a.where);
  if (isDeepStrictEqual(outline(model), outline(b.given))) {
    const names = new Set(a.given.graph.node.map(({ name }) => name));
    const patterns = report.nodes
      .filter((node) => node.precision !== 'fp32')
      .map(({ node, operator }) => (names.has(node) ? patternOf(node) : operator));
    const make = (keepFp32: readonly string[]) => castOf(a, precision, keepFp32);
    return { of: 'cast', patterns: [...new Set(patterns)], make };
  }
  const kept = new KeptNodes(a.given, b.given);
  const make = (patterns: readonly string[]) => new ComparedModel('b', kept.with(patterns), b.where);
  return { of: 'b', patterns: kept.patterns, make };
}

/** A graph's nodes, without their attributes. */
function outline({ graph }: ModelProto) {
  return graph.node.map(({ opType, input, output }) => [opType, input, output]);
}

/** A pattern that begins with `!` has another meaning. */
function patternOf(name: string): string {
  return name.replace(/^!/, '*');
}

/**
 * The nodes in 16 bits, the most suspicious first: those whose inputs or outputs go beyond the type's largest number,
 * then by their own error.
 */
async function suspects(
  models: ModelPair,
  { patterns, make }: CastSource,
  precision: LowPrecision,
): Promise<string[]> {
  const { a, samples, signal } = models;
  const errors = new Map<string, number>();
  const note = (name: string, error: number) => errors.set(name, Math.max(errors.get(name) ?? 0, error));
  const pair = new ModelPair(a, make([]), samples, signal);
  const { comparable } = await compareLayers(pair, () => {});
  for (const { node, difference } of comparable) note(labelOf(node), difference.error);
  if (precision === 'fp16') {
    const ranges = await measureRanges(a.given, { ...a.where, calibration: samples });
    for (const node of a.given.graph.node) {
      const isBeyond = [...node.input, ...node.output].some((name) => isBeyondFloat16(ranges, name));
      if (isBeyond) note(labelOf(node), Number.POSITIVE_INFINITY);
    }
  }
  // A name that is also an operator's fits all nodes of the operator: it is tried last.
  const operators = new Set(a.given.graph.node.map(({ opType }) => opType));
  const suspicion = (pattern: string) => (operators.has(pattern) ? -1 : (errors.get(pattern) ?? 0));
  return patterns.toSorted((x, y) => {
    const [first, second] = [suspicion(x), suspicion(y)];
    return first === second ? 0 : second > first ? 1 : -1;
  });
}

/** The pattern that names a node. */
function labelOf({ name, opType }: NodeProto): string {
  return name ? patternOf(name) : opType;
}

function isBeyondFloat16({ values }: Ranges, name: string): boolean {
  const range = values.get(name);
  return range !== undefined && !(Math.max(range.most, -range.least) <= maxFloat16);
}

function worstOf(references: readonly Outputs[], others: readonly Outputs[]): number {
  let most = 0;
  references.forEach((outputs, sample) => {
    for (const [name, reference] of Object.entries(outputs)) {
      most = Math.max(most, tensorDifference(name, reference, others[sample]![name]!).relative);
    }
  });
  return most;
}
