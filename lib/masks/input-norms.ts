import { dataTypes } from '../base/data-type.js';
import { invalidArgValue, TensorRTError } from '../base/errors.js';
import { loadGraph } from '../execution/load-graph.js';
import { type Feeds, feedsCalled } from '../execution/run-request.js';
import type { AttributeProto, ModelProto, NodeProto, ValueInfoProto } from '../onnx/format/model.js';
import { attributeProto } from '../onnx/graph/graph-builder.js';
import { operatorName } from '../onnx/graph/operators.js';
import { standardOpset } from '../onnx/graph/traverse.js';
import type { ProductWeight } from './prunable-weights.js';

/** For each weight the L2 norms of the values that its positions along the summed axis are multiplied by. */
export type InputNorms = ReadonlyMap<string, Float32Array>;

const float32 = dataTypes.float32.onnx;
const prefix = 'node-tensorrt.norm';

/**
 * Runs a model on the CPU and adds up the squares of what its products multiply weights by. Only one number per input
 * channel leaves the runtime.
 * @throws (rejects) the errors of loading and running a model; RangeError ERR_INVALID_ARG_VALUE if there are no inputs;
 *   TensorRTError ERR_MODEL_UNSUPPORTED for a product whose other factor has no fixed place for the channels
 */
export async function measureInputNorms(
  model: ModelProto,
  weights: readonly ProductWeight[],
  inputs: Iterable<Feeds> | AsyncIterable<Feeds>,
  { directory, signal }: { directory: string; signal: AbortSignal | undefined },
): Promise<InputNorms> {
  const probes = weights.map(({ products }, i) =>
    products.map(({ node, input }, j) => probe(node, input, `${i}.${j}`)),
  );
  const sums = weights.map(({ tensor, products }) => new Float64Array(tensor.dims[products[0]!.axis]!));
  await using session = await loadGraph(withProbes(model, probes.flat()), { directory });
  let samples = 0;
  for await (const feeds of inputs) {
    signal?.throwIfAborted();
    const outputs = await session
      .run(
        feeds,
        probes.flat().map(({ output }) => output),
      )
      .catch(feedsCalled(`options.inputs[${samples}]`));
    probes.forEach((each, i) => {
      for (const { output } of each) {
        const squares = outputs[output]!.data as Float32Array;
        const sum = sums[i]!;
        squares.forEach((square, channel) => {
          sum[channel % sum.length]! += square;
        });
      }
    });
    samples++;
  }
  if (samples === 0) throw invalidArgValue('options.inputs', 'is empty.');
  return new Map(
    weights.map(({ name }, i) => {
      const norms = Float32Array.from(sums[i]!, Math.sqrt);
      const odd = norms.findIndex((norm) => !Number.isFinite(norm));
      if (odd < 0) return [name, norms];
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `On the given inputs, the values that "${name}" is multiplied by aren't finite: channel ${odd}.`,
      );
    }),
  );
}

interface Probe {
  readonly node: NodeProto;
  /** The value that is multiplied by the weight. */
  readonly value: string;
  readonly output: string;
  /** The axis of its channels: axis 1, as in a convolution, the last one, or the last but one. */
  readonly channelAxis: 'first' | 'last' | 'lastButOne';
}

function probe(node: NodeProto, weightInput: number, number: string): Probe {
  const other = weightInput === 0 ? 1 : 0;
  const isConvolution = /^Conv/.test(operatorName(node));
  const transposed = node.attribute.find(({ name }) => name === (other === 0 ? 'transA' : 'transB'));
  // A matrix product sums over the last axis of its first factor, and the last but one of its second.
  const isSwapped = Number(transposed?.i ?? 0) === 1;
  const isLast = (other === 0) !== isSwapped;
  return {
    node,
    value: node.input[other]!,
    output: `${prefix}.${number}`,
    channelAxis: isConvolution ? 'first' : isLast ? 'last' : 'lastButOne',
  };
}

/** Adds, for each probe, nodes that sum the squares of a value over all axes but the channels' one. */
function withProbes(model: ModelProto, probes: readonly Probe[]): ModelProto {
  const opset = standardOpset(model);
  const { graph } = model;
  const nodes: NodeProto[] = [];
  const outputs: ValueInfoProto[] = [];
  const initializer = [...graph.initializer];
  const ints = (name: string, values: readonly number[]) => {
    initializer.push({
      name,
      dataType: dataTypes.int64.onnx,
      dims: [values.length],
      int64Data: BigInt64Array.from(values, BigInt),
    });
    return name;
  };
  const add = (opType: string, input: string[], output: string, attribute: AttributeProto[] = []) => {
    nodes.push({ name: output, opType, input, output: [output], attribute });
    return output;
  };
  const reduce = (input: string, output: string, axes: readonly number[]) => {
    const keep = attributeProto('keepdims', 0);
    // Axes became an input with operator set 18.
    if (opset >= 18) add('ReduceSumSquare', [input, ints(`${output}.axes`, axes)], output, [keep]);
    else add('ReduceSumSquare', [input], output, [keep, attributeProto('axes', [...axes])]);
  };
  for (const { value, output, channelAxis } of probes) {
    const part = (name: string) => `${output}.${name}`;
    const as32 = add('Cast', [value], part('float32'), [attributeProto('to', float32)]);
    if (channelAxis === 'last') {
      // […, channels] → [rest, channels]
      const shape = add('Shape', [as32], part('shape'));
      const size = add('Gather', [shape, ints(part('index'), [-1])], part('size'));
      const wanted = add('Concat', [ints(part('rest'), [-1]), size], part('wanted'), [
        attributeProto('axis', 0),
      ]);
      reduce(add('Reshape', [as32, wanted], part('flat')), output, [0]);
    } else if (channelAxis === 'first') {
      // [batch, channels, …] → [batch, channels, rest]
      reduce(add('Reshape', [as32, ints(part('rest'), [0, 0, -1])], part('flat')), output, [0, 2]);
    } else {
      // […, channels, columns]: only the columns are summed here, the rest when the results are read.
      reduce(as32, output, [-1]);
    }
    outputs.push({ name: output, type: { tensorType: { elemType: float32 } } });
  }
  return {
    ...model,
    graph: { ...graph, initializer, node: [...graph.node, ...nodes], output: [...graph.output, ...outputs] },
  };
}
