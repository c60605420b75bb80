import { dataTypeFromOnnx, dataTypes } from '../base/data-type.js';
import { isExternal, tensorElements, tensorSize } from '../onnx/format/initializer.js';
import type { GraphProto, NodeProto, TensorProto } from '../onnx/format/model.js';
import { tensorAttribute } from '../onnx/graph/node-attribute.js';
import { label, operatorName } from '../onnx/graph/operators.js';
import { producersOf, readersOf } from '../onnx/graph/traverse.js';
import { type Product, type ProductWeight, productWeights } from './prunable-weights.js';

/** A tensor that has one slice for each neuron along an axis, or several: a matrix that holds gate and up has two. */
export interface NeuronTensor {
  readonly tensor: TensorProto;
  readonly axis: number;
  /** How many slices belong to a neuron. Those of the first part come first, for all neurons. */
  readonly parts: number;
}

/** A number in a constant of whole numbers that a node reads. */
export interface NeuronCount {
  readonly node: NodeProto;
  /** The number of the node's input that is the constant. */
  readonly input: number;
  readonly tensor: TensorProto;
  readonly index: number;
  /** The number is this multiple of the number of neurons. */
  readonly times: number;
}

/** The hidden layer of a multilayer perceptron: neurons that matrices make, and that others multiply. */
export interface Mlp {
  /** How many neurons it has. */
  readonly neurons: number;
  /** The matrices whose products are the neurons: up, and gate. */
  readonly into: readonly NeuronTensor[];
  /** The matrices by which neurons are multiplied: down. */
  readonly outOf: readonly NeuronTensor[];
  /** Biases, and other vectors that neurons meet on the way. */
  readonly vectors: readonly NeuronTensor[];
  /** Constants that hold the number of neurons, or a multiple of it: each with its place in the tensor. */
  readonly counts: readonly NeuronCount[];
  /** The values that have one number for each neuron, or several. */
  readonly values: ReadonlySet<string>;
}

/** The MLPs of a graph, and why other weights belong to none. */
export interface Mlps {
  readonly mlps: readonly Mlp[];
  readonly others: ReadonlyMap<ProductWeight, string>;
}

const unary = new Set(
  `Relu LeakyRelu Elu Selu Celu Gelu Sigmoid HardSigmoid HardSwish Swish Mish Softplus Softsign Tanh Erf Neg Abs Exp Sqrt
  Reciprocal Cast Identity Dropout Clip com.microsoft.Gelu com.microsoft.FastGelu com.microsoft.QuickGelu
  com.microsoft.BiasGelu`.split(/\s+/),
);
const arithmetic: Readonly<Record<string, (a: number, b: number) => number>> = {
  Add: (a, b) => a + b,
  Sub: (a, b) => a - b,
  Mul: (a, b) => a * b,
  Div: (a, b) => Math.trunc(a / b),
};
const binary = new Set('Add Sub Mul Div Min Max Pow Where'.split(' '));

/** Finds the MLPs of a graph: by what their neurons go through, not by names. */
export function findMlps(graph: GraphProto): Mlps {
  const weights = productWeights(graph);
  const others = new Map<ProductWeight, string>();
  const mlps: Mlp[] = [];
  const known = new Set<TensorProto>();
  const finder = new MlpFinder(graph, weights);
  for (const weight of weights) {
    if (known.has(weight.tensor) || weight.products.length === 0) continue;
    try {
      const mlp = finder.find(weight);
      mlps.push(mlp);
      for (const { tensor } of [...mlp.into, ...mlp.outOf]) known.add(tensor);
    } catch (error) {
      if (!(error instanceof NotAnMlp)) throw error;
      others.set(weight, error.message);
    }
  }
  for (const weight of others.keys()) if (known.has(weight.tensor)) others.delete(weight);
  return { mlps, others };
}

/** The reason why a weight's inputs aren't the neurons of an MLP. */
class NotAnMlp extends Error {}

class MlpFinder {
  readonly #initializers: ReadonlyMap<string, TensorProto>;
  readonly #producers: ReadonlyMap<string, NodeProto>;
  readonly #readers: ReadonlyMap<string, readonly NodeProto[]>;
  readonly #outputs: ReadonlySet<string>;
  /** The product and its weight, by node. */
  readonly #products = new Map<NodeProto, { weight: ProductWeight; product: Product }>();
  readonly #weights: readonly ProductWeight[];

  constructor(graph: GraphProto, weights: readonly ProductWeight[]) {
    this.#weights = weights;
    this.#initializers = new Map(graph.initializer.map((tensor) => [tensor.name!, tensor]));
    this.#producers = producersOf(graph);
    this.#outputs = new Set(graph.output.map(({ name }) => name));
    this.#readers = readersOf(graph);
    for (const weight of weights) {
      for (const product of weight.products) this.#products.set(product.node, { weight, product });
    }
  }

