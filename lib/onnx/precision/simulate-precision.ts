import { dataTypeFromOnnx, dataTypes } from '../../base/data-type.js';
import { TensorRTError } from '../../base/errors.js';
import { floatElements } from '../format/float-tensor.js';
import { type ExternalDataOptions, makeTensor } from '../format/initializer.js';
import type {
  AttributeProto,
  GraphProto,
  ModelProto,
  NodeProto,
  TensorProto,
  ValueInfoProto,
} from '../format/model.js';
import { attributeProto } from '../graph/graph-builder.js';
import { label, operatorName } from '../graph/operators.js';
import { captured, collectNames, standardOpset, subgraphs, uniqueName } from '../graph/traverse.js';
import { castType, valueTypes } from '../graph/value-types.js';
import type { LowPrecision } from './low-type.js';

const float32 = dataTypes.float32.onnx;
const float16 = dataTypes.float16.onnx;
const bfloat16 = dataTypes.bfloat16.onnx;

type TypeOf = (name: string) => number | undefined;

/**
 * Rewrites a model so that it runs in float32 but gives the numbers that its 16-bit types would give: each float16 or
 * bfloat16 value is computed in float32, rounded to its type and cast back. ONNX Runtime's own CPU kernels keep chains
 * of 16-bit nodes in float32, which hides overflows. Values keep their names; 16-bit inputs and outputs become float32.
 * A model without 16-bit values is returned unchanged.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED if a node reads 16-bit values and its output type isn't known;
 *   ERR_MODEL_INVALID for a constant that can't be read
 * @example
 * ```js
 * import { castToFloat16, readModel, simulatePrecision, writeModel } from 'node-tensorrt/onnx';
 *
 * const { model } = castToFloat16(await readModel('model.onnx'));
 * await writeModel(simulatePrecision(model), 'model-fp16-on-cpu.onnx');
 * ```
 */
export function simulatePrecision(model: ModelProto, options: ExternalDataOptions = {}): ModelProto {
  if (lowPrecisions(model).size === 0) return model;
  const graph = new Simulator(model, options).simulated(model.graph);
  // Before version 4 of the format, weights also had to be inputs. The weights that are cast here aren't inputs any
  // more.
  return { ...model, irVersion: Math.max(model.irVersion, 4), graph };
}

/** Returns the 16-bit types that a model's values have. */
export function lowPrecisions({ graph }: ModelProto): ReadonlySet<LowPrecision> {
  const found = new Set<LowPrecision>();
  const visit = (each: GraphProto, outer?: TypeOf) => {
    const types = valueTypes(each, outer);
    for (const type of types.values()) {
      if (type === float16) found.add('fp16');
      if (type === bfloat16) found.add('bf16');
    }
    const typeOf: TypeOf = (name) => types.get(name) ?? outer?.(name);
    for (const node of each.node) for (const body of subgraphs(node)) visit(body, typeOf);
  };
  visit(graph);
  return found;
}

function isLow(type: number | undefined): type is number {
  return type === float16 || type === bfloat16;
}

/** Operators that only move elements. Their inputs are already rounded. */
const movers = new Set(
  `Identity Reshape Transpose Squeeze Unsqueeze Flatten Concat Split Slice Expand Tile Gather GatherElements GatherND
  DepthToSpace SpaceToDepth Compress ReverseSequence Dropout`.split(/\s+/),
);

/** Attributes that name a type (https://onnx.ai/onnx/operators/). */
const typeAttributes = new Set([
  'to',
  'dtype',
  'output_dtype',
  'output_datatype',
  'stash_type',
  'softmax_precision',
]);

class Simulator {
  readonly #names = new Set<string>();
  readonly #opset: number;
  readonly #where: ExternalDataOptions;

