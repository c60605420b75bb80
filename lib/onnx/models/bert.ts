import { join } from 'node:path';
import { dataTypes } from '../../base/data-type.js';
import { describe, invalidArgType, invalidArgValue, TensorRTError } from '../../base/errors.js';
import { checkPath } from '../../base/options.js';
import { checkSeed, normalNumbers } from '../../base/random.js';
import { readWhole } from '../../system/files/file-range.js';
import type { ModelProto } from '../format/model.js';
import { readSafetensors, type Safetensors } from '../format/safetensors.js';
import { GraphBuilder, type Value } from '../graph/graph-builder.js';
import { SafetensorsWeights, type Weights } from './weights.js';

/** Options of {@link buildBert}. */
export interface BertOptions {
  /**
   * The output of the graph. Defaults to 'embedding'.
   * - `last_hidden_state`: output `last_hidden_state`, float32 `[batch, seq, hidden]`.
   * - `embedding`: output `sentence_embedding`, float32 `[batch, hidden]`: the hidden states averaged over
   *   `attention_mask` and scaled to L2 norm 1, as sentence-transformers does for all-MiniLM-L6-v2.
   */
  head?: 'last_hidden_state' | 'embedding';
  /** The seed of random weights. Defaults to 0. */
  seed?: number;
}

interface BertConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly intermediateSize: number;
  readonly maxPositions: number;
  readonly tokenTypes: number;
  readonly epsilon: number;
  readonly activation: string;
}

/**
 * This number is added to the attention scores of padding. A score this far below the others has probability 0 in
 * float32 and in float16. In float16, the customary -3.4e38 would be infinite and turn a row that is all padding into
 * NaN. This is the value of the original BERT (google-research/bert, modeling.py).
 */
const maskedScore = -10_000;

/** The lower bounds in PyTorch's `normalize` (eps) and in sentence-transformers' Pooling (clamp of the mask's sum). */
const normEpsilon = 1e-12;
const countEpsilon = 1e-9;

/**
 * Builds the ONNX graph of a BERT encoder from a Hugging Face folder: `config.json` and `model.safetensors`
 * (float32, float16 or bfloat16; names with or without the `bert.` prefix). From a configuration alone, an object with
 * the fields of `config.json`, it builds an encoder with random weights, which is enough to measure its speed.
 *
 * Inputs, all int64 `[batch, seq]`: `input_ids`, `attention_mask` (1 for a token, 0 for padding), `token_type_ids`.
 * `seq` may be up to the configuration's `max_position_embeddings`. Weights are written as float32.
 *
 * @param source the folder, or the configuration.
 * @throws TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID (a weight is missing or has another shape, the
 * configuration is broken), ERR_MODEL_UNSUPPORTED (the configuration isn't supported), ERR_IO
 * @example
 * ```js
 * import { buildBert, writeModel } from 'node-tensorrt/onnx';
 *
 * const config = {
 *   model_type: 'bert',
 *   vocab_size: 100,
 *   hidden_size: 32,
 *   num_hidden_layers: 2,
 *   num_attention_heads: 4,
 *   intermediate_size: 64,
 *   max_position_embeddings: 64,
 *   type_vocab_size: 2,
 *   hidden_act: 'gelu',
 *   layer_norm_eps: 1e-12,
 * };
 * await writeModel(await buildBert(config), 'bert.onnx'); // or buildBert('all-MiniLM-L6-v2'), a folder
 * ```
 */
export async function buildBert(
  source: string | Readonly<Record<string, unknown>>,
  options: BertOptions = {},
): Promise<ModelProto> {
  if (typeof source !== 'string' && (typeof source !== 'object' || source === null)) {
    throw invalidArgType('source', "a folder's path or a configuration", source);
  }
  if (typeof source === 'string') checkPath(source, 'source');
  const head = options.head ?? 'embedding';
  if (head !== 'last_hidden_state' && head !== 'embedding') {
    throw invalidArgValue(
      'options.head',
      `must be 'last_hidden_state' or 'embedding', not ${describe(head)}.`,
    );
  }
  const seed = options.seed ?? 0;
  checkSeed(seed, 'options.seed');
  if (typeof source !== 'string') {
    return new BertGraph(parseConfig(source, 'The configuration'), randomWeights(seed)).build(head);
  }
  const config = await readConfig(join(source, 'config.json'));
  const weights = bertWeights(await readSafetensors(join(source, 'model.safetensors')));
  return new BertGraph(config, weights).build(head);
}