  /** Finds the MLP whose neurons a weight multiplies. @throws NotAnMlp */
  find(down: ProductWeight): Mlp {
    const [first] = down.products as [Product];
    const neurons = down.tensor.dims[first.axis]!;
    const walk = new NeuronWalk(neurons);
    const start = this.#activation(down, first);
    const open = [start];
    for (let value = open.pop(); value !== undefined; value = open.pop()) {
      if (walk.values.has(value)) continue;
      walk.values.add(value);
      if (this.#outputs.has(value)) throw new NotAnMlp('its inputs are an output of the model');
      const producer = this.#producers.get(value);
      if (!producer) throw new NotAnMlp('its inputs are inputs of the model');
      open.push(...this.#sources(producer, walk));
      // Everything that is computed from the neurons must be known too.
      for (const reader of this.#readers.get(value) ?? []) open.push(...this.#targets(reader, value, walk));
    }
    for (const { tensor } of [...walk.into.values(), ...walk.outOf.values(), ...walk.vectors.values()]) {
      this.#requireOwn(tensor, walk);
    }
    if (walk.into.size === 0) throw new NotAnMlp('no matrix makes its inputs');
    return {
      neurons,
      into: [...walk.into.values()],
      outOf: [...walk.outOf.values()],
      vectors: [...walk.vectors.values()],
      counts: walk.counts,
      values: new Set([...walk.values, ...walk.products]),
    };
  }

  /** The value that a product multiplies by a weight's rows. */
  #activation({ tensor, type, problem }: ProductWeight, { node, input }: Product): string {
    const operator = operatorName(node);
    if (operator !== 'MatMul' && operator !== 'Gemm') throw new NotAnMlp(`it is a weight of ${label(node)}`);
    if (type !== 'float32' && type !== 'float16' && type !== 'bfloat16') throw new NotAnMlp(problem!.reason);
    if (tensor.dims.length !== 2) throw new NotAnMlp(`it has ${tensor.dims.length} dimensions`);
    if (input !== 1) throw new NotAnMlp('it is the first factor of its product');
    if (node.attribute.some(({ name, i }) => name === 'transA' && Number(i) !== 0)) {
      throw new NotAnMlp(`${label(node)} transposes its inputs`);
    }
    return node.input[0]!;
  }

  /** Adds a node that computes neurons, and returns the values it computes them from. @throws NotAnMlp */
  #sources(node: NodeProto, walk: NeuronWalk): string[] {
    const operator = operatorName(node);
    const product = this.#products.get(node);
    if (product) return this.#addInto(node, product, 1, walk);
    if (unary.has(operator)) {
      const [value, ...rest] = node.input;
      for (const each of rest) this.#addConstant(each, node, walk);
      return [value!];
    }
    if (binary.has(operator)) {
      return node.input.filter((value) => !this.#addConstant(value, node, walk, { mayBeComputed: true }));
    }
    if (operator === 'Reshape') {
      this.#addShape(node, walk);
      return [node.input[0]!];
    }
    if (operator === 'Split') return this.#addSplit(node, walk);
    if (operator === 'Slice') return this.#addSlice(node, walk);
    throw new NotAnMlp(`${label(node)} makes its inputs`);
  }

  /** Follows neurons into a node that reads them, and returns the values it computes. @throws NotAnMlp */
  #targets(node: NodeProto, value: string, walk: NeuronWalk): string[] {
    const operator = operatorName(node);
    const known = this.#products.get(node);
    if (known) {
      const { weight, product } = known;
      if (this.#activation(weight, product) !== value || weight.tensor.dims[product.axis] !== walk.neurons) {
        throw new NotAnMlp(`${label(node)} reads its inputs in another way`);
      }
      walk.outOf.set(weight.tensor, { tensor: weight.tensor, axis: product.axis, parts: 1 });
      walk.nodes.add(node);
      return [];
    }
    // What is computed from a shape follows when the model runs.
    if (operator === 'Shape') return [];
    if (unary.has(operator) || binary.has(operator) || operator === 'Reshape') return [node.output[0]!];
    throw new NotAnMlp(`${label(node)} reads its inputs too`);
  }

  /** Adds the matrix whose product has `parts` numbers for each neuron. */
  #addInto(
    node: NodeProto,
    { weight, product }: { weight: ProductWeight; product: Product },
    parts: number,
    walk: NeuronWalk,
  ): [] {
    this.#activation(weight, product);
    const { tensor } = weight;
    const axis = 1 - product.axis;
    if (tensor.dims[axis] !== parts * walk.neurons) {
      throw new NotAnMlp(`${label(node)} makes ${tensor.dims[axis]} numbers, not one for each of its inputs`);
    }
    walk.into.set(tensor, { tensor, axis, parts });
    walk.nodes.add(node);
    walk.products.add(node.output[0]!);
    const bias = node.input[2];
    if (bias) this.#addConstant(bias, node, walk, { parts });
    return [];
  }

