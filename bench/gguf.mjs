// Writes the random Llama of llama.mjs as a GGUF file, for llama.cpp, and rounds weights by llama.cpp's rule.
import { rename, writeFile } from 'node:fs/promises';
import { fromFloat16Bits, toFloat16Bits } from 'node-tensorrt/onnx';

/** Numbers that share a scale in int4 matrices, as in llama.cpp's Q4_0 (ggml-quants.c, quantize_row_q4_0_ref). */
export const block = 32;

/** The scale of a block and its numbers, 0 to 15, of which 8 is zero. The scale is one that float16 holds. */
export function roundBlock(matrix, to, column, start) {
  let largest = 0;
  for (let i = start; i < start + block; i++) {
    const value = matrix[i * to + column];
    if (Math.abs(value) > Math.abs(largest)) largest = value;
  }
  const [bits] = toFloat16Bits(Float32Array.of(largest / -8));
  const [scale] = fromFloat16Bits(Uint16Array.of(bits));
  const numbers = new Uint8Array(block);
  for (let i = 0; i < block; i++) {
    const value = matrix[(start + i) * to + column];
    numbers[i] = Math.min(15, Math.floor(scale === 0 ? 8.5 : value / scale + 8.5));
  }
  return { bits, scale, numbers };
}

/** A matrix `[from, to]` as GGUF has it: rows of `from` numbers, float32 or Q4_0. */
function ggufMatrix(matrix, from, to, precision) {
  if (precision === 'float32') {
    const rows = new Float32Array(from * to);
    for (let i = 0; i < from; i++) for (let j = 0; j < to; j++) rows[j * from + i] = matrix[i * to + j];
    return new Uint8Array(rows.buffer);
  }
  const bytes = new Uint8Array((from * to * 18) / block);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (let column = 0; column < to; column++) {
    for (let start = 0; start < from; start += block, at += 18) {
      const { bits, numbers } = roundBlock(matrix, to, column, start);
      view.setUint16(at, bits, true);
      for (let i = 0; i < block / 2; i++) bytes[at + 2 + i] = numbers[i] | (numbers[i + block / 2] << 4);
    }
  }
  return bytes;
}

/** llama.cpp turns neighbours of a head where ONNX turns halves: the columns of queries and keys change places. */
function withNeighbours(matrix, from, to, headSize) {
  const turned = new Float32Array(matrix.length);
  const half = headSize / 2;
  for (let j = 0; j < to; j++) {
    const within = j % headSize;
    const source = j - within + (within % 2) * half + (within >> 1);
    for (let i = 0; i < from; i++) turned[i * to + j] = matrix[i * to + source];
  }
  return turned;
}

/** A vocabulary of SentencePiece's kind: special tokens, bytes, and any texts. */
function textOf(token) {
  if (token < 3) return ['<unk>', '<s>', '</s>'][token];
  if (token < 259) return `<0x${(token - 3).toString(16).toUpperCase().padStart(2, '0')}>`;
  return `token ${token}`;
}

