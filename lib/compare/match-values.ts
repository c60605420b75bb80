import { isDeepStrictEqual } from 'node:util';
import type { NodeProto, TensorProto } from '../onnx/format/model.js';
import { operatorName } from '../onnx/graph/operators.js';
import type { ComparedGraph } from './compared-graph.js';

/** A value of a and the one of b that corresponds to it. */
export interface ValuePair {
  readonly a: string;
  readonly b: string;
  /** The node of a that computes it. */
  readonly node: NodeProto;
  /** The number of the node's output. */
  readonly output: number;
}

/** The facts about two graphs that matching starts from. */
export interface KnownFacts {
  /** From inputs of a to inputs of b. */
  readonly inputs: ReadonlyMap<string, string>;
  /** From outputs of a to outputs of b. */
  readonly outputs: ReadonlyMap<string, string>;
  /** True if a weight of a and one of b are the same, apart from rounding. */
  readonly areSame: (a: TensorProto, b: TensorProto) => boolean;
}

/**
 * Finds for each value that a computes the one of b that corresponds to it. If most nodes of a are in b under the same
 * name, as in pruned and cast models, names decide. Otherwise, and where a name is missing, both graphs are followed in
 * step: the same operator on the same values gives the same value. Where that ends, because one graph computes something
 * in another way, a node with the same weights begins again. Casts between floating-point types and Identity count for
 * nothing.
 *
 * @returns the pairs in the order in which a computes them
 */
export function matchValues(
  a: ComparedGraph,
  b: ComparedGraph,
  { inputs, outputs, areSame }: KnownFacts,
): ValuePair[] {
  const matcher = new Matcher(a, b, inputs, areSame);
  for (const node of a.computing) matcher.match(node);
  return matcher.withOutputs(outputs);
}

/** Names count if at least this part of a's nodes is found in b by name. */
const trustedShare = 0.5;

/** Operators whose inputs may come in any order. */
const commutative = new Set(['Add', 'Mul', 'Max', 'Min', 'Sum', 'Mean', 'And', 'Or', 'Xor', 'Equal']);

class Matcher {
  readonly #a: ComparedGraph;
  readonly #b: ComparedGraph;
  /** From values of a to values of b, neither of them cast or renamed. */
  readonly #pairs = new Map<string, string>();
  readonly #used = new Set<NodeProto>();
  readonly #byName = new Map<string, NodeProto>();
  readonly #areNamesTrusted: boolean;
  readonly #areSame: KnownFacts['areSame'];

