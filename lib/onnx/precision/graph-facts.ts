import { dataTypes } from '../../base/data-type.js';
import { type ExternalDataOptions, makeTensor, tensorElements } from '../format/initializer.js';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../format/model.js';
import { operatorName } from '../graph/operators.js';
import { standardOpset } from '../graph/traverse.js';
import { valueTypes } from '../graph/value-types.js';

const float32 = dataTypes.float32.onnx;

/** The facts about a graph before it is cast. They don't change afterwards. */
export class GraphFacts {
  readonly graph: GraphProto;
  readonly opset: number;
  /** The ONNX element types of the values whose types are known. */
  readonly types: ReadonlyMap<string, number>;
  /** Weights, and the values of Constant nodes. */
  readonly constants: ReadonlyMap<string, TensorProto>;
  readonly inputs: ReadonlySet<string>;
  readonly outputs: ReadonlySet<string>;
  readonly #where: ExternalDataOptions;

  constructor(model: ModelProto, where: ExternalDataOptions) {
    const { graph, irVersion } = model;
    this.graph = graph;
    this.opset = standardOpset(model);
    this.types = valueTypes(graph);
    this.inputs = new Set(graph.input.map(({ name }) => name));
    this.outputs = new Set(graph.output.map(({ name }) => name));
    this.#where = where;
    const constants = new Map<string, TensorProto>();
    for (const tensor of graph.initializer) {
      const name = tensor.name ?? '';
      // A weight that is also an input is a default that a caller may replace.
      if (irVersion < 4 || !this.inputs.has(name)) constants.set(name, tensor);
    }
    for (const node of graph.node) {
      const tensor = operatorName(node) === 'Constant' ? constantTensor(node) : undefined;
      if (tensor) constants.set(node.output[0]!, tensor);
    }
    this.constants = constants;
  }

  isFloat32(value: string | undefined): boolean {
    return this.types.get(value ?? '') === float32;
  }

  /** The type of a node's first input. */
  typeOf(node: NodeProto): number | undefined {
    return this.types.get(node.input[0] ?? '');
  }

  /** Returns the elements of a float32 constant. */
  elements(constant: string): Float32Array {
    return tensorElements(this.constants.get(constant)!, this.#where) as Float32Array;
  }

  /** True for a float32 constant with two or more dimensions, which can serve as a table of rows. */
  isTable(value: string): boolean {
    const tensor = this.constants.get(value);
    return tensor?.dataType === float32 && tensor.dims.length >= 2;
  }
}

/** Returns the floating-point numbers or the tensor that a Constant node holds. */
function constantTensor(node: NodeProto): TensorProto | undefined {
  const [value] = node.attribute;
  const name = node.output[0]!;
  switch (value?.name) {
    case 'value':
      return value.t;
    case 'value_float':
      return makeTensor(name, 'float32', [], Float32Array.of(value.f ?? 0));
    case 'value_floats': {
      const values = Float32Array.from(value.floats ?? []);
      return makeTensor(name, 'float32', [values.length], values);
    }
    default:
      return undefined;
  }
}
