import { TensorRTError } from '../base/errors.js';
import type { Tensor } from '../execution/tensor.js';
import type { NodeProto } from '../onnx/format/model.js';
import { nodesWithChangedWeights } from './changed-weights.js';
import type { ComparedValue, LayerComparison } from './compare-layers.js';
import { type Outputs, tensorDifference } from './compare-outputs.js';
import { asType } from './compared-model.js';
import type { PartedNode } from './comparison.js';
import { computed, cutGraph } from './cut-graph.js';
import type { ModelPair } from './model-pair.js';

/** Errors of so many nodes are weighed by what they do to the outputs. */
const maxCandidates = 24;

/** An error that causes this part of the largest effect is one that matters. */
const matteringShare = 0.1;

/** The same for what isn't the same in both models. Converters to 16 bits may change what they don't hold. */
const definiteShare = { rounded: 0.01, exact: 0 } as const;

/** The facts about the outputs that the search for the node needs. */
export interface PartingQuestion {
  readonly tolerance: number;
  /** The outputs of a, by sample. */
  readonly references: readonly Outputs[];
  /** The largest relative difference of the outputs. */
  readonly total: number;
}

/**
 * Finds the first node whose own error matters. A node's error may vanish behind it (an infinite mask in a softmax), so
 * it is put into a, whose other nodes compute as they did, to see what it alone does to the outputs.
 *
 * @throws (rejects) TensorRTError ERR_EXECUTION_FAILED …; the signal's reason
 */
export async function findParting(
  models: ModelPair,
  layers: LayerComparison,
  { tolerance, references, total }: PartingQuestion,
  onStep: (step: number, steps: number) => void,
): Promise<PartedNode | null> {
  const changed = nodesWithChangedWeights(models, layers.a, layers.b, layers.pairs);
  const isRounded = models.a.precision !== 'fp32' || models.b.precision !== 'fp32';
  const candidates = layers.comparable
    .filter(
      ({ difference, node }) => difference.error > tolerance || (difference.error > 0 && changed.has(node)),
    )
    .map((value) => ({ value, ...describe(layers, changed, value) }))
    // Rounding makes errors that don't matter as long as the outputs agree. What isn't the same in both models is a
    // defect, however little it does.
    .filter(({ isDefinite }) => !isRounded || isDefinite || !(total <= tolerance))
    .slice(0, maxCandidates);
  const injection = new Injection(models, layers, candidates, references);
  if (candidates.length > 0) await injection.prepare();
  const effects: number[] = [];
  for (const [i, { value }] of candidates.entries()) {
    onStep(i, candidates.length);
    const effect = await injection.effect(value);
    effects.push(effect);
    // Candidates after it rarely change the outputs more.
    if (effect > 0 && effect >= total / 2) break;
  }
  if (candidates.length > 0) onStep(candidates.length, candidates.length);
  const largest = Math.max(...effects);
  const found = effects.findIndex((effect, i) => {
    const share = candidates[i]!.isDefinite ? definiteShare[isRounded ? 'rounded' : 'exact'] : matteringShare;
    return effect === largest || (effect > 0 && (share === 0 || effect >= share * largest));
  });
  return found < 0 ? null : { ...candidates[found]!.parted, effect: effects[found]! };
}

/** Runs a with one value as b's node computes it. */
class Injection {
  readonly #models: ModelPair;
  readonly #layers: LayerComparison;
  readonly #candidates: readonly { readonly value: ComparedValue }[];
  readonly #references: readonly Outputs[];
  /** The results of b's nodes on a's values, by sample. */
  readonly #values: Record<string, Tensor>[] = [];

  constructor(
    models: ModelPair,
    layers: LayerComparison,
    candidates: readonly { readonly value: ComparedValue }[],
    references: readonly Outputs[],
  ) {
    this.#models = models;
    this.#layers = layers;
    this.#candidates = candidates;
    this.#references = references;
  }