  constructor(
    a: ComparedGraph,
    b: ComparedGraph,
    inputs: KnownFacts['inputs'],
    areSame: KnownFacts['areSame'],
  ) {
    this.#areSame = areSame;
    this.#a = a;
    this.#b = b;
    for (const [from, to] of inputs) this.#pairs.set(from, to);
    for (const node of b.computing) this.#byName.set(nameOf(node), node);
    const found = a.computing.filter((node) => this.#named(node)).length;
    this.#areNamesTrusted = found >= trustedShare * a.computing.length;
  }

  match(node: NodeProto): void {
    const other =
      (this.#areNamesTrusted ? this.#named(node) : undefined) ??
      this.#inStep(node) ??
      this.#withBias(node) ??
      this.#sameWeights(node);
    if (!other) return;
    this.#used.add(other);
    node.output.forEach((name, i) => {
      const to = other.output[i];
      if (name && to) this.#pairs.set(name, to);
    });
  }

  /** All pairs, and the graphs' outputs too. */
  withOutputs(outputs: KnownFacts['outputs']): ValuePair[] {
    const taken = new Set(this.#pairs.values());
    for (const [from, to] of outputs) {
      const [x, y] = [this.#a.root(from), this.#b.root(to)];
      if (!this.#a.producers.has(x) || !this.#b.producers.has(y)) continue;
      if (!this.#pairs.has(x) && !taken.has(y)) this.#pairs.set(x, y);
    }
    return this.#a.computing.flatMap((node) =>
      node.output.flatMap((name, output) => {
        const to = this.#pairs.get(name);
        return to === undefined || !this.#b.varies(to) ? [] : [{ a: name, b: to, node, output }];
      }),
    );
  }

  #named(node: NodeProto): NodeProto | undefined {
    const named = this.#byName.get(nameOf(node));
    if (named && !this.#used.has(named) && operatorName(named) === operatorName(node)) return named;
    // A node may have become another one, or several, that give a value of the same name.
    const name = node.output[0] ?? '';
    const producer = name === '' ? undefined : this.#b.producers.get(this.#b.root(name));
    if (!producer || this.#used.has(producer) || !this.#b.varies(name)) return undefined;
    const isSame = producer.output.includes(name) || operatorName(producer) === operatorName(node);
    return isSame ? producer : undefined;
  }

  /** The node of b that applies the same operator to the same values. */
  #inStep(node: NodeProto): NodeProto | undefined {
    const varying = node.input.filter((name) => this.#a.varies(name));
    const [first] = varying;
    const from = first === undefined ? undefined : this.#pairs.get(this.#a.root(first));
    if (from === undefined) return undefined;
    const candidates = [...new Set(this.#b.readersOf(from))].filter(
      (other) => !this.#used.has(other) && this.#isInStep(node, other),
    );
    return (
      candidates.find((other) => nameOf(other) === nameOf(node)) ??
      candidates.find((other) => isDeepStrictEqual(constants(this.#a, node), constants(this.#b, other))) ??
      candidates[0]
    );
  }

  /** A Gemm is a MatMul and an Add: what the last of them gives is the same value. */
  #withBias(node: NodeProto): NodeProto | undefined {
    const operator = operatorName(node);
    const [a, b] = [this.#a, this.#b];
    if (operator === 'Gemm' && node.input[2]) {
      const product = this.#product(node);
      const [sum] = product ? b.readersOf(product.output[0]!) : [];
      const isSum = sum && operatorName(sum) === 'Add' && sum.input.some((name) => !b.varies(name));
      return isSum && !this.#used.has(sum) ? sum : undefined;
    }
    if (operator !== 'Add' || node.input.every((name) => a.varies(name))) return undefined;
    const before = a.producers.get(a.root(node.input.find((name) => a.varies(name)) ?? ''));
    if (!before || operatorName(before) !== 'MatMul') return undefined;
    const product = this.#product(before);
    return product?.input[2] ? product : undefined;
  }

  /** For a Gemm the MatMul of b with the same factors, for a MatMul the Gemm. */
  #product(node: NodeProto): NodeProto | undefined {
    const from = this.#pairs.get(this.#a.root(node.input[0]!));
    const wanted = operatorName(node) === 'Gemm' ? 'MatMul' : 'Gemm';
    const size = (graph: ComparedGraph, name: string) => String(graph.weight(name)?.dims.toSorted());
    if (from === undefined) return undefined;
    return this.#b
      .readersOf(from)
      .find(
        (other) =>
          operatorName(other) === wanted &&
          !this.#used.has(other) &&
          size(this.#b, other.input[1]!) === size(this.#a, node.input[1]!),
      );
  }

  /** The only node of b with the same operator and the same weights. */
  #sameWeights(node: NodeProto): NodeProto | undefined {
    const weights = weightsOf(this.#a, node);
    if (weights.length === 0) return undefined;
    const operator = operatorName(node);
    const same = this.#b.computing.filter((other) => {
      if (operatorName(other) !== operator || other.input.length !== node.input.length) return false;
      if (this.#used.has(other)) return false;
      return weights.every(([i, weight]) => {
        const found = this.#b.weight(other.input[i]!);
        return found !== undefined && this.#areSame(weight, found);
      });
    });
    return same.length === 1 ? same[0] : undefined;
  }

  #isInStep(node: NodeProto, other: NodeProto): boolean {
    const operator = operatorName(node);
    if (operator !== operatorName(other) || node.input.length !== other.input.length) return false;
    const expected = node.input.map((name) =>
      this.#a.varies(name) ? this.#pairs.get(this.#a.root(name)) : '',
    );
    const actual = other.input.map((name) => (this.#b.varies(name) ? this.#b.root(name) : ''));
    if (expected.includes(undefined)) return false;
    if (isDeepStrictEqual(expected, actual)) return true;
    return commutative.has(operator) && isDeepStrictEqual(expected.sort(), actual.sort());
  }
}

/** As casts name nodes that had no name. */
function nameOf(node: NodeProto): string {
  return node.name || node.output[0] || '';
}

/** The names of the constants that a node reads. */
function constants(graph: ComparedGraph, node: NodeProto): string[] {
  return node.input.filter((name) => name !== '' && !graph.varies(name)).map((name) => graph.root(name));
}

/** A vector with fewer elements says little about which node it belongs to. */
const minWeightElements = 8;

/** The weights that a node reads, with the numbers of its inputs; none that are small. */
function weightsOf(graph: ComparedGraph, node: NodeProto): [number, TensorProto][] {
  return node.input.flatMap((name, i): [number, TensorProto][] => {
    const weight = name === '' ? undefined : graph.weight(name);
    const isLarge = weight && weight.dims.reduce((product, size) => product * size, 1) >= minWeightElements;
    return isLarge ? [[i, weight]] : [];
  });
}
