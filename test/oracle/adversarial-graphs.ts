import { GraphBuilder, type ModelProto, type Value } from 'node-tensorrt/onnx';

/** A generator of random numbers in [0, 1): Numerical Recipes' linear congruence. */
export function randomNumbers(seed: number): () => number {
  let state = (seed * 2654435761) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const rows = 4;
const width = 16;
export const adversarialDims = [rows, width] as const;

/**
 * A random graph from `x` to `y`, float32 [4, 16], whose values are made to overflow FP16: products of large weights,
 * large biases, scale factors and their inverses, sums of what came before, squares, exponentials, scores of attention
 * with masks, normalisations of what is large.
 */
export function adversarialGraph(seed: number): ModelProto {
  const random = randomNumbers(seed);
  const g = new GraphBuilder(`adversarial-${seed}`);
  let weights = 0;
  const power = (least: number, most: number) => 10 ** (least + (most - least) * random());
  const weight = (dims: number[], scale: number) => {
    const data = Float32Array.from(
      { length: dims.reduce((a, b) => a * b) },
      () => scale * (2 * random() - 1),
    );
    return g.initializer(`w${weights++}`, 'float32', dims, data);
  };
  const values: Value[] = [g.input('x', 'float32', adversarialDims)];
  const pick = () => values[Math.floor(random() * values.length)]!;
  const last = () => values.at(-1)!;
  const product = (x: Value, scale: number) => g.op('MatMul', [x, weight([width, width], scale)]);
  const norm = (x: Value) => {
    const square = g.op('ReduceMean', [g.op('Pow', [x, g.scalar(2)]), g.vector([-1])]);
    return g.op('Div', [x, g.op('Sqrt', [g.op('Add', [square, g.scalar(1e-6)])])]);
  };
  const steps: (() => Value)[] = [
    () => product(last(), power(-1, 0)),
    () => product(last(), power(-4, 4)),
    () => product(pick(), power(-1, 1)),
    () => g.op('Add', [last(), weight([width], power(-2, 5))]),
    () => {
      const factor = Math.fround(power(1, 5));
      return g.op('Mul', [g.op('Mul', [last(), g.scalar(factor)]), g.scalar(1 / factor)]);
    },
    () => {
      const factor = Math.fround(power(1, 6));
      return g.op('Mul', [product(g.op('Div', [last(), g.scalar(factor)]), 0.5), g.scalar(factor)]);
    },
    () => {
      const bias = g.scalar(Math.fround(power(2, 5)));
      return g.op('Sub', [g.op('Relu', [g.op('Add', [last(), bias])]), bias]);
    },
    () => g.op('Add', [last(), pick()]),
    () => g.op('Mul', [last(), pick()]),
    () => g.op('Sub', [last(), pick()]),
    () => {
      const x = last();
      return g.op('Mul', [x, x]);
    },
    () => g.op('Exp', [g.op('Clip', [last(), g.scalar(-20), g.scalar(20)])]),
    () => g.op('Relu', [last()]),
    () => g.op('Mul', [last(), g.op('Sigmoid', [pick()])]),
    () => g.op('Gelu', [last()]),
    () => g.op('Tanh', [last()]),
    () => norm(last()),
    () =>
      g.op('LayerNormalization', [last(), weight([width], 2), weight([width], 1)], {
        axis: -1,
        epsilon: { float: 1e-5 },
      }),
    () => g.op('Expand', [g.op('ReduceSum', [last(), g.vector([-1])]), g.vector(adversarialDims)]),
    () => {
      const [q, k, v] = [1, 1, 0.5].map((scale) => product(last(), scale));
      const scores = g.op('MatMul', [q!, g.op('Transpose', [k!], { perm: [1, 0] })]);
      const mask = Float32Array.from({ length: rows * rows }, (_, i) =>
        i % rows > Math.floor(i / rows)
          ? [-1e4, -3.4e38, Number.NEGATIVE_INFINITY][Math.floor(random() * 3)]!
          : 0,
      );
      const masked = g.op('Add', [scores, g.initializer(`m${weights++}`, 'float32', [rows, rows], mask)]);
      return g.op('MatMul', [g.op('Softmax', [masked]), v!]);
    },
    () => {
      const [a, b] = g.op('Split', [last()], { axis: 1, num_outputs: 2 }, { outputs: 2 });
      return g.op('Concat', [g.op('Mul', [b!, g.scalar(Math.fround(power(0, 4)))]), a!], { axis: 1 });
    },
    () => {
      const condition = g.op('Greater', [last(), g.scalar(0)]);
      return g.op('Where', [condition, last(), g.scalar(-Math.fround(power(0, 6)))]);
    },
  ];
  const count = 4 + Math.floor(random() * 10);
  for (let i = 0; i < count; i++) values.push(steps[Math.floor(random() * steps.length)]!());
  // Whatever came out, something computes with it.
  g.op('MatMul', [norm(last()), weight([width, width], 1)], {}, { outputs: ['y'] });
  g.op('Identity', [last()], {}, { outputs: ['z'] });
  g.output('y', 'float32', adversarialDims);
  g.output('z', 'float32', adversarialDims);
  return g.finish();
}
