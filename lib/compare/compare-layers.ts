import { dataTypeFromOnnx } from '../base/data-type.js';
import { TensorRTError } from '../base/errors.js';
import type { Dims } from '../base/tensor-like.js';
import type { Tensor } from '../execution/tensor.js';
import type { GraphProto, ModelProto } from '../onnx/format/model.js';
import { areSameWeights } from './changed-weights.js';
import { ComparedGraph } from './compared-graph.js';
import { asType } from './compared-model.js';
import type { LayerDifference } from './comparison.js';
import { computed, cutGraph } from './cut-graph.js';
import { type Difference, differenceOf, localError, numbersOf, worst } from './difference.js';
import { matchValues, type ValuePair } from './match-values.js';
import type { ModelPair } from './model-pair.js';

/** Values are compared in groups of about this many bytes in one model. */
const groupBytes = 128 * 2 ** 20;

/** The differences between values inside two models. */
export interface LayerComparison {
  readonly a: ComparedGraph;
  readonly b: ComparedGraph;
  /** Element types of the values of the models that run, where 16 bits are simulated. */
  readonly types: { readonly a: ReadonlyMap<string, number>; readonly b: ReadonlyMap<string, number> };
  /** All values that correspond, also those that can't be compared. */
  readonly pairs: readonly ValuePair[];
  /** The pairs whose dimensions are the same. */
  readonly comparable: readonly ComparedValue[];
}

/** A value that was compared. */
export interface ComparedValue extends ValuePair {
  readonly difference: LayerDifference;
}

/** The difference of one value in one sample. */
interface Measured {
  readonly difference: Difference;
  readonly error: number;
}

/** A pair of values with the dimensions that both have. */
interface Sized {
  readonly pair: ValuePair;
  readonly dims: Dims;
  readonly bytes: number;
}

/**
 * Compares the values inside two models, each in two ways: as b computes it, and as b's node computes it from what a
 * has computed so far. The second is what the node itself does wrong.
 *
 * @throws (rejects) TensorRTError ERR_EXECUTION_FAILED, ERR_OUT_OF_MEMORY …; the signal's reason
 */
export async function compareLayers(
  models: ModelPair,
  onStep: (step: number, steps: number) => void,
): Promise<LayerComparison> {
  const [a, b] = [new ComparedGraph(models.a.given), new ComparedGraph(models.b.given)];
  const types = {
    a: new ComparedGraph(models.a.model).types,
    b: new ComparedGraph(models.b.model).types,
  };
  const inputs = new Map([...models.inputs].map(([other, name]) => [name, other]));
  const pairs = matchValues(a, b, {
    inputs,
    outputs: models.outputs.names,
    areSame: (x, y) => areSameWeights(models, x, y),
  });
  const numeric = pairs.filter((pair) => isNumeric(types.a.get(pair.a)) && isNumeric(types.b.get(pair.b)));
  const sized = await withSizes(models, numeric, types);
  const comparer = new LayerComparer(models, types, sized);
  const groups = grouped(sized);
  const comparable: ComparedValue[] = [];
  for (const [step, group] of groups.entries()) {
    onStep(step, groups.length);
    comparable.push(...(await comparer.compare(group)));
  }
  onStep(groups.length, groups.length);
  return { a, b, types, pairs, comparable };
}

function isNumeric(type: number | undefined): boolean {
  const name = type === undefined ? undefined : dataTypeFromOnnx(type);
  return name !== undefined && name !== 'string';
}

/** Pairs whose dimensions are the same in both models, in every sample. */
async function withSizes(
  models: ModelPair,
  pairs: readonly ValuePair[],
  types: LayerComparison['types'],
): Promise<Sized[]> {
  const shapesOf = async (side: 'a' | 'b', names: readonly string[]) => {
    const part = cutGraph(models[side].model, types[side], names);
    await using loaded = await models.load(side, { ...part, model: withShapes(part.model, names) });
    const samples: Dims[][] = [];
    for (let sample = 0; sample < models.samples.length; sample++) {
      const shapes = await loaded.run(sample);
      samples.push(names.map((name) => Array.from(shapes[shapeOf(name)]!.data as BigInt64Array, Number)));
    }
    return samples;
  };
  if (pairs.length === 0) return [];
  const inA = await shapesOf(
    'a',
    pairs.map((pair) => pair.a),
  );
  const inB = await shapesOf(
    'b',
    pairs.map((pair) => pair.b),
  );
  return pairs.flatMap((pair, i) => {
    const isSame = inA.every((shapes, sample) => String(shapes[i]) === String(inB[sample]![i]));
    if (!isSame) return [];
    const sizes = inA.map((shapes) => shapes[i]!.reduce((product, size) => product * size, 1));
    return [{ pair, dims: inA[0]![i]!, bytes: 4 * Math.max(...sizes) }];
  });
}