  constructor(model: ModelProto, where: ExternalDataOptions) {
    this.#opset = standardOpset(model);
    this.#where = where;
    collectNames(model.graph, this.#names);
  }

  simulated(graph: GraphProto, outer?: TypeOf): GraphProto {
    const types = valueTypes(graph, outer);
    const typeOf: TypeOf = (name) => (name === '' ? undefined : (types.get(name) ?? outer?.(name)));
    const nodes: NodeProto[] = [];
    const cast = new Set<string>();
    const initializer = graph.initializer.map((tensor) => {
      if (!isLow(tensor.dataType) || !tensor.name) return tensor;
      // ONNX Runtime casts the weight once, when it loads the model, so its elements needn't be read here.
      const name = this.#unique(`${tensor.name}:stored`);
      nodes.push(this.#cast(name, tensor.name, float32));
      cast.add(tensor.name);
      return { ...tensor, name };
    });
    for (const node of graph.node) nodes.push(...this.#node(node, typeOf));
    return {
      ...graph,
      node: nodes,
      initializer,
      input: graph.input.filter(({ name }) => !cast.has(name)).map(widened),
      output: graph.output.map(widened),
      valueInfo: graph.valueInfo.map(widened),
    };
  }

  #node(node: NodeProto, typeOf: TypeOf): NodeProto[] {
    const reads = [...node.input, ...captured(node)];
    const low = node.output.filter((name) => isLow(typeOf(name)));
    if (low.length === 0 && !reads.some((name) => isLow(typeOf(name)))) return [node];
    const unknown = node.output.find((name) => name !== '' && typeOf(name) === undefined);
    if (unknown !== undefined) {
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `16-bit types can't be simulated behind ${label(node)}: the type of "${unknown}" is not known.`,
      );
    }
    const exact = {
      ...node,
      output: [...node.output],
      attribute: node.attribute.map((attribute) => this.#attribute(attribute, typeOf)),
    };
    const operator = operatorName(node);
    const isExact =
      movers.has(operator) ||
      operator === 'Constant' ||
      operator === 'ConstantOfShape' ||
      (operator === 'Cast' && typeOf(node.input[0] ?? '') === castType(node));
    if (isExact) return [exact];
    const rounding: NodeProto[] = [];
    exact.output.forEach((name, i) => {
      const type = typeOf(name);
      if (!isLow(type)) return;
      const [before, rounded] = [this.#unique(`${name}:exact`), this.#unique(`${name}:rounded`)];
      exact.output[i] = before;
      rounding.push(this.#cast(before, rounded, type), this.#cast(rounded, name, float32));
    });
    return [exact, ...rounding];
  }

  #attribute(attribute: AttributeProto, typeOf: TypeOf): AttributeProto {
    const { name, t, g, graphs } = attribute;
    if (t && isLow(t.dataType)) return { ...attribute, t: this.#wide(t) };
    if (g) return { ...attribute, g: this.simulated(g, typeOf) };
    if (graphs) return { ...attribute, graphs: graphs.map((each) => this.simulated(each, typeOf)) };
    if (!typeAttributes.has(name)) return attribute;
    const isNamed = attribute.s && /^B?FLOAT16$/.test(new TextDecoder().decode(attribute.s));
    if (isNamed) return attributeProto(name, 'FLOAT');
    return isLow(Number(attribute.i ?? 0)) ? attributeProto(name, float32) : attribute;
  }

  #wide(tensor: TensorProto): TensorProto {
    return makeTensor(tensor.name ?? '', 'float32', tensor.dims, floatElements(tensor, this.#where));
  }

  #cast(from: string, to: string, type: number): NodeProto {
    const word = dataTypeFromOnnx(type) === 'float32' ? 'FLOAT' : 'FLOAT16';
    return {
      name: this.#unique(`${to}:cast`),
      opType: 'Cast',
      input: [from],
      output: [to],
      // Before operator set 6, the type was a string.
      attribute: [attributeProto('to', this.#opset >= 6 ? type : word)],
    };
  }

  #unique(base: string): string {
    return uniqueName(base, this.#names);
  }
}

/** Returns the declaration of a value, with float32 in place of a 16-bit type. */
function widened(value: ValueInfoProto): ValueInfoProto {
  const tensorType = value.type?.tensorType;
  if (!tensorType || !isLow(tensorType.elemType)) return value;
  return { ...value, type: { ...value.type, tensorType: { ...tensorType, elemType: float32 } } };
}
