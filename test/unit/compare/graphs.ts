import {
  castToFloat16,
  GraphBuilder,
  type ModelProto,
  makeTensor,
  measureRanges,
  type NodeProto,
  type TensorProto,
  toFloat16Bits,
} from 'node-tensorrt/onnx';
import { normalNumbers, uniformNumbers } from './numbers.js';

/** Graphs of different kinds, from a seed: the same seed gives the same graph. */
export const kinds = ['perceptron', 'convolution', 'attention', 'residual', 'normalized', 'gated'] as const;
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
      Float32Array.from(
        { length: dims.reduce((product, size) => product * size, 1) },
        () => around + scale * normal(),
      ),
    );
  const activations = ['Relu', 'Tanh', 'Sigmoid', 'Gelu', 'LeakyRelu', 'Softplus'] as const;
  const activation = (x: string) => g.op(activations[pick(0, activations.length - 1)]!, [x]);
  const depth = pick(2, 5);
  const width = 8 * pick(1, 4);
  const linear = (x: string, from: number, to: number) =>
    uniform() < 0.5 && kind === 'perceptron'
      ? g.op('Gemm', [x, weight([from, to]), weight([to], 0.5)])
      : g.op('Add', [g.op('MatMul', [x, weight([from, to])]), weight([to], 0.5)]);
  const norm = (x: string) =>
    g.op('LayerNormalization', [x, weight([width], 0.1, 1), weight([width], 0.1)], { axis: -1 });
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
        y = g.op('Conv', [y, weight([next, channels, 3, 3], 0.3), weight([next], 0.3)], {
          pads: [1, 1, 1, 1],
        });
        const scale = [weight([next], 0.1, 1), weight([next], 0.1), weight([next], 0.1)];
        if (uniform() < 0.5) {
          const variance = g.initializer(
            `variance.${i}`,
            'float32',
            [next],
            new Float32Array(next).fill(1.5),
          );
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
      for (let i = 0; i < depth; i++)
        y = g.op('Add', [y, linear(activation(linear(y, width, width)), width, width)]);
      outputDims = [3, width];
      break;
    }
    case 'normalized': {
      y = g.input('x', 'float32', [3, 5, width]);
      for (let i = 0; i < depth; i++) {
        // A normalisation in parts, as older exporters write it.
        const centred = g.op('Sub', [y, g.op('ReduceMean', [y, g.vector([-1])])]);
        const variance = g.op('ReduceMean', [g.op('Mul', [centred, centred]), g.vector([-1])]);
        const deviation = g.op('Sqrt', [
          g.op('Add', [variance, g.initializer(`epsilon.${i}`, 'float32', [], Float32Array.of(1e-3))]),
        ]);
        y = g.op('Add', [
          g.op('Mul', [g.op('Div', [centred, deviation]), weight([width], 0.1, 1)]),
          weight([width], 0.1),
        ]);
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
  const weights = new Map(
    graph.initializer.filter(({ dataType }) => dataType === 1).map((tensor) => [tensor.name, tensor]),
  );
  return graph.node.flatMap((node) =>
    node.input.flatMap((name) => {
      const weight = weights.get(name);
      return weight ? [{ node, weight }] : [];
    }),
  );
}

/** The model with other elements in one weight. */
export function withWeight(
  model: ModelProto,
  name: string,
  change: (element: number, i: number) => number,
): ModelProto {
  const { graph } = model;
  const initializer = graph.initializer.map((tensor) => {
    if (tensor.name !== name) return tensor;
    const { buffer, byteOffset, byteLength } = tensor.rawData!;
    const elements = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer).map(
      change,
    );
    return makeTensor(name, 'float32', tensor.dims, elements);
  });
  return { ...model, graph: { ...graph, initializer } };
}

/**
 * The model with one product that goes beyond FP16's largest number, to about 150000, and is scaled back behind it; with
 * that product's node. Its weights are within FP16's range.
 */
export async function withOverflow(
  model: ModelProto,
  seed: number,
): Promise<{ model: ModelProto; node: NodeProto }> {
  for (let i = seed; ; i++) {
    const made = await overflowAt(model, i);
    if (
      castToFloat16(made.model).report.nodes.find(({ node }) => node === made.node.name)?.precision === 'fp16'
    )
      return made;
  }
}

