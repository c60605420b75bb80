import type { GraphProto, NodeProto, TensorProto } from '../format/model.js';
import { type Elements, elementsOf, inferElements, type KnownSizes } from './infer-elements.js';
import { inferShapes } from './infer-shapes.js';
import { Size } from './size.js';

/**
 * The sizes that are known before a graph runs: the shapes of values, and the elements of the short integer vectors
 * that shapes are computed with. All are polynomials in the sizes of the inputs. A value that no rule covers is
 * unknown.
 */
export class SymbolicShapes {
  readonly #shapes = new Map<string, readonly Size[]>();
  readonly #elements = new Map<string, Elements>();
  readonly #known: KnownSizes = {
    shape: (name) => this.#shapes.get(name),
    elements: (name) => this.#elements.get(name),
  };

  /** @param known shapes of the graph's inputs, and of other values if they are known; undefined means unknown */
  constructor(graph: GraphProto, known: ReadonlyMap<string, readonly Size[] | undefined>) {
    for (const [name, shape] of known) if (shape) this.#shapes.set(name, shape);
    for (const tensor of graph.initializer) this.#setTensor(tensor.name!, tensor);
    for (const node of graph.node) this.#infer(node);
  }

  shape(name: string): readonly Size[] | undefined {
    return this.#shapes.get(name);
  }

  /** Sets the shape of a value that a pass has added. */
  setShape(name: string, shape: readonly Size[]): void {
    this.#shapes.set(name, shape);
  }

  /**
   * Returns the elements of a vector or a scalar of integers; undefined if it is another value, or they aren't known.
   */
  elements(name: string): readonly Size[] | undefined {
    return this.#elements.get(name)?.values;
  }

  #setTensor(name: string, tensor: TensorProto): void {
    this.#shapes.set(name, tensor.dims.map(Size.of));
    const elements = elementsOf(tensor);
    if (elements) this.#elements.set(name, elements);
  }

  #infer(node: NodeProto): void {
    const [output = ''] = node.output;
    const elements = inferElements(node, this.#known);
    if (elements) {
      this.#elements.set(output, elements);
      this.#shapes.set(output, elements.dims.map(Size.of));
      return;
    }
    const shapes = inferShapes(node, this.#known);
    node.output.forEach((name, i) => {
      const shape = shapes?.[i];
      if (name && shape && !this.#shapes.has(name)) this.#shapes.set(name, shape);
    });
  }
}
