import type { ModelProto, NodeProto, TensorProto } from '../onnx/format/model.js';
import { tensorAttribute } from '../onnx/graph/node-attribute.js';
import { operatorName } from '../onnx/graph/operators.js';
import { captured } from '../onnx/graph/traverse.js';
import { castType, valueTypes } from '../onnx/graph/value-types.js';
import { isFloat } from './float-type.js';

/** Answers matching's questions about a graph: which node computes a value, and whether it depends on the inputs. */
export class ComparedGraph {
  readonly nodes: readonly NodeProto[];
  readonly types: ReadonlyMap<string, number>;
  readonly producers = new Map<string, NodeProto>();
  readonly readers = new Map<string, NodeProto[]>();
  /** Nodes whose values depend on the graph's inputs, and that do more than to cast or rename a value. */
  readonly computing: readonly NodeProto[];
  readonly #varying: ReadonlySet<string>;
  readonly #weights: ReadonlyMap<string, TensorProto>;

  constructor({ graph }: ModelProto) {
    this.nodes = graph.node;
    this.types = valueTypes(graph);
    const weights = new Map(graph.initializer.map((tensor) => [tensor.name ?? '', tensor]));
    this.#weights = weights;
    const varying = new Set(graph.input.map(({ name }) => name).filter((name) => !weights.has(name)));
    for (const node of graph.node) {
      const reads = readsOf(node);
      const varies = reads.some((name) => varying.has(name)) || isRandom(node);
      for (const name of node.output) {
        if (name === '') continue;
        this.producers.set(name, node);
        if (varies) varying.add(name);
      }
      for (const name of new Set(reads)) {
        const readers = this.readers.get(name);
        if (readers) readers.push(node);
        else this.readers.set(name, [node]);
      }
    }
    this.#varying = varying;
    this.computing = graph.node.filter(
      (node) => node.output.some((name) => varying.has(name)) && !this.isTransparent(node),
    );
  }

  varies(value: string): boolean {
    return this.#varying.has(value);
  }

  /** The tensor of a weight or of a Constant node, before it was cast or renamed. */
  weight(value: string): TensorProto | undefined {
    const root = this.root(value);
    const node = this.producers.get(root);
    return node?.opType === 'Constant' ? tensorAttribute(node, 'value') : this.#weights.get(root);
  }

  /** True for nodes whose output is their input: renamed, or cast from one floating-point type to another. */
  isTransparent(node: NodeProto): boolean {
    const operator = operatorName(node);
    if (operator === 'Identity') return true;
    if (operator !== 'Cast') return false;
    return isFloat(castType(node)) && isFloat(this.types.get(node.input[0] ?? ''));
  }

  /** The value that this one is, before it was cast and renamed. */
  root(value: string): string {
    let name = value;
    for (let node = this.producers.get(name); node && this.isTransparent(node); ) {
      name = node.input[0]!;
      node = this.producers.get(name);
    }
    return name;
  }

  /** The nodes that read a value, also once it was cast or renamed. */
  readersOf(root: string): NodeProto[] {
    return (this.readers.get(root) ?? []).flatMap((node) =>
      this.isTransparent(node) ? this.readersOf(node.output[0]!) : [node],
    );
  }

  /** The nodes behind a value, back to the values where `isEnd` holds, in the graph's order; without casts and constants. */
  segment(value: string, isEnd: (name: string) => boolean): NodeProto[] {
    const found = new Set<NodeProto>();
    const stack = [value];
    for (let first = true; stack.length > 0; first = false) {
      const name = stack.pop()!;
      if (!first && isEnd(name)) continue;
      const node = this.producers.get(name);
      if (!node || found.has(node) || !this.varies(name)) continue;
      found.add(node);
      stack.push(...readsOf(node));
    }
    return this.nodes.filter((node) => found.has(node) && !this.isTransparent(node));
  }
}

/** The values that a node and its bodies read. */
export function readsOf(node: NodeProto): string[] {
  return [...node.input, ...captured(node)].filter((name) => name !== '');
}

function isRandom({ opType }: NodeProto): boolean {
  return /^(Random|Multinomial|Bernoulli)/.test(opType);
}