async function overflowAt(model: ModelProto, seed: number): Promise<{ model: ModelProto; node: NodeProto }> {
  const isProduct = ({ node, weight }: { node: NodeProto; weight: TensorProto }) =>
    /^(MatMul|Gemm|Conv)$/.test(node.opType) && node.input[1] === weight.name;
  const products = weightedNodes(model).filter(isProduct);
  const { node } = products[seed % products.length]!;
  const [output] = node.output as [string];
  const { least, most } = (await measureRanges(model)).values.get(output)!;
  // A power of two, so that scaling back is exact.
  const steps = Math.ceil(Math.log2(150000 / Math.max(most, -least)) / 2);
  const factor = 4 ** steps;
  let scaled = model;
  // A part of it comes with the input, since the weights must be in FP16's range too.
  scaled = withWeight(scaled, node.input[1]!, (element) => (element * factor) / 64);
  if (node.input[2]) scaled = withWeight(scaled, node.input[2], (element) => element * factor);
  const { graph } = scaled;
  const nodes = graph.node.flatMap((each): NodeProto[] => {
    if (each.name !== node.name) return [each];
    const middle = `${output}.middle`;
    const mul = (name: string, from: string, to: string, by = 'overflow.back'): NodeProto => ({
      name,
      opType: 'Mul',
      input: [from, by],
      output: [to],
      attribute: [],
    });
    const large = `${output}.large`;
    const scaledInput = `${output}.input`;
    const first = mul('scale', node.input[0]!, scaledInput, 'overflow.input');
    const product = { ...each, input: [scaledInput, ...node.input.slice(1)], output: [large] };
    return [first, product, mul('rescale.0', large, middle), mul('rescale.1', middle, output)];
  });
  const factors = [
    makeTensor('overflow.input', 'float32', [], Float32Array.of(64)),
    makeTensor('overflow.back', 'float32', [], Float32Array.of(2 ** -steps)),
  ];
  return {
    model: { ...scaled, graph: { ...graph, node: nodes, initializer: [...graph.initializer, ...factors] } },
    node,
  };
}

/**
 * The model with everything in FP16 but for its input and output and the nodes in `keep`, as simple converters do it:
 * a node in FP32 has casts before and behind it.
 */
export function inFloat16(model: ModelProto, keep: readonly string[] = []): ModelProto {
  const { graph } = model;
  const floats = new Map(
    graph.initializer.filter(({ dataType }) => dataType === 1).map((tensor) => [tensor.name!, tensor]),
  );
  const initializer = graph.initializer.flatMap((tensor) => {
    if (!floats.has(tensor.name!)) return [tensor];
    const { buffer, byteOffset, byteLength } = tensor.rawData!;
    const elements = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer);
    return [tensor, makeTensor(`${tensor.name}.half`, 'float16', tensor.dims, toFloat16Bits(elements))];
  });
  const cast = (from: string, to: string, type: number): NodeProto => ({
    name: `cast.${to}`,
    opType: 'Cast',
    input: [from],
    output: [to],
    attribute: [{ name: 'to', type: 2, i: BigInt(type) }],
  });
  const isInteger = (name: string) =>
    name === '' || graph.initializer.some((tensor) => tensor.name === name && tensor.dataType !== 1);
  // Values keep their names in FP16; those of kept nodes are there in FP32 too.
  const single = new Set<string>();
  const half = (name: string) =>
    isInteger(name) ? name : floats.has(name) || /^[xy]$/.test(name) ? `${name}.half` : name;
  const nodes = graph.node.flatMap((node): NodeProto[] => {
    if (!keep.includes(node.name!) && !keep.includes(node.opType))
      return [{ ...node, input: node.input.map(half), output: node.output.map(half) }];
    const casts: NodeProto[] = [];
    const input = node.input.map((name) => {
      if (isInteger(name) || floats.has(name)) return name;
      if (single.has(name)) return `${name}.single`;
      const read = `${name}.for.${node.name}`;
      // A square reads its input twice.
      if (!casts.some(({ output }) => output[0] === read)) casts.push(cast(half(name), read, 1));
      return read;
    });
    const [output] = node.output as [string];
    single.add(output);
    return [
      ...casts,
      { ...node, input, output: [`${output}.single`] },
      cast(`${output}.single`, half(output), 10),
    ];
  });
  return {
    ...model,
    graph: { ...graph, initializer, node: [cast('x', 'x.half', 10), ...nodes, cast('y.half', 'y', 1)] },
  };
}

/** The model without a node whose output has its input's dimensions: its readers read that. */
export function without(model: ModelProto, node: NodeProto): ModelProto {
  const { graph } = model;
  const [input] = node.input as [string];
  const [output] = node.output as [string];
  const nodes = graph.node
    .filter(({ name }) => name !== node.name)
    .map((each) => ({ ...each, input: each.input.map((name) => (name === output ? input : name)) }));
  return { ...model, graph: { ...graph, node: nodes } };
}

/** The model with other names for all nodes and values but inputs and outputs, as another export has them. */
export function renamed(model: ModelProto): ModelProto {
  const { graph } = model;
  const names = new Map<string, string>();
  const other = (name: string) => {
    if (name === '' || name === 'x' || name === 'y') return name;
    if (!names.has(name)) names.set(name, `value_${names.size}`);
    return names.get(name)!;
  };
  return {
    ...model,
    graph: {
      ...graph,
      node: graph.node.map((node, i) => ({
        ...node,
        name: `node_${i}`,
        input: node.input.map(other),
        output: node.output.map(other),
      })),
      initializer: graph.initializer.map((tensor) => ({ ...tensor, name: other(tensor.name!) })),
    },
  };
}
