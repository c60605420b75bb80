// Llama-like decoders with random weights: RMS norm, grouped-query attention, rotary positions, SwiGLU.
import { existsSync } from 'node:fs';
import { mkdir, open, rename } from 'node:fs/promises';
import path from 'node:path';
import { GraphBuilder, toFloat16Bits, writeModel } from 'node-tensorrt/onnx';
import { block, roundBlock, writeGguf } from './gguf.mjs';

const layers = 8;
const hidden = 512;
const heads = 8;
const kvHeads = 2;
const headSize = hidden / heads;
const intermediate = 1408;
const vocabulary = 8192;
export const maxPositions = 1024;

/**
 * Writes a prefill graph, as an exporter would, unless the file exists: 31 million parameters, 8 layers, hidden size
 * 512, 8 query heads over 2 key/value heads. `input_ids` int64 [batch, seq] → `logits` float32 [batch, seq, vocab].
 */
export function llamaModel(folder) {
  return write(folder, 'llama-31m.onnx', build);
}

/**
 * Writes a decoder, as onnxruntime-genai's model builder does, unless the file exists: `input_ids` and
 * `attention_mask`, int64, and past → `logits` float32 [batch, seq, vocab] and present, of `type`.
 *
 * @param shape { layers, hidden, heads, kvHeads, intermediate, vocabulary, positions }
 */
export function llamaDecoder(folder, type, shape) {
  return write(folder, decoderName(type, shape), () => buildDecoder(type, shape));
}

/**
 * Writes the same random decoder twice unless it is there, from the same weights: for ONNX runtimes as `llamaDecoder` does,
 * with 'float32' weights or with 'int4' ones (MatMulNBits, blocks of 32), and for llama.cpp as GGUF (F32, Q4_0). int4
 * weights are rounded by Q4_0's rule in both.
 *
 * @returns the files
 */
export async function llamaForRuntimes(folder, precision, shape) {
  const name = `runtimes-${decoderName(precision, shape)}`;
  const gguf = path.join(folder, name.replace(/\.onnx$/, '.gguf'));
  const model = buildDecoder('float32', shape);
  const onnx = await write(folder, name, () =>
    precision === 'float32' ? model : buildDecoder('float32', shape, { int4: true }),
  );
  if (!existsSync(gguf)) await writeGguf(gguf, model.graph.initializer, precision, shape);
  return { onnx, gguf };
}

/**
 * The same, in seconds for billions of parameters: its matrices are parts of few random numbers that come again and again, in
 * files beside it. No two of a matrix's rows are equal.
 */
export function largeLlamaDecoder(folder, type, shape) {
  const name = `large-${decoderName(type, shape)}`;
  return write(folder, name, async () => {
    const model = buildDecoder(type, shape, { isLater: true });
    await moveOut(model, type, folder, name);
    return model;
  });
}

const decoderName = (type, shape) => `decoder-${type}-${Object.values(shape).join('-')}.onnx`;

/**
 * The number of elements that a decoder's step reads: its weights (of the embedding, only the rows used), and those of
 * one token in the cache.
 */
export function readOfStep({ layers, hidden, heads, kvHeads, intermediate, vocabulary }) {
  const kvWidth = (kvHeads * hidden) / heads;
  return {
    weights: hidden * (layers * (2 * hidden + 2 * kvWidth + 3 * intermediate) + vocabulary),
    perToken: layers * 2 * kvWidth,
  };
}

async function write(folder, name, make) {
  const file = path.join(folder, name);
  if (existsSync(file)) return file;
  await mkdir(folder, { recursive: true });
  const partial = `${file}.${process.pid}`;
  await writeModel(await make(), partial);
  await rename(partial, file);
  return file;
}

/** A generator that gives the same numbers every time, uniform in [-1, 1). */
function uniformNumbers() {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
    return state / 2 ** 31 - 1;
  };
}

/**
 * The factor for uniform numbers in a matrix `[from, to]` with which values keep their magnitude from layer to layer.
 */
const scaleOf = (dims) => Math.sqrt(3 / dims[0]);

const elementsOf = (type, values) => (type === 'float16' ? toFloat16Bits(values) : values);

/**
 * Weights of one type, drawn at random.
 * @param isLater matrices are left zero, for moveOut()
 * @param int4 products of matrices are MatMulNBits
 */
function weightsOf(g, type, { isLater = false, int4 = false } = {}) {
  const uniform = uniformNumbers();
  const size = (dims) => dims.reduce((a, b) => a * b);
  const tensor = (name, dims, f) => {
    const elements = Float32Array.from({ length: size(dims) }, (_, i) => f(i));
    return g.initializer(name, type, dims, elementsOf(type, elements));
  };
  const random = (dims) => {
    const scale = scaleOf(dims);
    return Float32Array.from({ length: size(dims) }, () => uniform() * scale);
  };
  const weight = (name, dims) => {
    // Memory that isn't touched isn't allocated.
    const Elements = type === 'float16' ? Uint16Array : Float32Array;
    const elements = isLater ? new Elements(size(dims)) : elementsOf(type, random(dims));
    return g.initializer(name, type, dims, elements);
  };
  const linear = (name, x, from, to) => {
    if (!int4) return g.op('MatMul', [x, weight(`${name}.weight`, [from, to])], {}, { name });
    const { packed, scales } = roundToInt4(random([from, to]), from, to);
    return g.op(
      'MatMulNBits',
      [
        x,
        g.initializer(`${name}.weight`, 'uint8', [to, from / block, block / 2], packed),
        g.initializer(`${name}.scales`, 'float32', [to * (from / block)], scales),
      ],
      // Activations in 8 bits, as onnxruntime-genai's builder asks for on the CPU, and as llama.cpp computes.
      { K: from, N: to, bits: 4, block_size: block, accuracy_level: 4 },
      { name, domain: 'com.microsoft' },
    );
  };
  return { tensor, weight, linear };
}