async function readConfig(path: string): Promise<BertConfig> {
  const bytes = await readWhole(path, 'model configuration');
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new Error('it is no object');
  } catch (cause) {
    throw new TensorRTError('ERR_MODEL_INVALID', `${path} isn't valid JSON: ${(cause as Error).message}.`, {
      cause,
    });
  }
  return parseConfig(json, path);
}

/** `label` names the configuration in errors. */
function parseConfig(json: Readonly<Record<string, unknown>>, label: string): BertConfig {
  const unsupported = (key: string, supported: string): never => {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `${label}: ${key} is ${describe(json[key])}; buildBert builds ${supported} only.`,
    );
  };
  const count = (key: string): number => {
    const value = json[key];
    if (!Number.isSafeInteger(value) || (value as number) < 1) {
      throw new TensorRTError(
        'ERR_MODEL_INVALID',
        `${label}: ${key} is ${describe(value)}, not a positive whole number.`,
      );
    }
    return value as number;
  };
  if (json.model_type !== 'bert') unsupported('model_type', '"bert"');
  if ((json.position_embedding_type ?? 'absolute') !== 'absolute')
    unsupported('position_embedding_type', '"absolute"');
  if (json.is_decoder === true) unsupported('is_decoder', 'encoders (false)');
  if (json.add_cross_attention === true) unsupported('add_cross_attention', 'encoders (false)');
  const activation = json.hidden_act ?? 'gelu';
  if (typeof activation !== 'string' || !Object.hasOwn(activations, activation)) {
    unsupported('hidden_act', Object.keys(activations).join(', '));
  }
  const epsilon = json.layer_norm_eps ?? 1e-12;
  if (typeof epsilon !== 'number' || !(epsilon >= 0 && epsilon < 1)) {
    throw new TensorRTError('ERR_MODEL_INVALID', `${label}: layer_norm_eps is ${describe(epsilon)}.`);
  }
  const config: BertConfig = {
    vocabSize: count('vocab_size'),
    hiddenSize: count('hidden_size'),
    layers: count('num_hidden_layers'),
    heads: count('num_attention_heads'),
    intermediateSize: count('intermediate_size'),
    maxPositions: count('max_position_embeddings'),
    tokenTypes: count('type_vocab_size'),
    epsilon,
    activation: activation as string,
  };
  if (config.hiddenSize % config.heads !== 0) {
    throw new TensorRTError(
      'ERR_MODEL_INVALID',
      `${label}: hidden_size ${config.hiddenSize} isn't a multiple of num_attention_heads ${config.heads}.`,
    );
  }
  return config;
}

/**
 * Activations by `hidden_act`. "gelu_new", "gelu_fast" and "gelu_pytorch_tanh" are the same formula, the tanh
 * approximation.
 */
const activations: Readonly<Record<string, (g: GraphBuilder, x: Value) => Value>> = {
  gelu: (g, x) => g.op('Gelu', [x]),
  gelu_new: (g, x) => g.op('Gelu', [x], { approximate: 'tanh' }),
  gelu_fast: (g, x) => g.op('Gelu', [x], { approximate: 'tanh' }),
  gelu_pytorch_tanh: (g, x) => g.op('Gelu', [x], { approximate: 'tanh' }),
  relu: (g, x) => g.op('Relu', [x]),
  silu: (g, x) => g.op('Mul', [x, g.op('Sigmoid', [x])]),
  swish: (g, x) => g.op('Mul', [x, g.op('Sigmoid', [x])]),
};

/**
 * Names in checkpoints may begin with `bert.`. Checkpoints from TensorFlow call LayerNorm's weight and bias gamma and
 * beta.
 */
function bertWeights(file: Safetensors): Weights {
  const prefix = file.tensors.has('bert.embeddings.word_embeddings.weight') ? 'bert.' : '';
  return new SafetensorsWeights(file, (name) => {
    const fullName = prefix + name;
    const legacy = fullName
      .replace(/LayerNorm\.weight$/, 'LayerNorm.gamma')
      .replace(/LayerNorm\.bias$/, 'LayerNorm.beta');
    return !file.tensors.has(fullName) && file.tensors.has(legacy) ? legacy : fullName;
  });
}

/**
 * Makes weights like BERT's before training (google-research/bert, modeling.py): normally distributed with deviation
 * 0.02, and biases of 0.
 */