  async prepare(): Promise<void> {
    const { types, comparable } = this.#layers;
    const models = this.#models;
    const sources = new Map(comparable.map(({ a, b }) => [b, a]));
    const names = this.#candidates.map(({ value }) => value.b);
    const part = cutGraph(models.b.model, types.b, names, new Set(sources.keys()));
    const wanted = [...new Set(part.fed.map((name) => sources.get(name)!))];
    // The first nodes read nothing but the model's inputs.
    const before = cutGraph(models.a.model, types.a, wanted);
    await using a = wanted.length > 0 ? await models.load('a', before) : undefined;
    await using b = await models.load('b', part);
    for (let sample = 0; sample < models.samples.length; sample++) {
      const given = a ? await a.run(sample) : {};
      const feeds = Object.fromEntries(
        part.fed.map((name) => [name, asType(given[sources.get(name)!]!, types.b.get(name)!)]),
      );
      this.#values.push(await b.run(sample, feeds).catch(ifNotComputable));
    }
  }

  /** The largest relative difference that a value of b makes to the outputs of a. */
  async effect({ a: value, b: other }: ComparedValue): Promise<number> {
    const { types, a } = this.#layers;
    const names = [...this.#models.outputs.names.keys()].filter((name) => a.producers.has(name));
    const others = names.filter((name) => name !== value);
    const part = cutGraph(this.#models.a.model, types.a, others, new Set([value]));
    await using loaded = others.length > 0 ? await this.#models.load('a', part) : undefined;
    let most = 0;
    for (let sample = 0; sample < this.#models.samples.length; sample++) {
      const local = this.#values[sample]![computed(other)];
      if (!local) return Number.POSITIVE_INFINITY;
      const injected = asType(local, types.a.get(value)!);
      const feeds = Object.fromEntries(part.fed.map((name) => [name, injected]));
      const results = loaded ? await loaded.run(sample, feeds).catch(ifNotComputable) : {};
      for (const name of names) {
        const result = name === value ? (injected as Tensor) : results[name];
        if (!result) return Number.POSITIVE_INFINITY;
        most = Math.max(most, tensorDifference(name, this.#references[sample]![name]!, result).relative);
      }
    }
    return most;
  }
}

/** A run that one model's values make impossible, such as by an index beyond a table, gives nothing. */
function ifNotComputable(error: unknown): Record<string, Tensor> {
  if (error instanceof TensorRTError && error.code === 'ERR_EXECUTION_FAILED') return {};
  throw error;
}

/** What is known of a value that differs before its effect is. */
function describe(
  layers: LayerComparison,
  changed: ReadonlySet<NodeProto>,
  { a: value, b: other, node, difference }: ComparedValue,
): { parted: Omit<PartedNode, 'effect'>; isDefinite: boolean } {
  const agreed = new Set(layers.comparable.map((each) => each.a));
  const agreedInB = new Set(layers.comparable.map((each) => each.b));
  const segment = layers.a.segment(value, (name) => agreed.has(name));
  const behind = layers.b.segment(other, (name) => agreedInB.has(name));
  const matched = new Map(layers.pairs.map((pair) => [pair.node, pair]));
  const isCompared = (each: NodeProto) => each === node || each.output.some((name) => agreed.has(name));
  const reshaped = segment.find((each) => matched.has(each) && !isCompared(each));
  const others = new Set(layers.pairs.map((pair) => layers.b.producers.get(pair.b)));
  const missing = missingNode(
    segment.filter((each) => !matched.has(each)),
    behind.filter((each) => !others.has(each)),
  );
  const common = {
    value,
    nodes: segment.map(nameOf),
    error: difference.error,
  };
  const at = (each: NodeProto, kind: PartedNode['kind']) => ({
    parted: { node: nameOf(each), operator: each.opType, ...common, kind },
    isDefinite: kind === 'missing' || kind === 'shape' || changed.has(each),
  });
  if (reshaped) return at(reshaped, 'shape');
  if (missing) return at(missing, 'missing');
  if (difference.error === Number.POSITIVE_INFINITY) return at(node, 'overflow');
  return at(segment.find((each) => changed.has(each)) ?? node, 'value');
}

function nameOf(node: NodeProto): string {
  return node.name || node.output[0] || node.opType;
}

/**
 * The first node of a that b lacks, if b has no other nodes there than some of a's; undefined if it computes the same in
 * another way.
 */
function missingNode(inA: readonly NodeProto[], inB: readonly NodeProto[]): NodeProto | undefined {
  let found = 0;
  for (const node of inA) if (inB[found]?.opType === node.opType) found++;
  if (found < inB.length || inA.length === inB.length) return undefined;
  return inA.find((node, i) => inB[i]?.opType !== node.opType);
}
