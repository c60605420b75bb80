import { dataTypes } from '../../base/data-type.js';
import type { NodeProto } from '../format/model.js';
import { exact, isTypedOutput, operatorName, products } from '../graph/operators.js';
import { captured } from '../graph/traverse.js';
import type { GraphFacts } from './graph-facts.js';

/**
 * Facts about values that follow from the nodes before them. They are traced from node to node, in topological order.
 */
export class ValueTraits {
  readonly #facts: GraphFacts;
  /** Values that a node other than a product reads, and the graph's outputs. */
  readonly #otherReaders: ReadonlySet<string>;
  /** Values that were 32- or 64-bit integers, and results of moving them or calculating with them. */
  readonly #integral = new Set<string>();
  readonly #dequantized = new Set<string>();
  readonly #softmax = new Set<string>();
  /** Values that products compute, and values that follow only from those. */
  readonly #following = new Set<string>();

  constructor(facts: GraphFacts) {
    this.#facts = facts;
    const otherReaders = new Set(facts.outputs);
    for (const node of facts.graph.node) {
      if (products.has(operatorName(node))) continue;
      for (const name of [...node.input, ...captured(node)]) otherReaders.add(name);
    }
    this.#otherReaders = otherReaders;
  }

  isIntegral(value: string): boolean {
    return this.#integral.has(value);
  }

  isDequantized(value: string): boolean {
    return this.#dequantized.has(value);
  }

  /**
   * True if a node reads only the results of products, and values that follow from them.
   * @param inputs the inputs that are float32
   */
  followsProducts(node: NodeProto, inputs: readonly number[]): boolean {
    // PyTorch guards a softmax with Where(IsNaN(p), 0, p). TensorRT's attention fusion wants the cast before the guard,
    // and fails to compile if it comes after. No precision is lost, because p lies in [0, 1] and only products read it
    // next.
    const isGuard = operatorName(node) === 'Where' && !this.#otherReaders.has(node.output[0]!);
    const follows = (name: string) => this.#following.has(name) || (isGuard && this.#softmax.has(name));
    const names = inputs.map((i) => node.input[i]!).filter((name) => !this.#facts.constants.has(name));
    return names.length > 0 && names.every(follows);
  }

  /**
   * Records the traits of a node's outputs that affect the choice for the nodes that read them.
   * @param inputs the inputs that are float32
   * @param mayBeLow whether the node may compute in 16 bits
   */
  trace(node: NodeProto, inputs: readonly number[], mayBeLow: boolean): void {
    const facts = this.#facts;
    const operator = operatorName(node);
    const name = node.output[0];
    if (!name) return;
    const variable = inputs.filter((i) => !facts.constants.has(node.input[i]!));
    const all = (set: ReadonlySet<string>) =>
      variable.length > 0 && variable.every((i) => set.has(node.input[i]!));
    const carries = exact.has(operator);
    if (
      (operator === 'Cast' && isWideInteger(facts.typeOf(node))) ||
      (operator === 'Range' && facts.isFloat32(name)) ||
      (carries && all(this.#integral)) ||
      (products.has(operator) && inputs.some((i) => this.#integral.has(node.input[i]!)))
    ) {
      for (const output of node.output) this.#integral.add(output);
    }
    if (
      operator === 'DequantizeLinear' ||
      (carries && inputs.some((i) => this.#dequantized.has(node.input[i]!)))
    ) {
      for (const output of node.output) this.#dequantized.add(output);
    }
    if (operator === 'Softmax' && facts.isFloat32(name)) this.#softmax.add(name);
    const isTable = operator === 'Gather' && facts.constants.has(node.input[0]!);
    const follows = products.has(operator) || this.followsProducts(node, inputs);
    if (mayBeLow && follows && !isTable && operator !== 'Cast') {
      node.output.forEach((output, i) => {
        if (isTypedOutput(operator, i)) this.#following.add(output);
      });
    }
  }
}

/** True for integer types that 16 bits of floating point don't hold exactly. */
export function isWideInteger(type: number | undefined): boolean {
  const { int32, int64, uint32, uint64 } = dataTypes;
  return [int32, int64, uint32, uint64].some(({ onnx }) => type === onnx);
}
