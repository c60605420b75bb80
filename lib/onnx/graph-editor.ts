import { type DataType, dataTypes } from '../data-type.js';
import { type FloatType, floatTensor } from './float-tensor.js';
import {
  type AttributeValue,
  attributeProto,
  type OpOptions,
  type SymbolicDims,
  type Value,
  valueInfo,
} from './graph-builder.js';
import { type ElementArray, makeTensor } from './initializer.js';
import type { AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto } from './model.js';
import { operatorName } from './operators.js';
import { captured, collectNames } from './traverse.js';

/**
 * Rewrites a model's graph: nodes are added wherever, and removed by taking over their outputs' names.
 * What no output needs any more is gone in the end, and nodes are in order. The model given is not changed.
 */
export class GraphEditor {
  readonly #model: ModelProto;
  readonly #nodes: Set<NodeProto>;
  readonly #makers = new Map<Value, NodeProto>();
  readonly #weights: Map<Value, TensorProto>;
  readonly #names = new Set<string>();
  readonly #domains = new Set<string>();
  #inputs: ValueInfoProto[];
  #outputs: ValueInfoProto[];
  /** Of values whose types are no longer what the model says. */
  readonly #retyped = new Set<Value>();

  constructor(model: ModelProto) {
    const { graph } = model;
    this.#model = model;
    this.#nodes = new Set(graph.node);
    this.#weights = new Map(graph.initializer.map((tensor) => [tensor.name ?? '', tensor]));
    this.#inputs = [...graph.input];
    this.#outputs = [...graph.output];
    for (const node of graph.node) this.#define(node);
    collectNames(graph, this.#names);
  }

  get nodes(): readonly NodeProto[] {
    return [...this.#nodes];
  }

  /** The node that makes a value; undefined for inputs and weights. */
  maker(value: Value | undefined): NodeProto | undefined {
    return value ? this.#makers.get(value) : undefined;
  }

  /** The nodes that read a value, by an input or in a body. */
  readers(value: Value): NodeProto[] {
    return this.nodes.filter((node) => node.input.includes(value) || captured(node).includes(value));
  }

  isOutput(value: Value): boolean {
    return this.#outputs.some(({ name }) => name === value);
  }

  /** A weight, or what a Constant node makes. */
  constant(value: Value | undefined): TensorProto | undefined {
    if (!value) return undefined;
    const maker = this.maker(value);
    if (maker && operatorName(maker) === 'Constant') return attribute(maker, 'value')?.t;
    return this.#weights.get(value);
  }

  weight(value: Value): TensorProto | undefined {
    return this.#weights.get(value);
  }

  /** Adds a node; as `GraphBuilder.op`. Its name and its outputs' are made unique, but those that are given. */
  op(
    type: string,
    inputs: readonly (Value | null)[],
    attributes: Readonly<Record<string, AttributeValue>> | undefined,
    options: OpOptions & { outputs: readonly string[] },
  ): Value[];
  op(
    type: string,
    inputs: readonly (Value | null)[],
    attributes?: Readonly<Record<string, AttributeValue>>,
    options?: OpOptions & { outputs?: undefined },
  ): Value;
  op(
    type: string,
    inputs: readonly (Value | null)[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    { name = type, domain, outputs }: OpOptions = {},
  ): Value | Value[] {
    const label = this.unique(name);
    const output = outputs ? [...(outputs as readonly string[])] : [this.unique(`${label}.output`)];
    for (const value of output) this.#names.add(value);
    const node: NodeProto = {
      input: inputs.map((value) => value ?? ''),
      output,
      name: label,
      opType: type,
      ...(domain ? { domain } : {}),
      attribute: Object.entries(attributes).map(([key, value]) => attributeProto(key, value)),
    };
    if (domain) this.#domains.add(domain);
    this.#nodes.add(node);
    this.#define(node);
    return outputs ? output : output[0]!;
  }

  /** Puts a node in the place of one, whose outputs are the new node's from now on. */
  replace(node: NodeProto, by: NodeProto): void {
    this.remove(node);
    this.#nodes.add(by);
    if (by.domain) this.#domains.add(by.domain);
    this.#define(by);
  }

  /** Its outputs have to be made by another node. */
  remove(node: NodeProto): void {
    this.#nodes.delete(node);
    for (const value of node.output) if (this.#makers.get(value) === node) this.#makers.delete(value);
  }

  /** Gives what a node makes another name, for its readers too; the name it had is free for another value. */
  rename(value: Value): Value {
    const name = this.unique(`${value}.before`);
    for (const node of this.readers(value)) {
      this.replace(node, { ...node, input: node.input.map((each) => (each === value ? name : each)) });
    }
    const maker = this.maker(value)!;
    this.replace(maker, { ...maker, output: maker.output.map((each) => (each === value ? name : each)) });
    return name;
  }

  /** Adds a weight, under a name like the one given. The model keeps a view of `data`. */
  initializer(
    name: string,
    type: Exclude<DataType, 'string'>,
    dims: readonly number[],
    data: ElementArray,
  ): Value {
    return this.addWeight(makeTensor(this.unique(name), type, dims, data));
  }

  /** Adds a weight whose name is its own. */
  addWeight(tensor: TensorProto): Value {
    this.#weights.set(tensor.name!, tensor);
    this.#names.add(tensor.name!);
    return tensor.name!;
  }

  /** A constant int64 vector, as shapes and axes are given; equal ones are stored once. */
  vector(values: readonly number[]): Value {
    const name = `vector.${values.join('_')}`;
    if (!this.#weights.has(name)) {
      this.addWeight(makeTensor(name, 'int64', [values.length], BigInt64Array.from(values, BigInt)));
    }
    return name;
  }

  /** A constant int64 of no dimensions. */
  index(value: number): Value {
    const name = `index.${value}`;
    if (!this.#weights.has(name))
      this.addWeight(makeTensor(name, 'int64', [], BigInt64Array.of(BigInt(value))));
    return name;
  }

  /** A constant of no dimensions; equal ones are stored once. */
  scalar(value: number, type: FloatType = 'float32'): Value {
    const name = `scalar.${type}.${value}`;
    if (!this.#weights.has(name)) this.addWeight(floatTensor(name, type, [], Float32Array.of(value)));
    return name;
  }

  /** A value in another type: itself, where that is its own. */
  cast(value: Value, from: DataType, to: DataType, options: OpOptions & { outputs?: undefined } = {}): Value {
    return from === to ? value : this.op('Cast', [value], { to: dataTypes[to].onnx }, options);
  }

  /** Adds an input, or changes one's type. */
  setInput(name: string, type: DataType, dims: SymbolicDims): Value {
    this.#names.add(name);
    const input = valueInfo(name, type, dims);
    const index = this.#inputs.findIndex((other) => other.name === name);
    if (index < 0) this.#inputs.push(input);
    else this.#inputs[index] = input;
    return name;
  }

  /** Adds an output, or changes one's type. */
  setOutput(name: Value, type: DataType, dims: SymbolicDims): void {
    const output = valueInfo(name, type, dims);
    const index = this.#outputs.findIndex((other) => other.name === name);
    if (index < 0) this.#outputs.push(output);
    else this.#outputs[index] = output;
    this.#retyped.add(name);
  }

  /** A name that nothing has, which is `base` if that is free. */
  unique(base: string): string {
    let name = base;
    for (let i = 1; this.#names.has(name); i++) name = `${base}.${i}`;
    this.#names.add(name);
    return name;
  }

  /** The model, without what its outputs don't need, inputs included. */
  finish(): ModelProto {
    const { graph } = this.#model;
    const used = new Set(this.#outputs.map(({ name }) => name));
    const node = this.#ordered(used);
    const made = new Set(node.flatMap(({ output }) => output));
    const opsetImport = [...this.#model.opsetImport];
    for (const domain of this.#domains) {
      if (!opsetImport.some((entry) => entry.domain === domain)) opsetImport.push({ domain, version: 1 });
    }
    return {
      ...this.#model,
      // Before version 4 of the format weights had to be inputs too; the new ones are not.
      irVersion: Math.max(this.#model.irVersion, 4),
      opsetImport,
      graph: {
        ...graph,
        node,
        initializer: [...this.#weights.values()].filter(({ name }) => !name || used.has(name)),
        input: this.#inputs.filter(({ name }) => used.has(name)),
        output: this.#outputs,
        valueInfo: graph.valueInfo.filter(({ name }) => made.has(name) && !this.#retyped.has(name)),
      },
    };
  }

  /** The nodes that make what is in `used`, to which what they read is added; each after those it reads from. */
  #ordered(used: Set<Value>): NodeProto[] {
    const ordered: NodeProto[] = [];
    const seen = new Set<NodeProto>();
    // Not recursively: a path through a model of a hundred layers has thousands of nodes.
    const stack = this.#outputs.toReversed().flatMap(({ name }) => this.maker(name) ?? []);
    const done = new Set<NodeProto>();
    while (stack.length > 0) {
      const node = stack.at(-1)!;
      if (seen.has(node)) {
        stack.pop();
        if (!done.has(node)) ordered.push(node);
        done.add(node);
        continue;
      }
      seen.add(node);
      for (const value of [...node.input, ...captured(node)].reverse()) {
        used.add(value);
        const maker = this.maker(value);
        if (maker && !seen.has(maker)) stack.push(maker);
      }
    }
    return ordered;
  }

  #define(node: NodeProto): void {
    for (const value of node.output) if (value) this.#makers.set(value, node);
  }
}

export function attribute(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((each) => each.name === name);
}

export function intAttribute(node: NodeProto, name: string, otherwise: number): number {
  return Number(attribute(node, name)?.i ?? otherwise);
}

export function floatAttribute(node: NodeProto, name: string, otherwise: number): number {
  return attribute(node, name)?.f ?? otherwise;
}
