import path from 'node:path';
import { TensorRTError } from '../base/errors.js';
import type { Json } from '../base/json.js';
import { readdir, stat } from '../system/files/promises.js';
import { asObject, readJson } from '../system/files/text-file.js';
import { absolutePath } from '../system/files/working-directory.js';
import { UnusableValue } from './unusable-value.js';

/** How to choose tokens if the caller doesn't say. */
export interface SamplingDefaults {
  /** 0: greedy decoding. */
  readonly temperature: number | UnusableValue;
  /** 0: all tokens. */
  readonly topK: number | UnusableValue;
  /** 0: only the likeliest token. */
  readonly topP: number | UnusableValue;
  readonly minP: number | UnusableValue;
  readonly repetitionPenalty: number | UnusableValue;
}

/** A decoder's files and its configuration; fields that the configuration doesn't set are undefined. */
export interface DecoderConfig {
  /** The ONNX file. */
  readonly model: string;
  /** The folder to look in for the tokenizer's files. */
  readonly directory: string;
  /** Tokens that end an answer. */
  readonly eosTokens: readonly number[] | UnusableValue;
  readonly vocabulary: number | undefined | UnusableValue;
  /** The number of tokens that the model has positions for. */
  readonly maxLength: number | undefined | UnusableValue;
  readonly sampling: SamplingDefaults;
}

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 };

/** The default of GenerationConfig in transformers, for a file that asks for sampling without setting top_k. */
const transformersTopK = 50;

/**
 * Reads the configuration beside a decoder: optimum's config.json and generation_config.json, or onnxruntime-genai's
 * genai_config.json.
 * @param source a folder as either of them exports it, or as a model hub stores it (the graph in `onnx/`); or an ONNX
 *   file, with its configuration beside it, or in the folder above `onnx`, or missing
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO
 */
export async function readDecoderConfig(source: string): Promise<DecoderConfig> {
  const isDirectory = (await statOf(source)).isDirectory();
  const directory = isDirectory ? source : await configDirectory(source);
  const [genai, config, generation] = await Promise.all(
    ['genai_config.json', 'config.json', 'generation_config.json'].map((name) =>
      readJson(path.join(directory, name)),
    ),
  );
  const read = genai
    ? readGenai(genai, path.join(directory, 'genai_config.json'))
    : readTransformers(config ?? {}, generation ?? {}, directory);
  const model = isDirectory ? await findModel(directory, read.filename) : source;
  return { model, directory, ...read };
}

type Read = Omit<DecoderConfig, 'model' | 'directory'> & { readonly filename?: string | undefined };

/** The `search` section uses the names of transformers' generation_config.json. */
function readGenai(genai: Json, file: string): Read {
  const model = new Section(asObject(genai.model) ?? {}, `${file}: model`);
  for (const part of ['encoder', 'vision', 'speech', 'embedding']) {
    if (model.values[part] !== undefined) throw unsupported(file, `has a model.${part}`);
  }
  const decoder = new Section(asObject(model.values.decoder) ?? {}, `${file}: model.decoder`);
  if (decoder.values.pipeline !== undefined) throw unsupported(file, 'has a model.decoder.pipeline');
  const search = new Section(asObject(genai.search) ?? {}, `${file}: search`);
  return {
    filename: decoder.string('filename'),
    eosTokens: model.tokens('eos_token_id') ?? [],
    vocabulary: model.count('vocab_size'),
    maxLength: model.count('context_length'),
    sampling: readSampling(search, 0),
  };
}

function readTransformers(config: Json, generation: Json, directory: string): Read {
  const file = path.join(directory, 'config.json');
  if (config.is_encoder_decoder === true) throw unsupported(file, 'describes an encoder with a decoder');
  const whole = new Section(config, file);
  // For a multimodal model, use the configuration of its language model.
  const text = new Section(asObject(config.text_config) ?? config, file);
  const search = new Section(generation, path.join(directory, 'generation_config.json'));
  const counts = ['max_position_embeddings', 'n_positions', 'n_ctx', 'max_seq_len', 'seq_length'];
  return {
    eosTokens:
      search.tokens('eos_token_id') ?? text.tokens('eos_token_id') ?? whole.tokens('eos_token_id') ?? [],
    vocabulary: text.count('vocab_size'),
    maxLength: counts.map((name) => text.count(name)).find((count) => count !== undefined),
    sampling: readSampling(search, transformersTopK),
  };
}

/**
 * Reads sampling values as transformers' GenerationMixin does: a top_p of 1 or more keeps all tokens, and 0 keeps only
 * the likeliest. A top_k of -1 keeps all, as in vLLM, and a temperature of 0 is greedy.
 */
