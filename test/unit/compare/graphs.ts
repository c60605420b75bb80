import { normalNumbers, uniformNumbers } from './numbers.js';
import { GraphBuilder, type ModelProto, makeTensor, type NodeProto, type TensorProto } from 'node-tensorrt/onnx';

/** Graphs of different kinds, from a seed: the same seed gives the same graph. */
export const kinds = [
  'perceptron',
  'convolution',
  'attention',
  'residual',
  'normalized',
  'gated',
] as const;
export type Kind = (typeof kinds)[number];

/** A graph with input `x` and output `y`. */
export function makeGraph(kind: Kind, seed: number): ModelProto {
  const normal = normalNumbers(seed + 1);
  const uniform = uniformNumbers(seed + 1);
  const pick = (from: number, to: number) => from + Math.floor(uniform() * (to - from + 1));
  const g = new GraphBuilder(`${kind}-${seed}`);
  let count = 0;
  const weight = (dims: number[], scale = 1 / Math.sqrt(dims[0]!), around = 0) =>
    g.initializer(
      `weight.${count++}`,
      'float32',
      dims,
      Float32Array.from({ length: dims.reduce((product, size) => product * size, 1) }, () => around + scale * normal()),
    );
  const activations = ['Relu', 'Tanh', 'Sigmoid', 'Gelu', 'LeakyRelu', 'Softplus'] as const;
  const activation = (x: string) => g.op(activations[pick(0, activations.length - 1)]!, [x]);
  const depth = pick(2, 5);
  const width = 8 * pick(1, 4);
  const linear = (x: string, from: number, to: number) =>
    uniform() < 0.5 && kind === 'perceptron'
      ? g.op('Gemm', [x, weight([from, to]), weight([to], 0.5)])
      : g.op('Add', [g.op('MatMul', [x, weight([from, to])]), weight([to], 0.5)]);
  const norm = (x: string) => g.op('LayerNormalization', [x, weight([width], 0.1, 1), weight([width], 0.1)], { axis: -1 });
  let y: string;
  let outputDims: number[];
  switch (kind) {
    case 'perceptron': {
      y = g.input('x', 'float32', [4, width]);
      for (let i = 0; i < depth; i++) y = activation(linear(y, width, width));
      y = linear(y, width, 10);
      outputDims = [4, 10];
      break;
    }
    case 'convolution': {
      let channels = 3;
      y = g.input('x', 'float32', [2, channels, 12, 12]);
      for (let i = 0; i < depth; i++) {
        const next = 4 * pick(1, 3);
        y = g.op('Conv', [y, weight([next, channels, 3, 3], 0.3), weight([next], 0.3)], { pads: [1, 1, 1, 1] });
        const scale = [weight([next], 0.1, 1), weight([next], 0.1), weight([next], 0.1)];
        if (uniform() < 0.5) {
          const variance = g.initializer(`variance.${i}`, 'float32', [next], new Float32Array(next).fill(1.5));
          y = g.op('BatchNormalization', [y, scale[0]!, scale[1]!, scale[2]!, variance]);
        }
        y = g.op('Relu', [y]);
        if (i === 1) y = g.op('MaxPool', [y], { kernel_shape: [2, 2], strides: [2, 2] });
        channels = next;
      }
      y = g.op('Flatten', [g.op('GlobalAveragePool', [y])]);
      y = g.op('Gemm', [y, weight([channels, 10]), weight([10], 0.5)]);
      outputDims = [2, 10];
      break;
    }
    case 'attention': {
      y = g.input('x', 'float32', [2, 6, width]);
      for (let i = 0; i < Math.min(depth, 3); i++) {
        const h = norm(y);
        const [q, k, v] = [linear(h, width, width), linear(h, width, width), linear(h, width, width)];
        const scores = g.op('Mul', [
          g.op('MatMul', [q, g.op('Transpose', [k], { perm: [0, 2, 1] })]),
          g.initializer(`scale.${i}`, 'float32', [], Float32Array.of(1 / Math.sqrt(width))),
        ]);
        const mask = Float32Array.from({ length: 36 }, (_, j) => (j % 6 > Math.floor(j / 6) ? -1e4 : 0));
        const masked = g.op('Add', [scores, g.initializer(`mask.${i}`, 'float32', [6, 6], mask)]);
        const mixed = linear(g.op('MatMul', [g.op('Softmax', [masked], { axis: -1 }), v]), width, width);
        y = g.op('Add', [y, mixed]);
        y = g.op('Add', [y, linear(activation(linear(norm(y), width, 2 * width)), 2 * width, width)]);
      }
      y = norm(y);
      outputDims = [2, 6, width];
      break;
    }
    case 'residual': {
      y = g.input('x', 'float32', [3, width]);
      for (let i = 0; i < depth; i++) y = g.op('Add', [y, linear(activation(linear(y, width, width)), width, width)]);
      outputDims = [3, width];
      break;
    }
    case 'normalized': {
      y = g.input('x', 'float32', [3, 5, width]);
      for (let i = 0; i < depth; i++) {
        // A normalisation in parts, as older exporters write it.
        const centred = g.op('Sub', [y, g.op('ReduceMean', [y, g.vector([-1])])]);
        const variance = g.op('ReduceMean', [g.op('Mul', [centred, centred]), g.vector([-1])]);
        const deviation = g.op('Sqrt', [g.op('Add', [variance, g.initializer(`epsilon.${i}`, 'float32', [], Float32Array.of(1e-3))])]);
        y = g.op('Add', [g.op('Mul', [g.op('Div', [centred, deviation]), weight([width], 0.1, 1)]), weight([width], 0.1)]);
        y = activation(linear(y, width, width));
      }
      outputDims = [3, 5, width];
      break;
    }
    case 'gated': {
      y = g.input('x', 'float32', [4, width]);
      for (let i = 0; i < depth; i++) {
        const gate = g.op('Sigmoid', [linear(y, width, width)]);
        y = g.op('Mul', [gate, linear(y, width, width)]);
        y = g.op('Concat', [y, g.op('Slice', [y, g.vector([0]), g.vector([4]), g.vector([1])])], { axis: 1 });
        y = linear(y, width + 4, width);
      }
      outputDims = [4, width];
      break;
    }
  }
  g.op('Identity', [y], {}, { outputs: ['y'] });
  g.output('y', 'float32', outputDims);
  return g.finish();
}

/** The nodes that read a float32 weight of more than one element, with those weights. */
export function weightedNodes({ graph }: ModelProto): { node: NodeProto; weight: TensorProto }[] {
  const weights = new Map(graph.initializer.filter(({ dataType }) => dataType === 1).map((tensor) => [tensor.name, tensor]));
  return graph.node.flatMap((node) =>
    node.input.flatMap((name) => {
      const weight = weights.get(name);
      return weight ? [{ node, weight }] : [];
    }),
  );
}

/** The model with other elements in one weight. */
export function withWeight(model: ModelProto, name: string, change: (element: number, i: number) => number): ModelProto {
  const { graph } = model;
  const initializer = graph.initializer.map((tensor) => {
    if (tensor.name !== name) return tensor;
    const { buffer, byteOffset, byteLength } = tensor.rawData!;
    const elements = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer).map(change);
    return makeTensor(name, 'float32', tensor.dims, elements);
  });
  return { ...model, graph: { ...graph, initializer } };
}
