import { type DataType, dataTypes } from '../../base/data-type.js';
import { invalidArgType, invalidArgValue } from '../../base/errors.js';
import { type ElementArray, makeTensor } from '../format/initializer.js';
import {
  type AttributeProto,
  AttributeType,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from '../format/model.js';

/** The ONNX operator set that built graphs use by default: the newest one that TensorRT 10's parser fully supports. */
const defaultOpset = 20;

/** File format version of ONNX 1.15, which introduced operator set 20 (onnx/helper.py, VERSION_TABLE). */
const defaultIrVersion = 9;

/** The dimensions of a value. A string names a size that is known only at run time. */
export type SymbolicDims = readonly (number | string)[];

/** The name of a value in the graph. */
export type Value = string;

/**
 * The value of an attribute. A whole `number` becomes an INT, any other number a FLOAT. Write `{ float: 1 }` for the
 * float 1.0, and `{ floats: [1, 2] }` for a list of floats.
 */
export type AttributeValue =
  | number
  | bigint
  | string
  | readonly number[]
  | readonly string[]
  | TensorProto
  | { readonly float: number }
  | { readonly floats: readonly number[] }
  | { readonly graph: GraphProto };

/** Options of a node that {@link GraphBuilder.op} writes. */
export interface OpOptions {
  /**
   * The node's name. The scope is added before it, and `.1`, `.2` … after it if the name is taken. Defaults to the
   * operator's type.
   */
  name?: string;
  /** The number of outputs, or their names ('' leaves one out). Defaults to one output, named after the node. */
  outputs?: number | readonly string[];
  /** The operator's domain. Defaults to the standard ONNX domain. */
  domain?: string;
}

/**
 * Writes an ONNX graph node by node, in order.
 *
 * @example
 * ```js
 * import { GraphBuilder, writeModel } from 'node-tensorrt/onnx';
 *
 * const g = new GraphBuilder('scale');
 * const x = g.input('x', 'float32', ['batch', 8]);
 * g.op('Mul', [x, g.scalar(2)], {}, { outputs: ['y'] });
 * g.output('y', 'float32', ['batch', 8]);
 * await writeModel(g.finish(), 'scale.onnx');
 * ```
 */
export class GraphBuilder {
  readonly #graph: GraphProto;
  readonly #opset: number;
  readonly #irVersion: number;
  readonly #domains = new Map<string, number>();
  readonly #values = new Set<Value>();
  readonly #nodeNames = new Set<string>();
  readonly #scalars = new Map<string, Value>();
  readonly #scopes: string[] = [];

  /**
   * Begins a graph.
   * @param name the graph's name
   * @param options.opset the version of ONNX's operator set. Defaults to the newest that this package writes
   * @param options.irVersion the version of ONNX's file format. Defaults to the newest that this package writes
   */
  constructor(name: string, options: { opset?: number; irVersion?: number } = {}) {
    this.#graph = { name, node: [], initializer: [], input: [], output: [], valueInfo: [] };
    this.#opset = options.opset ?? defaultOpset;
    this.#irVersion = options.irVersion ?? defaultIrVersion;
  }

  /** Declares a graph input. A string in `dims` is a symbolic size; the same string is the same size everywhere. */
  input(name: string, type: DataType, dims: SymbolicDims): Value {
    this.#define(name);
    this.#graph.input.push(valueInfo(name, type, dims));
    return name;
  }

  /** Declares a graph output. The value must already be defined. */
  output(name: Value, type: DataType, dims: SymbolicDims): void {
    this.#use(name, 'output');
    this.#graph.output.push(valueInfo(name, type, dims));
  }

  /** Adds a weight. The graph keeps a view of `data`. */
  initializer(
    name: string,
    type: Exclude<DataType, 'string'>,
    dims: readonly number[],
    data: ElementArray,
  ): Value {
    this.#define(name);
    this.#graph.initializer.push(makeTensor(name, type, dims, data));
    return name;
  }

  /** Adds a scalar constant. Equal constants are stored once. */
  scalar(value: number, type: 'float32' | 'int64' = 'float32'): Value {
    return this.#constant([], [value], type);
  }

  /** Adds a constant vector of int64, such as a shape or axes. Equal vectors are stored once. */
  vector(values: readonly number[]): Value {
    return this.#constant([values.length], values, 'int64');
  }

  #constant(dims: readonly number[], values: readonly number[], type: 'float32' | 'int64'): Value {
    // -0 and 0 are different floats, but they print alike.
    const text = values.map((v) => (Object.is(v, -0) ? '-0' : String(v))).join('_') || 'empty';
    const key = `constant.${type}${dims.length ? `.${dims.length}d` : ''}.${text}`;
    let name = this.#scalars.get(key);
    if (name === undefined) {
      const data = type === 'float32' ? Float32Array.from(values) : BigInt64Array.from(values, BigInt);
      name = this.initializer(this.#uniqueValue(key), type, dims, data);
      this.#scalars.set(key, name);
    }
    return name;
  }

  /** Prefixes the names of the nodes that `build` makes with `name` and a dot. */
  scope<T>(name: string, build: () => T): T {
    this.#scopes.push(name);
    try {
      return build();
    } finally {
      this.#scopes.pop();
    }
  }

  /**
   * Appends a node and returns its output, or an array of its outputs if `options.outputs` is given.
   *
   * @param inputs values that are already defined; null leaves an optional input out.
   * @throws RangeError ERR_INVALID_ARG_VALUE for an input that isn't defined, or an output that already is.
   */
  op(
    type: string,
    inputs: readonly (Value | null)[],
    attributes: Readonly<Record<string, AttributeValue>> | undefined,
    options: OpOptions & { outputs: number | readonly string[] },
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
    options: OpOptions = {},
  ): Value | Value[] {
    const input = inputs.map((value, i) => {
      if (value === null) return '';
      this.#use(value, `inputs[${i}]`);
      return value;
    });
    const name = this.#nodeName([...this.#scopes, options.name ?? type].join('.'));
    const { outputs } = options;
    let output: string[];
    if (Array.isArray(outputs)) output = [...outputs];
    else if (outputs === undefined) output = [this.#uniqueValue(`${name}.output`)];
    else
      output = Array.from({ length: outputs as number }, (_, i) => this.#uniqueValue(`${name}.output.${i}`));
    for (const value of output) if (value !== '') this.#define(value);
    const node: NodeProto = {
      input,
      output,
      name,
      opType: type,
      attribute: Object.entries(attributes).map(([key, value]) => attributeProto(key, value)),
    };
    if (options.domain) {
      node.domain = options.domain;
      if (!this.#domains.has(options.domain)) this.#domains.set(options.domain, 1);
    }
    this.#graph.node.push(node);
    return outputs === undefined ? output[0]! : output;
  }

  /** Declares the version of a custom operator domain. Domains that aren't declared have version 1. */
  domain(name: string, version: number): void {
    this.#domains.set(name, version);
  }

  /** Returns the model. Don't use the builder afterwards. */
  finish(): ModelProto {
    if (this.#graph.output.length === 0) throw invalidArgValue('graph', 'has no output.');
    return {
      irVersion: this.#irVersion,
      opsetImport: [
        { domain: '', version: this.#opset },
        ...[...this.#domains].map(([domain, version]) => ({ domain, version })),
      ],
      producerName: 'node-tensorrt',
      graph: this.#graph,
    };
  }

  #use(value: Value, path: string): void {
    if (!this.#values.has(value)) throw invalidArgValue(path, `"${value}" isn't defined in the graph.`);
  }

  #define(value: Value): void {
    if (value === '') throw invalidArgValue('name', 'must not be empty.');
    if (this.#values.has(value)) throw invalidArgValue('name', `"${value}" is already defined in the graph.`);
    this.#values.add(value);
  }

  #uniqueValue(base: string): string {
    return unique(base, this.#values);
  }

  #nodeName(base: string): string {
    const name = unique(base, this.#nodeNames);
    this.#nodeNames.add(name);
    return name;
  }
}

function unique(base: string, taken: ReadonlySet<string>): string {
  let name = base;
  for (let i = 1; taken.has(name); i++) name = `${base}.${i}`;
  return name;
}

/** Declares a value with its type: a graph input, an output, or an intermediate value. */
export function valueInfo(name: string, type: DataType, dims: SymbolicDims): ValueInfoProto {
  const dim = dims.map((d) => (typeof d === 'number' ? { dimValue: d } : { dimParam: d }));
  return { name, type: { tensorType: { elemType: dataTypes[type].onnx, shape: { dim } } } };
}

const text = new TextEncoder();

/** Makes an attribute from a JavaScript value: see {@link AttributeValue}. */
export function attributeProto(name: string, value: AttributeValue): AttributeProto {
  if (typeof value === 'bigint') return { name, type: AttributeType.INT, i: value };
  if (typeof value === 'number') {
    return Number.isInteger(value)
      ? { name, type: AttributeType.INT, i: BigInt(value) }
      : { name, type: AttributeType.FLOAT, f: value };
  }
  if (typeof value === 'string') return { name, type: AttributeType.STRING, s: text.encode(value) };
  if (isStrings(value))
    return { name, type: AttributeType.STRINGS, strings: value.map((s) => text.encode(s)) };
  if (isNumbers(value)) {
    return value.every(Number.isInteger)
      ? { name, type: AttributeType.INTS, ints: value.map(BigInt) }
      : { name, type: AttributeType.FLOATS, floats: [...value] };
  }
  if (typeof value === 'object' && value !== null) {
    if ('float' in value) return { name, type: AttributeType.FLOAT, f: value.float };
    if ('floats' in value) return { name, type: AttributeType.FLOATS, floats: [...value.floats] };
    if ('graph' in value) return { name, type: AttributeType.GRAPH, g: value.graph };
    if ('dataType' in value) return { name, type: AttributeType.TENSOR, t: value };
  }
  throw invalidArgType(
    `attributes.${name}`,
    'a number, a string, an array of one of them, a tensor or a graph',
    value,
  );
}

function isNumbers(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((v) => typeof v === 'number');
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.length > 0 && value.every((v) => typeof v === 'string');
}