function readSampling(search: Section, sampledTopK: number): SamplingDefaults {
  const samples = search.boolean('do_sample') ?? false;
  const number = (name: string, fallback: number, isUsable: (value: number) => boolean) => {
    const value = search.number(name, isUsable);
    return value ?? fallback;
  };
  const isTopK = (value: number) => Number.isInteger(value) && value >= -1;
  const topK = number('top_k', samples === true ? sampledTopK : greedy.topK, isTopK);
  const topP = number('top_p', greedy.topP, (value) => value >= 0);
  return {
    temperature:
      samples === true ? number('temperature', 1, (value) => value >= 0) : samples || greedy.temperature,
    topK: typeof topK === 'number' ? Math.min(Math.max(topK, 0), int32) : topK,
    topP: typeof topP === 'number' ? Math.min(topP, 1) : topP,
    minP: number('min_p', greedy.minP, (value) => value >= 0 && value <= 1),
    repetitionPenalty: number('repetition_penalty', greedy.repetitionPenalty, (value) => value > 0),
  };
}

const int32 = 2 ** 31 - 1;

/** A configuration's values by name; null counts as absent. */
class Section {
  constructor(
    readonly values: Json,
    readonly label: string,
  ) {}

  number(name: string, isUsable: (value: number) => boolean): number | undefined | UnusableValue {
    const value = this.values[name] ?? undefined;
    if (value === undefined) return undefined;
    return typeof value === 'number' && isUsable(value) && value < Number.POSITIVE_INFINITY
      ? value
      : this.#unusable(name);
  }

  boolean(name: string): boolean | undefined | UnusableValue {
    const value = this.values[name] ?? undefined;
    return value === undefined || typeof value === 'boolean' ? value : this.#unusable(name);
  }

  /** At least 1. A value beyond a 32-bit integer's range means no limit. */
  count(name: string): number | undefined | UnusableValue {
    const value = this.number(name, (count) => Number.isInteger(count) && count > 0);
    return typeof value === 'number' ? Math.min(value, int32) : value;
  }

  /** @throws TensorRTError ERR_MODEL_INVALID if the value isn't a string */
  string(name: string): string | undefined {
    const value = this.values[name] ?? undefined;
    if (value === undefined || typeof value === 'string') return value;
    throw new TensorRTError('ERR_MODEL_INVALID', this.#unusable(name).problem);
  }

  /** One token or a list; an empty list counts as absent. */
  tokens(name: string): readonly number[] | undefined | UnusableValue {
    const value = this.values[name] ?? undefined;
    if (value === undefined) return undefined;
    const all: unknown[] = Array.isArray(value) ? value.flat(Number.POSITIVE_INFINITY) : [value];
    if (all.length === 0) return undefined;
    return all.every((token) => Number.isInteger(token)) ? (all as number[]) : this.#unusable(name);
  }

  #unusable(name: string): UnusableValue {
    const named = (_: string, value: unknown) =>
      value === Infinity || value === -Infinity ? String(value) : value;
    const text = JSON.stringify(this.values[name], named)?.slice(0, 40);
    return new UnusableValue(`${this.label}: ${name} can't be ${text}.`);
  }
}

function unsupported(file: string, problem: string): TensorRTError {
  return new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `${file} ${problem}: only decoders of text, in one graph, are supported.`,
  );
}

/** The folder of an ONNX file, or its parent if the file lies in a hub's `onnx` folder. */
async function configDirectory(model: string): Promise<string> {
  const own = path.dirname(absolutePath(model));
  if (path.basename(own) !== 'onnx') return own;
  const names = await readdir(own);
  return names.some((name) => /^(genai_)?config\.json$/.test(name)) ? own : path.dirname(own);
}

/** The graph in a folder: the one that the configuration names, `model.onnx`, or the only ONNX file. */
async function findModel(directory: string, named: string | undefined): Promise<string> {
  if (named !== undefined) return path.join(directory, named);
  const graphs: string[] = [];
  for (const folder of [directory, path.join(directory, 'onnx')]) {
    const names = await readdir(folder).catch(() => [] as string[]);
    if (names.includes('model.onnx')) return path.join(folder, 'model.onnx');
    graphs.push(...names.filter((name) => name.endsWith('.onnx')).map((name) => path.join(folder, name)));
  }
  if (graphs.length === 1) return graphs[0]!;
  throw new TensorRTError(
    'ERR_MODEL_NOT_FOUND',
    graphs.length === 0
      ? `There is no ONNX model in ${directory}. optimum-cli export onnx --task text-generation-with-past writes one.`
      : `${directory} has several ONNX models, and none is model.onnx: give the path of one of ${graphs
          .map((graph) => path.relative(directory, graph))
          .join(', ')}.`,
  );
}

async function statOf(source: string) {
  try {
    return await stat(source);
  } catch (cause) {
    throw new TensorRTError('ERR_MODEL_NOT_FOUND', `There is no file or folder ${source}.`, { cause });
  }
}
