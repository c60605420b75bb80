import type { Tensor } from '../execution/tensor.js';
import type { NodeProto } from '../onnx/format/model.js';
import { nodesWithChangedWeights } from './changed-weights.js';
import type { ComparedValue, LayerComparison } from './compare-layers.js';
import { type Outputs, tensorDifference } from './compare-outputs.js';
import { asType } from './compared-model.js';
import type { PartedNode } from './comparison.js';
import { cutGraph } from './cut-graph.js';
import type { ModelPair } from './model-pair.js';

/** Errors of so many nodes are weighed by what they do to the outputs. */
const maxCandidates = 24;

/** An error that causes this part of the largest effect is one that matters. */
const matteringShare = 0.1;

/** What finding the node needs to know about the outputs. */
export interface PartingQuestion {
  readonly tolerance: number;
  /** What the outputs of a are, by sample. */
  readonly references: readonly Outputs[];
  /** The largest relative difference of the outputs. */
  readonly total: number;
}

/**
 * Finds the first node whose own error matters. A node's error may vanish behind it (an infinite mask in a softmax), so
 * those of all nodes but one are taken away, by feeding what a computes, to see what that one does to the outputs.
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
  const candidates = layers.comparable
    .filter(
      ({ difference, node }) => difference.error > tolerance || (difference.error > 0 && changed.has(node)),
    )
    .slice(0, maxCandidates);
  const [first] = candidates;
  if (!first) return null;
  const patcher = new Patcher(models, layers, candidates, references);
  await patcher.prepare();
  const steps = candidates.length + 1;
  onStep(0, steps);
  // What remains when none of these errors is there.
  const rest = await patcher.effect([]);
  const effects: number[] = [];
  for (const [i, candidate] of candidates.entries()) {
    onStep(i + 1, steps);
    // Without others to take away, it is what the whole model does.
    const effect = candidates.length === 1 ? total : await patcher.effect([candidate]);
    effects.push(effect);
    const isLarge = effect === Number.POSITIVE_INFINITY || effect >= total / 2;
    if (isLarge && effect > 2 * rest) return partedAt(layers, changed, candidate, effect);
  }
  onStep(steps, steps);
  const largest = Math.max(...effects);
  const found = effects.findIndex((effect) => effect > 2 * rest && effect >= matteringShare * largest);
  if (found >= 0) return partedAt(layers, changed, candidates[found]!, effects[found]!);
  // A weight that isn't the same is a defect, however little it does.
  const wrong = candidates.findIndex(({ node }) => changed.has(node));
  if (wrong >= 0) return partedAt(layers, changed, candidates[wrong]!, effects[wrong]!);
  // Rounding to 16 bits makes errors that don't matter. Between models in FP32 the first is worth a look.
  const isRounded = models.a.precision !== 'fp32' || models.b.precision !== 'fp32';
  return isRounded && total <= tolerance ? null : partedAt(layers, changed, first, effects[0]!);
}

/** Runs b with some values taken from a. */
class Patcher {
  readonly #models: ModelPair;
  readonly #layers: LayerComparison;
  readonly #candidates: readonly ComparedValue[];
  readonly #references: readonly Outputs[];
  /** What a computes for the candidates, by sample. */
  readonly #values: Record<string, Tensor>[] = [];

  constructor(
    models: ModelPair,
    layers: LayerComparison,
    candidates: readonly ComparedValue[],
    references: readonly Outputs[],
  ) {
    this.#models = models;
    this.#layers = layers;
    this.#candidates = candidates;
    this.#references = references;
  }

  async prepare(): Promise<void> {
    const names = this.#candidates.map(({ a }) => a);
    const part = cutGraph(this.#models.a.model, this.#layers.types.a, names);
    await using loaded = await this.#models.load('a', part);
    for (let sample = 0; sample < this.#models.samples.length; sample++) {
      this.#values.push(await loaded.run(sample));
    }
  }

  /** The largest relative difference of the outputs if all candidates but these are what a computes. */
  async effect(kept: readonly ComparedValue[]): Promise<number> {
    const { types } = this.#layers;
    const patched = this.#candidates.filter((candidate) => !kept.includes(candidate));
    const sources = new Map(patched.map(({ a, b }) => [b, a]));
    // An output that is taken from a doesn't differ.
    const outputs = [...this.#models.outputs.names].filter(([, other]) => !sources.has(other));
    if (outputs.length === 0) return 0;
    const others = outputs.map(([, other]) => other);
    const isComputed = (name: string) => this.#layers.b.producers.has(name);
    const part = cutGraph(this.#models.b.model, types.b, others.filter(isComputed), new Set(sources.keys()));
    if (part.model.graph.output.length === 0) return 0;
    await using loaded = await this.#models.load('b', part);
    let most = 0;
    for (let sample = 0; sample < this.#models.samples.length; sample++) {
      const feeds = Object.fromEntries(
        part.fed.map((name) => {
          const value = this.#values[sample]![sources.get(name)!]!;
          return [name, asType(value, types.b.get(name)!)];
        }),
      );
      const results = await loaded.run(sample, feeds);
      for (const [name, other] of outputs) {
        const result = results[other];
        if (!result) continue;
        most = Math.max(most, tensorDifference(name, this.#references[sample]![name]!, result).relative);
      }
    }
    return most;
  }
}

function partedAt(
  layers: LayerComparison,
  changed: ReadonlySet<NodeProto>,
  { a: value, b: other, node, difference }: ComparedValue,
  effect: number,
): PartedNode {
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
    effect,
  };
  const at = (each: NodeProto, kind: PartedNode['kind']): PartedNode => ({
    node: nameOf(each),
    operator: each.opType,
    ...common,
    kind,
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
