import type { TensorLike } from '../base/tensor-like.js';
import type { LoadedSession } from '../execution/loaded-session.js';
import { feedsCalled } from '../execution/run-request.js';
import type { Tensor } from '../execution/tensor.js';
import type { SampleInputs } from './compare-options.js';
import { OutputComparison, type OutputPairs, type Outputs, pairOutputs } from './compare-outputs.js';
import { type ComparedModel, feedsFor, pairInputs } from './compared-model.js';
import type { OutputDifference } from './comparison.js';
import type { CutGraph } from './cut-graph.js';

/** Two models, and the samples that they are compared on. */
export class ModelPair {
  readonly a: ComparedModel;
  readonly b: ComparedModel;
  readonly samples: readonly SampleInputs[];
  readonly signal: AbortSignal | undefined;
  /** From inputs of b to inputs of a. */
  readonly inputs: ReadonlyMap<string, string>;
  readonly outputs: OutputPairs;

  constructor(
    a: ComparedModel,
    b: ComparedModel,
    samples: readonly SampleInputs[],
    signal: AbortSignal | undefined,
  ) {
    this.a = a;
    this.b = b;
    this.samples = samples;
    this.signal = signal;
    this.inputs = pairInputs(a, b);
    this.outputs = pairOutputs(a, b);
  }

  /** The inputs of a or b for a sample. */
  feeds(side: 'a' | 'b', sample: number): Record<string, TensorLike> {
    const feeds = this.samples[sample]!;
    return side === 'a' ? feedsFor(this.a, feeds) : feedsFor(this.b, feeds, this.inputs);
  }

  /** Loads a part of a model. */
  async load(side: 'a' | 'b', part: CutGraph): Promise<LoadedPart> {
    this.signal?.throwIfAborted();
    return new LoadedPart(this, side, part, await this[side].load(part.model));
  }

  /** Runs a whole model on every sample; only `names` are fetched. */
  async runWhole(side: 'a' | 'b', names: readonly string[]): Promise<Outputs[]> {
    this.signal?.throwIfAborted();
    await using session = await this[side].load();
    const results: Outputs[] = [];
    for (let sample = 0; sample < this.samples.length; sample++) {
      const feeds = this.feeds(side, sample);
      results.push(
        await session.run(feeds, names, this.#runOptions).catch(feedsCalled(`options.inputs[${sample}]`)),
      );
    }
    return results;
  }

  /** Compares the outputs of b with those of a. */
  compareOutputs(references: readonly Outputs[], others: readonly Outputs[]): OutputDifference[] {
    return [...this.outputs.names].map(([name, other]) => {
      const comparison = new OutputComparison(name, other, this.outputs.pairedBy);
      references.forEach((reference, i) => {
        comparison.add(reference[name]!, others[i]![other]!);
      });
      return comparison.result;
    });
  }

  get #runOptions() {
    return this.signal ? { signal: this.signal } : {};
  }
}

/** A loaded part of a model. */
export class LoadedPart implements AsyncDisposable {
  readonly #pair: ModelPair;
  readonly #side: 'a' | 'b';
  readonly #part: CutGraph;
  readonly #session: LoadedSession;

  constructor(pair: ModelPair, side: 'a' | 'b', part: CutGraph, session: LoadedSession) {
    this.#pair = pair;
    this.#side = side;
    this.#part = part;
    this.#session = session;
  }

  /** Runs on a sample. `fed` are the values that the part doesn't compute. */
  async run(sample: number, fed: Readonly<Record<string, TensorLike>> = {}): Promise<Record<string, Tensor>> {
    const { signal } = this.#pair;
    const own = this.#pair.feeds(this.#side, sample);
    const inputs = Object.fromEntries(this.#part.inputs.map((name) => [name, own[name]!]));
    return this.#session.run({ ...inputs, ...fed }, this.#session.outputNames, signal ? { signal } : {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.dispose();
  }
}