/** Writes weights as a GGUF file (version 3) of the architecture llama. */
export async function writeGguf(file, initializers, precision, shape) {
  const { layers, hidden, heads, kvHeads, intermediate, vocabulary, positions } = shape;
  const floats = (name) => {
    const { rawData } = initializers.find((tensor) => tensor.name === name);
    return new Float32Array(rawData.buffer, rawData.byteOffset, rawData.byteLength / 4);
  };
  const kvWidth = (kvHeads * hidden) / heads;
  const matrix = (name, from, to, turn = (values) => values) => ({
    dims: [from, to],
    type: precision === 'float32' ? 0 : 2,
    bytes: ggufMatrix(turn(floats(name)), from, to, precision),
  });
  const vector = (name) => ({ dims: [hidden], type: 0, bytes: new Uint8Array(floats(name).slice().buffer) });
  const turn = (to) => (values) => withNeighbours(values, hidden, to, hidden / heads);
  const tensors = {
    'token_embd.weight': {
      dims: [hidden, vocabulary],
      type: 0,
      bytes: new Uint8Array(floats('embedding').slice().buffer),
    },
    'output_norm.weight': vector('norm.weight'),
    'output.weight': matrix('head.weight', hidden, vocabulary),
  };
  for (let layer = 0; layer < layers; layer++) {
    const of = (part) => `layers.${layer}.${part}.weight`;
    const parts = {
      attn_norm: vector(of('attention_norm')),
      attn_q: matrix(of('q'), hidden, hidden, turn(hidden)),
      attn_k: matrix(of('k'), hidden, kvWidth, turn(kvWidth)),
      attn_v: matrix(of('v'), hidden, kvWidth),
      attn_output: matrix(of('o'), hidden, hidden),
      ffn_norm: vector(of('feed_forward_norm')),
      ffn_gate: matrix(of('gate'), hidden, intermediate),
      ffn_up: matrix(of('up'), hidden, intermediate),
      ffn_down: matrix(of('down'), intermediate, hidden),
    };
    for (const [part, tensor] of Object.entries(parts)) tensors[`blk.${layer}.${part}.weight`] = tensor;
  }
  const metadata = {
    'general.architecture': 'llama',
    'llama.context_length': positions,
    'llama.embedding_length': hidden,
    'llama.block_count': layers,
    'llama.feed_forward_length': intermediate,
    'llama.attention.head_count': heads,
    'llama.attention.head_count_kv': kvHeads,
    'llama.attention.layer_norm_rms_epsilon': { float: 1e-5 },
    'llama.rope.dimension_count': hidden / heads,
    'llama.rope.freq_base': { float: 10_000 },
    'llama.vocab_size': vocabulary,
    // llama.cpp wants texts, though only tokens are asked for.
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': Array.from({ length: vocabulary }, (_, i) => textOf(i)),
    'tokenizer.ggml.scores': new Float32Array(vocabulary),
    'tokenizer.ggml.token_type': Int32Array.from({ length: vocabulary }, (_, i) =>
      i < 3 ? 3 : i < 259 ? 6 : 1,
    ),
  };
  const parts = [];
  const number = (value, size) => {
    const bytes = Buffer.alloc(size);
    if (size === 8) bytes.writeBigUInt64LE(BigInt(value));
    else bytes.writeUInt32LE(value);
    parts.push(bytes);
  };
  const string = (value) => {
    number(Buffer.byteLength(value), 8);
    parts.push(Buffer.from(value));
  };
  parts.push(Buffer.from('GGUF'));
  number(3, 4);
  number(Object.keys(tensors).length, 8);
  number(Object.keys(metadata).length, 8);
  for (const [key, value] of Object.entries(metadata)) {
    string(key);
    if (typeof value === 'string') {
      number(8, 4);
      string(value);
    } else if (Array.isArray(value)) {
      number(9, 4);
      number(8, 4);
      number(value.length, 8);
      for (const each of value) string(each);
    } else if (ArrayBuffer.isView(value)) {
      number(9, 4);
      number(value instanceof Float32Array ? 6 : 5, 4);
      number(value.length, 8);
      parts.push(Buffer.from(value.buffer));
    } else if (typeof value === 'object') {
      number(6, 4);
      parts.push(Buffer.from(Float32Array.of(value.float).buffer));
    } else {
      number(4, 4);
      number(value, 4);
    }
  }
  const alignment = 32;
  const aligned = (size) => Math.ceil(size / alignment) * alignment;
  let offset = 0;
  for (const [name, { dims, type, bytes }] of Object.entries(tensors)) {
    string(name);
    number(dims.length, 4);
    for (const dim of dims) number(dim, 8);
    number(type, 4);
    number(offset, 8);
    offset += aligned(bytes.length);
  }
  const pad = (size) => parts.push(Buffer.alloc(aligned(size) - size));
  pad(parts.reduce((sum, { length }) => sum + length, 0));
  for (const { bytes } of Object.values(tensors)) {
    parts.push(bytes);
    pad(bytes.length);
  }
  const partial = `${file}.${process.pid}`;
  await writeFile(partial, parts);
  await rename(partial, file);
}
