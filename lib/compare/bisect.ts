import { invalidArgValue } from '../base/errors.js';
import { maxFloat16 } from '../base/float16.js';
import { measureRanges } from '../engine/measure-ranges.js';
import type { NodeProto } from '../onnx/format/model.js';
import { castToBfloat16, castToFloat16 } from '../onnx/precision/cast-precision.js';
import type { Ranges } from '../onnx/precision/ranges.js';
import { castOf } from './cast-model.js';
import { compareLayers } from './compare-layers.js';
import { type Outputs, tensorDifference } from './compare-outputs.js';
import type { ComparedModel } from './compared-model.js';
import type { Bisection } from './comparison.js';
import { ModelPair } from './model-pair.js';

interface BisectOptions {
  readonly tolerance: number;
  readonly onStep: (step: number, steps: number) => void;
}

/**
 * Finds a set of nodes of a which, kept in FP32, bring its cast to b's precision within a tolerance, and of which none
 * can be left out. Each set is tried: a is cast with it as `keepFp32`, simulated, and its outputs are compared.
 *
 * @throws RangeError ERR_INVALID_ARG_VALUE if b has nothing in 16 bits, or a has
 */
export async function bisectCast(
  models: ModelPair,
  references: readonly Outputs[],
  options: BisectOptions,
): Promise<Bisection> {
  const { a, b } = models;
  if (b.precision === 'fp32') {
    throw invalidArgValue('options.bisect', 'needs a model b that computes in FP16 or BF16.');
  }
  if (a.precision !== 'fp32') {
    throw invalidArgValue('options.bisect', `needs a model a in FP32, to cast it; a has ${a.precision}.`);
  }
  const trials = new Trials(models, references, b.precision, options);
  const before = await trials.difference([]);
  const common = { precision: b.precision, tolerance: options.tolerance, before };
  const result = (keepFp32: readonly string[], after: number, reached = true): Bisection => ({
    ...common,
    keepFp32,
    reached,
    after,
    tried: trials.count,
  });
  if (before <= options.tolerance) return result([], before);
  const order = await suspects(models, trials.cast);
  const all = await trials.difference(order);
  if (!(all <= options.tolerance)) return result(order, all, false);
  const kept = await trials.reduced(await trials.prefix(order));
  const inOrder = patternsOf(trials.cast, a).filter((pattern) => kept.includes(pattern));
  return result(inOrder, await trials.difference(inOrder));
}

/** Tries sets of patterns, each once. */
class Trials {
  readonly #models: ModelPair;
  readonly #references: readonly Outputs[];
  readonly #options: BisectOptions;
  readonly #known = new Map<string, number>();
  readonly #precision: 'fp16' | 'bf16';
  /** What a is cast to if nothing is kept. */
  readonly cast: ReturnType<typeof reportOf>;

  constructor(
    models: ModelPair,
    references: readonly Outputs[],
    precision: 'fp16' | 'bf16',
    options: BisectOptions,
  ) {
    this.#models = models;
    this.#references = references;
    this.#precision = precision;
    this.#options = options;
    this.cast = reportOf(models.a, precision);
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
    const pair = new ModelPair(a, castOf(a, this.#precision, patterns), samples, signal);
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

function reportOf(model: ComparedModel, precision: 'fp16' | 'bf16') {
  const options = model.where;
  return precision === 'fp16'
    ? castToFloat16(model.given, options).report
    : castToBfloat16(model.given, options).report;
}

/** The patterns that name the nodes in 16 bits, in the model's order: names, or operators of nodes without one. */
function patternsOf({ nodes }: ReturnType<typeof reportOf>, model: ComparedModel): string[] {
  const names = new Set(model.given.graph.node.map(({ name }) => name));
  const patterns = nodes.flatMap(({ node, operator, precision }) =>
    precision === 'fp32' ? [] : [names.has(node) ? patternOf(node) : operator],
  );
  return [...new Set(patterns)];
}

/** A pattern that begins with `!` has another meaning. */
function patternOf(name: string): string {
  return name.replace(/^!/, '*');
}

/**
 * The nodes in 16 bits, the most suspicious first: those whose inputs or outputs go beyond the type's largest number,
 * then by their own error.
 */
async function suspects(models: ModelPair, cast: ReturnType<typeof reportOf>): Promise<string[]> {
  const { a, b, samples, signal } = models;
  const errors = new Map<string, number>();
  const note = (name: string, error: number) => errors.set(name, Math.max(errors.get(name) ?? 0, error));
  const pair = new ModelPair(a, castOf(a, b.precision as 'fp16', []), samples, signal);
  const { comparable } = await compareLayers(pair, () => {});
  for (const { node, difference } of comparable) note(labelOf(node), difference.error);
  if (b.precision === 'fp16') {
    const ranges = await measureRanges(a.given, { ...a.where, calibration: samples });
    for (const node of a.given.graph.node) {
      const isBeyond = [...node.input, ...node.output].some((name) => isBeyondFloat16(ranges, name));
      if (isBeyond) note(labelOf(node), Number.POSITIVE_INFINITY);
    }
  }
  const suspicion = (pattern: string) => errors.get(pattern) ?? 0;
  return patternsOf(cast, a).sort((x, y) => {
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