/** A matrix `[from, to]` as MatMulNBits has it: for each column, blocks of pairs of numbers, and their scales. */
function roundToInt4(matrix, from, to) {
  const packed = new Uint8Array((from * to) / 2);
  const scales = new Float32Array((from * to) / block);
  for (let column = 0; column < to; column++) {
    for (let start = 0; start < from; start += block) {
      const { scale, numbers } = roundBlock(matrix, to, column, start);
      const at = column * (from / block) + start / block;
      scales[at] = scale;
      for (let i = 0; i < block; i += 2) packed[(at * block + i) / 2] = numbers[i] | (numbers[i + 1] << 4);
    }
  }
  return { packed, scales };
}

/** Random numbers of a matrix before they come again: a prime, so that rows begin at different ones. */
const period = 1_048_573;

/** Fills a model's matrices with random numbers, in files beside it: one file per scale factor. */
async function moveOut(model, type, folder, name) {
  const files = new Map();
  for (const [i, tensor] of model.graph.initializer.entries()) {
    const isMatrix = tensor.name.endsWith('.weight') && tensor.dims.length === 2;
    if (!isMatrix && tensor.name !== 'embedding') continue;
    const scale = scaleOf(tensor.dims);
    const location = `${name}.${tensor.dims[0]}.data`;
    const offset = 4096 * (i % 256);
    const length = tensor.rawData.byteLength;
    files.set(location, { scale, size: Math.max(files.get(location)?.size ?? 0, offset + length) });
    tensor.rawData = undefined;
    tensor.dataLocation = 1;
    tensor.externalData = Object.entries({ location, offset, length }).map(([key, value]) => ({
      key,
      value: String(value),
    }));
  }
  for (const [location, { scale, size }] of files) {
    const uniform = uniformNumbers();
    const numbers = elementsOf(
      type,
      Float32Array.from({ length: period }, () => uniform() * scale),
    );
    const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
    const file = await open(path.join(folder, location), 'w');
    try {
      for (let at = 0; at < size; at += bytes.length) await file.writeFile(bytes.subarray(0, size - at));
    } finally {
      await file.close();
    }
  }
}

function buildDecoder(
  type,
  { layers, hidden, heads, kvHeads, intermediate, vocabulary, positions },
  options = {},
) {
  const g = new GraphBuilder('llama');
  const { tensor, weight, linear } = weightsOf(g, type, options);
  const headSize = hidden / heads;
  const half = headSize / 2;
  const norm = (name, x) =>
    g.op('SimplifiedLayerNormalization', [x, tensor(`${name}.weight`, [hidden], () => 1)], {
      axis: -1,
      epsilon: { float: 1e-5 },
    });
  const angle = (i) => Math.floor(i / half) * 10_000 ** (-(i % half) / half);

  const ids = g.input('input_ids', 'int64', ['batch_size', 'sequence_length']);
  const mask = g.input('attention_mask', 'int64', ['batch_size', 'total_sequence_length']);
  const int32 = (x) => g.op('Cast', [x], { to: 6 });
  const lengths = g.op('ReduceSum', [mask, g.vector([1])], { keepdims: 0 });
  const last = int32(g.op('Sub', [lengths, g.vector([1])]));
  const total = int32(g.op('Gather', [g.op('Shape', [mask]), g.scalar(1, 'int64')]));
  const cos = tensor('rotary.cos', [positions, half], (i) => Math.cos(angle(i)));
  const sin = tensor('rotary.sin', [positions, half], (i) => Math.sin(angle(i)));
  let x = g.op('Gather', [weight('embedding', [vocabulary, hidden]), ids]);
  for (let layer = 0; layer < layers; layer++) {
    const name = (part) => `layers.${layer}.${part}`;
    const cached = (length) => ['batch_size', kvHeads, `${length}_sequence_length`, headSize];
    const past = ['key', 'value'].map((part) =>
      g.input(`past_key_values.${layer}.${part}`, type, cached('past')),
    );
    const present = ['key', 'value'].map((part) => `present.${layer}.${part}`);
    const attended = norm(name('attention_norm'), x);
    const [q, k, v] = Object.entries({ q: heads, k: kvHeads, v: kvHeads }).map(([part, count]) =>
      linear(name(part), attended, hidden, count * headSize),
    );
    const [context] = g.op(
      'GroupQueryAttention',
      [q, k, v, ...past, last, total, cos, sin],
      { num_heads: heads, kv_num_heads: kvHeads, do_rotary: 1 },
      { domain: 'com.microsoft', name: name('attention'), outputs: [name('context'), ...present] },
    );
    for (const value of present) g.output(value, type, cached('total'));
    const residual = g.op('Add', [x, linear(name('o'), context, hidden, hidden)]);
    const fed = norm(name('feed_forward_norm'), residual);
    const gate = linear(name('gate'), fed, hidden, intermediate);
    const activated = g.op('Mul', [gate, g.op('Sigmoid', [gate])]);
    const up = g.op('Mul', [activated, linear(name('up'), fed, hidden, intermediate)]);
    x = g.op('Add', [residual, linear(name('down'), up, intermediate, hidden)]);
  }
  const scores = linear('head', norm('norm', x), hidden, vocabulary);
  g.op('Cast', [scores], { to: 1 }, { outputs: ['logits'] });
  g.output('logits', 'float32', ['batch_size', 'sequence_length', vocabulary]);
  return g.finish();
}

function build() {
  const g = new GraphBuilder('llama');
  const { weight, linear } = weightsOf(g, 'float32');
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
