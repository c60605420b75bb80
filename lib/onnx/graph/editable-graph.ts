import { type DataType, dataTypes } from '../../base/data-type.js';
import { type FloatType, floatTensor } from '../format/float-tensor.js';
import { type ElementArray, makeTensor } from '../format/initializer.js';
import type { GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto } from '../format/model.js';
import { madeFrom } from '../format/weight-origin.js';
import { type AttributeValue, attributeProto, type SymbolicDims, valueInfo } from './graph-builder.js';
import { tensorAttribute } from './node-attribute.js';
import { captured, collectNames, uniqueName } from './traverse.js';

/**
 * A graph that passes can change. A pass may add nodes in any order, replace them, or leave them unused; {@link
 * EditableGraph.finish} drops the nodes that no output needs and sorts the rest. The weights are shared with the given
 * model, which doesn't change.
 */
export class EditableGraph {
  readonly inputs: ValueInfoProto[];
  readonly outputs: ValueInfoProto[];
  readonly #model: ModelProto;
  readonly #nodes: Set<NodeProto>;
  readonly #initializers = new Map<string, TensorProto>();
  readonly #producers = new Map<string, NodeProto>();
  readonly #readers = new Map<string, Set<NodeProto>>();
  readonly #names = new Set<string>();
  readonly #domains = new Set<string>();