const shapeOf = (name: string) => `node-tensorrt.shape.${name}`;

function withShapes(model: ModelProto, names: readonly string[]): ModelProto {
  const { graph } = model;
  const probes = names.map((name) => ({
    name: shapeOf(name),
    opType: 'Shape',
    input: [name],
    output: [shapeOf(name)],
    attribute: [],
  }));
  const output: GraphProto['output'] = names.map((name) => ({
    name: shapeOf(name),
    type: { tensorType: { elemType: 7 } },
  }));
  return { ...model, graph: { ...graph, node: [...graph.node, ...probes], output } };
}

function grouped(values: readonly Sized[]): Sized[][] {
  const groups: Sized[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const value of values) {
    if (bytes + value.bytes > groupBytes) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(value);
    bytes += value.bytes;
  }
  return groups;
}

class LayerComparer {
  readonly #models: ModelPair;
  readonly #types: LayerComparison['types'];
  /** The values of b that can be fed, with their names in a. */
  readonly #sources: ReadonlyMap<string, string>;

  constructor(models: ModelPair, types: LayerComparison['types'], values: readonly Sized[]) {
    this.#models = models;
    this.#types = types;
    this.#sources = new Map(values.map(({ pair }) => [pair.b, pair.a]));
  }

  async compare(group: readonly Sized[]): Promise<ComparedValue[]> {
    const models = this.#models;
    const types = this.#types;
    const names = group.map(({ pair }) => pair.b);
    const cut = new Set(this.#sources.keys());
    const local = cutGraph(models.b.model, types.b, names, cut);
    const fed = new Map(local.fed.map((name) => [name, this.#sources.get(name)!]));
    const wanted = new Set([...group.map(({ pair }) => pair.a), ...fed.values()]);
    const measured: Measured[][] = group.map(() => []);
    await using a = await models.load('a', cutGraph(models.a.model, types.a, [...wanted]));
    await using b = await models.load('b', cutGraph(models.b.model, types.b, names));
    await using alone = await models.load('b', local);
    for (let sample = 0; sample < models.samples.length; sample++) {
      const references = await a.run(sample);
      const others = await b.run(sample);
      const feeds = Object.fromEntries(
        [...fed].map(([name, source]) => [name, asType(references[source]!, types.b.get(name)!)]),
      );
      const locals = await alone.run(sample, feeds).catch((error: unknown) => {
        if (!(error instanceof TensorRTError) || error.code !== 'ERR_EXECUTION_FAILED') throw error;
        return undefined;
      });
      // A value that b can't compute from what a gives, such as an index beyond a smaller table.
      if (!locals && group.length > 1) return this.#compareHalves(group);
      for (const [i, { pair }] of group.entries()) {
        const reference = numbersOf(references[pair.a]!)!;
        measured[i]!.push({
          difference: differenceOf(reference, numbersOf(others[pair.b]!)!),
          error: errorOf(reference, locals?.[computed(pair.b)]),
        });
      }
    }
    return group.map(({ pair, dims }, i) => {
      const { node } = pair;
      const difference: LayerDifference = {
        node: node.name || node.output[0] || node.opType,
        operator: node.opType,
        value: pair.a,
        other: pair.b,
        dims,
        ...worst(measured[i]!.map((sample) => sample.difference)),
        error: measured[i]!.reduce((most, { error }) => Math.max(most, error), 0),
      };
      return { ...pair, difference };
    });
  }

  async #compareHalves(group: readonly Sized[]): Promise<ComparedValue[]> {
    const half = group.length >> 1;
    return [...(await this.compare(group.slice(0, half))), ...(await this.compare(group.slice(half)))];
  }
}

function errorOf(reference: ReturnType<typeof numbersOf>, local: Tensor | undefined): number {
  const numbers = local && numbersOf(local);
  if (!reference || !numbers || numbers.length !== reference.length) return Number.POSITIVE_INFINITY;
  return localError(reference, numbers);
}