  /** Two or more products in one matrix: gate and up. */
  #addSplit(node: NodeProto, walk: NeuronWalk): string[] {
    const parts = node.output.length;
    const last = Number(node.attribute.find(({ name }) => name === 'axis')?.i ?? 0);
    const sizes = this.#constant(node.input[1]);
    const equal = !node.input[1] || (sizes && numbersOf(sizes).every((size) => size === walk.neurons));
    let source = node.input[0]!;
    let producer = this.#producers.get(source);
    let bias: string | undefined;
    if (producer && operatorName(producer) === 'Add') {
      const { input } = producer;
      bias = input.find((value) => this.#constant(value));
      source = input.find((value) => value !== bias)!;
      walk.nodes.add(producer);
      walk.products.add(producer.output[0]!);
      this.#requireOnlyReader(producer.output[0]!, node);
      producer = this.#producers.get(source);
    }
    const product = producer && this.#products.get(producer);
    const isLast = last === -1 || last === 2 || last === 1;
    if (!product || !equal || !isLast) throw new NotAnMlp(`${label(node)} makes its inputs`);
    if (source === node.input[0]) this.#requireOnlyReader(source, node);
    this.#addInto(producer!, product, parts, walk);
    if (bias) this.#addConstant(bias, node, walk, { parts });
    if (sizes) {
      for (let index = 0; index < parts; index++) walk.addCount(node, 1, sizes, index, 1);
    }
    walk.nodes.add(node);
    // All parts are neurons.
    return node.output.filter((value) => value !== '').flatMap((value) => this.#unseen(value, walk));
  }

  /** Two or more products in one matrix, each cut out by a Slice. */
  #addSlice(node: NodeProto, walk: NeuronWalk): [] {
    const [source = ''] = node.input;
    const producer = this.#producers.get(source);
    const product = producer && this.#products.get(producer);
    const fail = () => new NotAnMlp(`${label(node)} makes its inputs`);
    if (!product) throw fail();
    const { tensor } = product.weight;
    const width = tensor.dims[1 - product.product.axis]!;
    const parts = width / walk.neurons;
    for (const reader of this.#readers.get(source) ?? []) {
      if (operatorName(reader) === 'Shape') continue;
      const [start, end, axis, step = 1] = reader.input
        .slice(1)
        .map((bound) => this.#number(bound, source, width));
      const isPart =
        operatorName(reader) === 'Slice' &&
        start !== undefined &&
        start % walk.neurons === 0 &&
        (end === start + walk.neurons ||
          (start === width - walk.neurons && end !== undefined && end >= width)) &&
        (axis === -1 || axis === 2) &&
        step === 1;
      if (!isPart) throw fail();
      for (const [input, number] of [
        [1, start!],
        [2, end!],
      ] as const) {
        const constant = this.#constant(reader.input[input]);
        const counts = constant && number > 0 && number <= width;
        if (counts) walk.addCount(reader, input, constant, 0, number / walk.neurons);
      }
      walk.nodes.add(reader);
    }
    return this.#addInto(producer!, product, parts, walk);
  }

  /**
   * The number that a node reads, if it is constant or computed from the last dimension of `of`, whose size is `size`.
   */
  #number(value: string, of: string, size: number): number | undefined {
    const constant = this.#constant(value);
    if (constant) {
      const numbers = numbersOf(constant);
      return numbers.length === 1 ? numbers[0] : undefined;
    }
    const node = this.#producers.get(value);
    if (!node) return undefined;
    const operands = () => node.input.map((each) => this.#number(each, of, size));
    switch (operatorName(node)) {
      case 'Gather': {
        const shape = this.#producers.get(node.input[0]!);
        const isLast = this.#number(node.input[1]!, of, size) === -1;
        return isLast && shape && operatorName(shape) === 'Shape' && shape.input[0] === of ? size : undefined;
      }
      case 'Unsqueeze':
      case 'Squeeze':
      case 'Cast':
      case 'Identity':
        return this.#number(node.input[0]!, of, size);
      default: {
        const compute = arithmetic[operatorName(node)];
        const [a, b] = compute ? operands() : [];
        return a === undefined || b === undefined ? undefined : compute!(a, b);
      }
    }
  }

  #unseen(value: string, walk: NeuronWalk): string[] {
    return walk.values.has(value) ? [] : [value];
  }