  constructor(model: ModelProto) {
    const { graph } = model;
    this.#model = model;
    this.inputs = [...graph.input];
    this.outputs = [...graph.output];
    collectNames(graph, this.#names);
    for (const tensor of graph.initializer) this.#initializers.set(tensor.name!, tensor);
    this.#nodes = new Set(
      graph.node.map((node) => ({ ...node, input: [...node.input], output: [...node.output] })),
    );
    for (const node of this.#nodes) this.#index(node);
  }

  get nodes(): Iterable<NodeProto> {
    return this.#nodes;
  }

  /** The node that computes a value; undefined for inputs and weights. */
  producer(value: string | undefined): NodeProto | undefined {
    return value ? this.#producers.get(value) : undefined;
  }

  /** Nodes that read a value, directly or in their bodies. */
  readers(value: string): readonly NodeProto[] {
    return [...(this.#readers.get(value) ?? [])];
  }

  isOutput(value: string): boolean {
    return this.outputs.some(({ name }) => name === value);
  }

  initializer(value: string): TensorProto | undefined {
    return this.#initializers.get(value);
  }

  /** The tensor of a weight or of a Constant node. */
  constant(value: string | undefined): TensorProto | undefined {
    if (!value) return undefined;
    const node = this.#producers.get(value);
    if (node?.opType !== 'Constant') return this.#initializers.get(value);
    return tensorAttribute(node, 'value');
  }

  /** Returns the constants that values are computed from. Each has the name that nodes read it by. */
  constantsBehind(values: readonly string[]): TensorProto[] {
    const constants: TensorProto[] = [];
    const seen = new Set(values);
    // A loop over a set also visits the elements that are added while it runs.
    for (const value of seen) {
      const tensor = this.constant(value);
      if (tensor) constants.push({ ...tensor, name: value });
      const node = this.#producers.get(value);
      if (node) for (const input of reads(node)) seen.add(input);
    }
    return constants;
  }

  /** Adds a constant that isn't made from weights, such as a number, a shape or positions. */
  addConstant(
    base: string,
    type: Exclude<DataType, 'string'>,
    dims: readonly number[],
    data: ElementArray,
  ): string {
    const name = this.uniqueName(base);
    return this.addTensor(madeFrom(makeTensor(name, type, dims, data), [], 'computed'));
  }

  /** Adds a weight under its own name. The tensor must record what it was made from: see `madeFrom`. */
  addTensor(tensor: TensorProto): string {
    this.#initializers.set(tensor.name!, tensor);
    this.#names.add(tensor.name!);
    return tensor.name!;
  }

  /** Adds a floating-point scalar. Equal scalars are stored once. */
  addScalar(value: number, type: FloatType = 'float32'): string {
    const name = `constant.${type}.${value}`;
    if (this.#initializers.has(name)) return name;
    return this.addTensor(madeFrom(floatTensor(name, type, [], Float32Array.of(value)), [], 'computed'));
  }

  /** Adds an int64 scalar. Equal scalars are stored once. */
  addIndex(value: number): string {
    const name = `constant.index.${value}`;
    if (this.#initializers.has(name)) return name;
    return this.addConstant(name, 'int64', [], BigInt64Array.of(BigInt(value)));
  }

  /** Adds an int64 vector, such as a shape or axes. Equal vectors are stored once. */
  addVector(values: readonly number[]): string {
    const name = `constant.${values.join('_')}`;
    if (this.#initializers.has(name)) return name;
    return this.addConstant(name, 'int64', [values.length], BigInt64Array.from(values, BigInt));
  }

  /**
   * Adds a node and returns the names of its outputs.
   * @param options.outputs the names of the outputs; '' leaves one out. Defaults to one output, named after the node
   */
  addNode(
    opType: string,
    input: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    options: { name?: string; domain?: string; outputs?: readonly string[] } = {},
  ): string[] {
    const name = this.uniqueName(options.name ?? opType);
    const output = [...(options.outputs ?? [this.uniqueName(`${name}.output`)])];
    for (const value of output) this.#names.add(value);
    const node: NodeProto = {
      input: [...input],
      output,
      name,
      opType,
      ...(options.domain ? { domain: options.domain } : {}),
      attribute: Object.entries(attributes).map(([key, value]) => attributeProto(key, value)),
    };
    if (options.domain) this.#domains.add(options.domain);
    this.#nodes.add(node);
    this.#index(node);
    return output;
  }

  /** Adds a node with one output and returns the output's name. */
  addValue(
    opType: string,
    input: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    options: { name?: string; domain?: string } = {},
  ): string {
    return this.addNode(opType, input, attributes, options)[0]!;
  }

  /** Returns the name of a value cast to another type, or of the value itself if it already has that type. */
  addCast(value: string, from: DataType, to: DataType, options: { name?: string } = {}): string {
    return from === to ? value : this.addValue('Cast', [value], { to: dataTypes[to].onnx }, options);
  }

  /** Replaces a node. The new node computes the old one's outputs from now on. */
  replaceNode(node: NodeProto, by: NodeProto): void {
    this.removeNode(node);
    this.#nodes.add(by);
    if (by.domain) this.#domains.add(by.domain);
    this.#index(by);
  }

  removeNode(node: NodeProto): void {
    this.#nodes.delete(node);
    for (const value of node.output) if (this.#producers.get(value) === node) this.#producers.delete(value);
    for (const value of reads(node)) this.#readers.get(value)?.delete(node);
  }

  /** Makes a node read another value. */
  setInput(node: NodeProto, i: number, value: string): void {
    for (const each of reads(node)) this.#readers.get(each)?.delete(node);
    node.input[i] = value;
    for (const each of reads(node)) this.#addReader(each, node);
  }

  /** Renames an output of a node. */
  setOutput(node: NodeProto, i: number, value: string): void {
    this.#producers.delete(node.output[i]!);
    node.output[i] = value;
    this.#producers.set(value, node);
  }

  /**
   * Makes all nodes that read `value` read `other` instead. Bodies of control flow and the graph's outputs keep
   * `value`.
   */
  replaceReads(value: string, other: string, except?: NodeProto): void {
    for (const node of this.readers(value)) {
      if (node === except) continue;
      node.input.forEach((name, i) => {
        if (name === value) this.setInput(node, i, other);
      });
    }
  }

  /**
   * Renames a value, including where nodes read it, so that another value can take its old name. Returns the new name.
   */
  rename(value: string): string {
    const name = this.uniqueName(`${value}.before`);
    this.replaceReads(value, name);
    const node = this.producer(value)!;
    this.setOutput(node, node.output.indexOf(value), name);
    return name;
  }

  /** Adds an input, or changes the type and shape of an existing one. */
  declareInput(name: string, type: DataType, dims: SymbolicDims): void {
    this.#declare(this.inputs, name, type, dims);
  }

  /** Adds an output, or changes the type and shape of an existing one. */
  declareOutput(name: string, type: DataType, dims: SymbolicDims): void {
    this.#declare(this.outputs, name, type, dims);
  }

  #declare(values: ValueInfoProto[], name: string, type: DataType, dims: SymbolicDims): void {
    this.#names.add(name);
    const index = values.findIndex((value) => value.name === name);
    values.splice(index < 0 ? values.length : index, index < 0 ? 0 : 1, valueInfo(name, type, dims));
  }

  /** Drops the inputs that no output needs. */
  dropUnreadInputs(): void {
    const { needed } = this;
    this.inputs.splice(0, this.inputs.length, ...this.inputs.filter(({ name }) => needed.has(name)));
  }

  uniqueName(base: string): string {
    return uniqueName(base, this.#names);
  }

  /** The values that the outputs are computed from, and the outputs themselves. */
  get needed(): ReadonlySet<string> {
    return this.#needed().values;
  }

  #needed(): { nodes: NodeProto[]; values: ReadonlySet<string> } {
    const values = new Set<string>();
    const nodes: NodeProto[] = [];
    const done = new Set<NodeProto>();
    // This is a depth-first walk without recursion, because graphs are deep.
    const stack: (string | NodeProto)[] = this.outputs.map(({ name }) => name).reverse();
    while (stack.length > 0) {
      const next = stack.pop()!;
      if (typeof next !== 'string') {
        nodes.push(next);
        continue;
      }
      values.add(next);
      const node = this.#producers.get(next);
      if (!node || done.has(node)) continue;
      done.add(node);
      stack.push(node, ...reads(node).reverse());
    }
    return { nodes, values };
  }

  /**
   * Returns the model with only the nodes and weights that its outputs need, in topological order. Declared types of
   * values that no longer exist are dropped.
   */
  finish(): ModelProto {
    const { nodes, values } = this.#needed();
    const graph: GraphProto = {
      ...this.#model.graph,
      node: nodes,
      initializer: [...this.#initializers.values()].filter(({ name }) => values.has(name!)),
      input: this.inputs.filter(({ name }) => values.has(name) || !this.#initializers.has(name)),
      output: this.outputs,
      valueInfo: this.#model.graph.valueInfo.filter(({ name }) => values.has(name)),
    };
    const { opsetImport } = this.#model;
    const added = [...this.#domains].filter(
      (domain) => !opsetImport.some((entry) => entry.domain === domain),
    );
    return {
      ...this.#model,
      // Before version 4 of the format, weights also had to be inputs. The weights added here aren't inputs.
      irVersion: Math.max(this.#model.irVersion, 4),
      opsetImport: [...opsetImport, ...added.map((domain) => ({ domain, version: 1 }))],
      graph,
    };
  }

  #index(node: NodeProto): void {
    for (const value of node.output) if (value !== '') this.#producers.set(value, node);
    for (const value of reads(node)) this.#addReader(value, node);
  }

  #addReader(value: string, node: NodeProto): void {
    const readers = this.#readers.get(value);
    if (readers) readers.add(node);
    else this.#readers.set(value, new Set([node]));
  }
}

/** Lists the values that a node and its bodies read. */
function reads(node: NodeProto): string[] {
  return [...node.input, ...captured(node)].filter((name) => name !== '');
}