function randomWeights(seed: number): Weights {
  const normal = normalNumbers(seed);
  return {
    get(name, dims) {
      const values = new Float32Array(dims.reduce((size, dim) => size * dim, 1));
      if (name.endsWith('LayerNorm.weight')) return values.fill(1);
      if (name.endsWith('.bias')) return values;
      for (let i = 0; i < values.length; i++) values[i] = 0.02 * normal();
      return values;
    },
  };
}

class BertGraph {
  readonly #config: BertConfig;
  readonly #weights: Weights;
  readonly #g = new GraphBuilder('bert');

  constructor(config: BertConfig, weights: Weights) {
    this.#config = config;
    this.#weights = weights;
  }

  build(head: 'last_hidden_state' | 'embedding'): ModelProto {
    const g = this.#g;
    const { hiddenSize, layers } = this.#config;
    const inputIds = g.input('input_ids', 'int64', ['batch', 'seq']);
    const attentionMask = g.input('attention_mask', 'int64', ['batch', 'seq']);
    const tokenTypeIds = g.input('token_type_ids', 'int64', ['batch', 'seq']);

    const mask = g.op(
      'Cast',
      [attentionMask],
      { to: dataTypes.float32.onnx },
      { name: 'attention_mask.Cast' },
    );
    // [batch, 1, 1, seq]: 0 for a token and maskedScore for padding, added to every row of every head's scores.
    const bias = g.scope('attention_mask', () => {
      const padding = g.op('Sub', [g.scalar(1), mask]);
      const scores = g.op('Mul', [padding, g.scalar(maskedScore)]);
      return g.op('Unsqueeze', [scores, g.vector([1, 2])]);
    });

    let hidden = this.#embeddings(inputIds, tokenTypeIds);
    for (let i = 0; i < layers; i++)
      hidden = this.#layer(`encoder.layer.${i}`, hidden, bias, i === layers - 1 && head);

    if (head === 'last_hidden_state') g.output(hidden, 'float32', ['batch', 'seq', hiddenSize]);
    else g.output(this.#embedding(hidden, mask), 'float32', ['batch', hiddenSize]);
    return g.finish();
  }

  #embeddings(inputIds: Value, tokenTypeIds: Value): Value {
    const g = this.#g;
    const { vocabSize, hiddenSize, maxPositions, tokenTypes } = this.#config;
    const table = (name: string, rows: number): Value =>
      this.#weight(`embeddings.${name}.weight`, [rows, hiddenSize]);
    const words = table('word_embeddings', vocabSize);
    const positions = table('position_embeddings', maxPositions);
    const types = table('token_type_embeddings', tokenTypes);
    return g.scope('embeddings', () => {
      const word = g.op('Gather', [words, inputIds], { axis: 0 }, { name: 'word_embeddings.Gather' });
      const type = g.op(
        'Gather',
        [types, tokenTypeIds],
        { axis: 0 },
        { name: 'token_type_embeddings.Gather' },
      );
      // The positions are 0 … seq - 1, so they are the table's first rows, [seq, hidden].
      const seq = g.op('Shape', [inputIds], { start: 1, end: 2 });
      const position = g.op(
        'Slice',
        [positions, g.vector([0]), seq, g.vector([0])],
        {},
        {
          name: 'position_embeddings.Slice',
        },
      );
      const sum = g.op('Add', [g.op('Add', [word, type]), position]);
      return this.#layerNorm('embeddings.LayerNorm', 'LayerNorm', sum);
    });
  }

