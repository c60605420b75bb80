// A Llama-like decoder with random weights, as an exporter would write its prefill: 31 million parameters, 8 layers,
// hidden 512, 8 query heads over 2 key/value heads, RMS norm, rotary positions, SwiGLU.
import { existsSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import path from 'node:path';
import { GraphBuilder, writeModel } from 'node-tensorrt/onnx';

const layers = 8;
const hidden = 512;
const heads = 8;
const kvHeads = 2;
const headSize = hidden / heads;
const intermediate = 1408;
const vocabulary = 8192;
export const maxPositions = 1024;

/** Writes the model unless it is there: `input_ids` int64 [batch, seq] → `logits` float32 [batch, seq, vocab]. */
export async function llamaModel(folder) {
  const file = path.join(folder, 'llama-31m.onnx');
  if (existsSync(file)) return file;
  await mkdir(folder, { recursive: true });
  const partial = `${file}.${process.pid}`;
  await writeModel(build(), partial);
  await rename(partial, file);
  return file;
}

function build() {
  const g = new GraphBuilder('llama');
  let state = 1;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
    return state / 2 ** 31 - 1;
  };
  const weight = (name, dims) => {
    const size = dims.reduce((a, b) => a * b);
    const scale = Math.sqrt(3 / dims[0]);
    return g.initializer(
      name,
      'float32',
      dims,
      Float32Array.from({ length: size }, () => uniform() * scale),
    );
  };
  const linear = (name, x, from, to) =>
    g.op('MatMul', [x, weight(`${name}.weight`, [from, to])], {}, { name });
  const norm = (name, x) => {
    const square = g.op('Pow', [x, g.scalar(2)]);
    const mean = g.op('ReduceMean', [square, g.vector([-1])], { keepdims: 1 });
    const root = g.op('Sqrt', [g.op('Add', [mean, g.scalar(1e-5)])]);
    const gain = g.initializer(`${name}.weight`, 'float32', [hidden], new Float32Array(hidden).fill(1));
    return g.op('Mul', [g.op('Div', [x, root]), gain]);
  };

  const ids = g.input('input_ids', 'int64', ['batch', 'seq']);
  const length = g.op('Shape', [ids], { start: 1, end: 2 });
  const upTo = (value, axis) => g.op('Slice', [value, g.vector([0]), length, g.vector([axis])]);

  const half = headSize / 2;
  const angles = Float32Array.from({ length: maxPositions * headSize }, (_, i) => {
    return Math.floor(i / headSize) * 10_000 ** (-((i % headSize) % half) / half);
  });
  const table = (name, f) => upTo(g.initializer(name, 'float32', [maxPositions, headSize], angles.map(f)), 0);
  const cos = table('rotary.cos', Math.cos);
  const sin = table('rotary.sin', Math.sin);
  const rotate = (x) => {
    const [low, high] = g.op('Split', [x], { axis: -1, num_outputs: 2 }, { outputs: 2 });
    const turned = g.op('Concat', [g.op('Neg', [high]), low], { axis: -1 });
    return g.op('Add', [g.op('Mul', [x, cos]), g.op('Mul', [turned, sin])]);
  };
  const future = Float32Array.from({ length: maxPositions ** 2 }, (_, i) =>
    i % maxPositions > Math.floor(i / maxPositions) ? -10_000 : 0,
  );
  const mask = upTo(upTo(g.initializer('mask', 'float32', [maxPositions, maxPositions], future), 0), 1);
  const split = (x, count) =>
    g.op('Transpose', [g.op('Reshape', [x, g.vector([0, 0, count, headSize])])], { perm: [0, 2, 1, 3] });
  // [batch, kvHeads, seq, headSize] → [batch, heads, seq, headSize], each head repeated for its query heads
  const repeat = (x) => {
    const shape = g.op(
      'Concat',
      [g.op('Shape', [x], { start: 0, end: 2 }), g.vector([heads / kvHeads]), length, g.vector([headSize])],
      { axis: 0 },
    );
    const expanded = g.op('Expand', [g.op('Unsqueeze', [x, g.vector([2])]), shape]);
    const merged = g.op(
      'Concat',
      [g.op('Shape', [x], { start: 0, end: 1 }), g.vector([heads]), length, g.vector([headSize])],
      { axis: 0 },
    );
    return g.op('Reshape', [expanded, merged]);
  };

  let x = g.op('Gather', [weight('embedding', [vocabulary, hidden]), ids]);
  for (let layer = 0; layer < layers; layer++) {
    x = g.scope(`layers.${layer}`, () => {
      const name = (part) => `layers.${layer}.${part}`;
      const attended = norm(name('attention_norm'), x);
      const q = rotate(split(linear(name('q'), attended, hidden, hidden), heads));
      const k = rotate(split(linear(name('k'), attended, hidden, kvHeads * headSize), kvHeads));
      const v = split(linear(name('v'), attended, hidden, kvHeads * headSize), kvHeads);
      const keys = g.op('Transpose', [repeat(k)], { perm: [0, 1, 3, 2] });
      const scores = g.op('Mul', [g.op('MatMul', [q, keys]), g.scalar(headSize ** -0.5)]);
      const weights = g.op('Softmax', [g.op('Add', [scores, mask])], { axis: -1 });
      const context = g.op('Transpose', [g.op('MatMul', [weights, repeat(v)])], { perm: [0, 2, 1, 3] });
      const merged = g.op('Reshape', [context, g.vector([0, 0, hidden])]);
      const residual = g.op('Add', [x, linear(name('o'), merged, hidden, hidden)]);
      const fed = norm(name('feed_forward_norm'), residual);
      const gate = linear(name('gate'), fed, hidden, intermediate);
      const activated = g.op('Mul', [gate, g.op('Sigmoid', [gate])]);
      const up = g.op('Mul', [activated, linear(name('up'), fed, hidden, intermediate)]);
      return g.op('Add', [residual, linear(name('down'), up, intermediate, hidden)]);
    });
  }
  const last = norm('norm', x);
  g.op('MatMul', [last, weight('head', [hidden, vocabulary])], {}, { outputs: ['logits'] });
  g.output('logits', 'float32', ['batch', 'seq', vocabulary]);
  return g.finish();
}