  #requireOnlyReader(value: string, node: NodeProto): void {
    const odd = (this.#readers.get(value) ?? []).find(
      (reader) => reader !== node && operatorName(reader) !== 'Shape',
    );
    if (odd) throw new NotAnMlp(`${label(odd)} reads its inputs too`);
  }

  /**
   * Adds a constant that neurons meet: a number, or a vector of one number for each neuron. Returns false for a value that
   * is computed.
   */
  #addConstant(
    value: string,
    node: NodeProto,
    walk: NeuronWalk,
    { parts = 1, mayBeComputed = false }: { parts?: number; mayBeComputed?: boolean } = {},
  ): boolean {
    if (value === '') return true;
    const tensor = this.#constant(value);
    if (!tensor) {
      if (mayBeComputed) return false;
      throw new NotAnMlp(`${label(node)} has an input that is computed`);
    }
    if (tensorSize(tensor) === 1) return true;
    const axis = tensor.dims.length - 1;
    const isVector =
      tensor.dims[axis] === parts * walk.neurons && tensorSize(tensor) === parts * walk.neurons;
    if (!isVector || !this.#initializers.has(value) || dataTypeFromOnnx(tensor.dataType) === undefined) {
      throw new NotAnMlp(`${label(node)} has a constant "${value}" that isn't one number for each neuron`);
    }
    walk.vectors.set(tensor, { tensor, axis, parts });
    walk.nodes.add(node);
    return true;
  }

  /** Adds the shape of a Reshape, whose last number must be that of the neurons. */
  #addShape(node: NodeProto, walk: NeuronWalk): void {
    const [data = '', shape = ''] = node.input;
    let tensor = this.#constant(shape);
    const concat = tensor ? undefined : this.#producers.get(shape);
    if (concat && operatorName(concat) === 'Concat') {
      const last = concat.input.at(-1)!;
      if (this.#isLastDimension(last, data)) {
        walk.nodes.add(node);
        return;
      }
      tensor = this.#constant(last);
      walk.nodes.add(concat);
    }
    const numbers = tensor && numbersOf(tensor);
    if (!tensor || numbers!.at(-1) !== walk.neurons) {
      throw new NotAnMlp(`${label(node)} doesn't say that its last dimension is that of its inputs`);
    }
    walk.nodes.add(node);
    const [reader, input] = concat ? [concat, concat.input.length - 1] : [node, 1];
    walk.addCount(reader, input, tensor, numbers!.length - 1, 1);
  }

  /** True if a number is the last one of a value's own shape, so that it follows when the model runs. */
  #isLastDimension(number: string, value: string): boolean {
    const node = this.#producers.get(number);
    if (!node) return false;
    const operator = operatorName(node);
    if (operator === 'Unsqueeze' || operator === 'Squeeze')
      return this.#isLastDimension(node.input[0]!, value);
    const shape = this.#producers.get(node.input[0] ?? '');
    const at = this.#constant(node.input[1]);
    const isOwn = shape && operatorName(shape) === 'Shape' && shape.input[0] === value;
    return Boolean(isOwn && (operator === 'Slice' || operator === 'Gather') && at && numbersOf(at)[0] === -1);
  }

  #constant(value: string | undefined): TensorProto | undefined {
    if (!value) return undefined;
    const node = this.#producers.get(value);
    if (node && operatorName(node) === 'Constant') return tensorAttribute(node, 'value');
    return this.#initializers.get(value);
  }

  /** Tensors that other nodes read can't lose elements. */
  #requireOwn(tensor: TensorProto, walk: NeuronWalk): void {
    const weight = this.#weights.find((each) => each.tensor === tensor);
    const users = weight ? weight.products.map(({ node }) => node) : (this.#readers.get(tensor.name!) ?? []);
    const odd = users.find((node) => !walk.nodes.has(node));
    if (odd) throw new NotAnMlp(`${label(odd)} reads "${tensor.name}" too`);
    if (weight?.problem && !weight.problem.isAdvice) throw new NotAnMlp(weight.problem.reason);
  }
}

/** What a search has found. */
class NeuronWalk {
  readonly values = new Set<string>();
  /** The products that make neurons, before they are divided. */
  readonly products = new Set<string>();
  readonly nodes = new Set<NodeProto>();
  readonly into = new Map<TensorProto, NeuronTensor>();
  readonly outOf = new Map<TensorProto, NeuronTensor>();
  readonly vectors = new Map<TensorProto, NeuronTensor>();
  readonly counts: NeuronCount[] = [];

  constructor(readonly neurons: number) {}

  addCount(node: NodeProto, input: number, tensor: TensorProto, index: number, times: number): void {
    this.counts.push({ node, input, tensor, index, times });
  }
}

/** The numbers of an int64 tensor; none for another type, or for one whose elements lie in another file. */
export function numbersOf(tensor: TensorProto): number[] {
  if (tensor.dataType !== dataTypes.int64.onnx || isExternal(tensor)) return [];
  return Array.from(tensorElements(tensor), Number);
}