  #layer(path: string, input: Value, bias: Value, head: false | 'last_hidden_state' | 'embedding'): Value {
    const g = this.#g;
    const { hiddenSize, intermediateSize, heads, activation } = this.#config;
    const headSize = hiddenSize / heads;
    return g.scope(path, () => {
      const context = g.scope('attention.self', () => {
        const project = (name: string): Value =>
          g.op(
            'Reshape',
            [this.#linear(`${path}.attention.self.${name}`, name, input, hiddenSize, hiddenSize), shape],
            {},
            {
              name: `${name}.Reshape`,
            },
          );
        const shape = g.vector([0, 0, heads, headSize]);
        const perm = [0, 2, 1, 3];
        // The query is scaled instead of the scores, because it has fewer elements, and products in float16 stay
        // smaller.
        const query = g.op(
          'Transpose',
          [g.op('Mul', [project('query'), g.scalar(Math.fround(headSize ** -0.5))])],
          {
            perm,
          },
        );
        const key = g.op('Transpose', [project('key')], { perm: [0, 2, 3, 1] });
        const value = g.op('Transpose', [project('value')], { perm });
        const scores = g.op('Add', [g.op('MatMul', [query, key], {}, { name: 'scores.MatMul' }), bias]);
        const probabilities = g.op('Softmax', [scores], { axis: -1 });
        const mixed = g.op('MatMul', [probabilities, value], {}, { name: 'context.MatMul' });
        return g.op(
          'Reshape',
          [g.op('Transpose', [mixed], { perm }), g.vector([0, 0, hiddenSize])],
          {},
          {
            name: 'context.Reshape',
          },
        );
      });
      const attended = g.scope('attention.output', () => {
        const dense = this.#linear(
          `${path}.attention.output.dense`,
          'dense',
          context,
          hiddenSize,
          hiddenSize,
        );
        const sum = g.op('Add', [dense, input]);
        return this.#layerNorm(`${path}.attention.output.LayerNorm`, 'LayerNorm', sum);
      });
      const wide = g.scope('intermediate', () =>
        activations[activation]!(
          g,
          this.#linear(`${path}.intermediate.dense`, 'dense', attended, hiddenSize, intermediateSize),
        ),
      );
      return g.scope('output', () => {
        const dense = this.#linear(`${path}.output.dense`, 'dense', wide, intermediateSize, hiddenSize);
        const sum = g.op('Add', [dense, attended]);
        return this.#layerNorm(
          `${path}.output.LayerNorm`,
          'LayerNorm',
          sum,
          head === 'last_hidden_state' ? head : undefined,
        );
      });
    });
  }

  /** Averages over the tokens and scales the mean to L2 norm 1: [batch, seq, hidden] to [batch, hidden]. */
  #embedding(hidden: Value, mask: Value): Value {
    const g = this.#g;
    const pooled = g.scope('pooling', () => {
      const weighted = g.op('Mul', [hidden, g.op('Unsqueeze', [mask, g.vector([2])])]);
      const sum = g.op('ReduceSum', [weighted, g.vector([1])], { keepdims: 0 });
      const count = g.op('ReduceSum', [mask, g.vector([1])], { keepdims: 1 }, { name: 'count.ReduceSum' });
      return g.op('Div', [sum, g.op('Max', [count, g.scalar(countEpsilon)])]);
    });
    return g.scope('normalize', () => {
      const norm = g.op('ReduceL2', [pooled, g.vector([1])], { keepdims: 1 });
      const atLeast = g.op('Max', [norm, g.scalar(normEpsilon)]);
      return g.op('Div', [pooled, atLeast], {}, { outputs: ['sentence_embedding'] })[0]!;
    });
  }

  /**
   * Computes x · Wᵀ + b with PyTorch's W [out, in], which is stored transposed so that the graph has a plain MatMul.
   */
  #linear(path: string, name: string, x: Value, inputs: number, outputs: number): Value {
    const g = this.#g;
    const weight = g.initializer(
      `${path}.weight`,
      'float32',
      [inputs, outputs],
      transposed(this.#weights.get(`${path}.weight`, [outputs, inputs]), outputs, inputs),
    );
    const bias = this.#weight(`${path}.bias`, [outputs]);
    return g.op(
      'Add',
      [g.op('MatMul', [x, weight], {}, { name: `${name}.MatMul` }), bias],
      {},
      { name: `${name}.Add` },
    );
  }

  #layerNorm(path: string, name: string, x: Value, output?: string): Value {
    const dims = [this.#config.hiddenSize];
    const inputs = [x, this.#weight(`${path}.weight`, dims), this.#weight(`${path}.bias`, dims)];
    const attributes = { axis: -1, epsilon: { float: this.#config.epsilon } };
    if (output === undefined) return this.#g.op('LayerNormalization', inputs, attributes, { name });
    return this.#g.op('LayerNormalization', inputs, attributes, { name, outputs: [output] })[0]!;
  }

  #weight(path: string, dims: readonly number[]): Value {
    return this.#g.initializer(path, 'float32', dims, this.#weights.get(path, dims));
  }
}

/** Transposes a row-major [rows, columns] matrix, in tiles that stay in the cache. */
function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const tile = 32;
  const result = new Float32Array(matrix.length);
  for (let r0 = 0; r0 < rows; r0 += tile) {
    const r1 = Math.min(rows, r0 + tile);
    for (let c0 = 0; c0 < columns; c0 += tile) {
      const c1 = Math.min(columns, c0 + tile);
      for (let r = r0; r < r1; r++) {
        for (let c = c0; c < c1; c++) result[c * rows + r] = matrix[r * columns + c]!;
      }
    }
  }
  return result;
}
