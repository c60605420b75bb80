import path from 'node:path';
import { TensorRTError } from './errors.js';
import { readdir, readFile, stat } from './files/promises.js';

/** How to choose tokens where the caller does not say. */
export interface SamplingDefaults {
  /** 0: greedy. */
  readonly temperature: number;
  /** 0: all. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
}

/** A decoder's files, and what its configuration says of it; undefined where it says nothing. */
export interface DecoderConfig {
  /** The ONNX file. */
  readonly model: string;
  /** Where the tokenizer's files would be. */
  readonly directory: string;
  /** Tokens that end an answer. */
  readonly eosTokens: readonly number[];
  readonly vocabulary: number | undefined;
  /** Tokens that the model has positions for. */
  readonly maxLength: number | undefined;
  readonly sampling: SamplingDefaults;
}

const greedy: SamplingDefaults = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 };

/** GenerationConfig's own, in transformers, where a file asks for sampling and does not say. */
const transformersTopK = 50;

type Json = Readonly<Record<string, unknown>>;

/**
 * Reads what lies beside a decoder: optimum's config.json and generation_config.json, or onnxruntime-genai's
 * genai_config.json.
 * @param source a folder as one of them exports it, or as a model hub has it (the graph in `onnx/`); or an ONNX file, with
 *   its configuration beside it, above its folder `onnx`, or nowhere
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

/** The `search` section has the names of transformers' generation_config.json. */
function readGenai(genai: Json, file: string): Read {
  const model = new Section(section(genai.model) ?? {}, `${file}: model`);
  for (const part of ['encoder', 'vision', 'speech', 'embedding']) {
    if (model.values[part] !== undefined) throw unsupported(file, `has a model.${part}`);
  }
  const decoder = new Section(section(model.values.decoder) ?? {}, `${file}: model.decoder`);
  if (decoder.values.pipeline !== undefined) throw unsupported(file, 'has a model.decoder.pipeline');
  const search = new Section(section(genai.search) ?? {}, `${file}: search`);
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
  if (config.is_encoder_decoder === true) throw unsupported(file, 'is of an encoder with a decoder');
  const whole = new Section(config, file);
  // Of a multimodal model, its language model's.
  const text = new Section(section(config.text_config) ?? config, file);
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

function readSampling(search: Section, sampledTopK: number): SamplingDefaults {
  const samples = search.values.do_sample === true;
  return {
    temperature: samples ? (search.number('temperature', 0) ?? 1) : 0,
    topK: search.integer('top_k') ?? (samples ? sampledTopK : greedy.topK),
    topP: search.number('top_p', Number.MIN_VALUE, 1) ?? greedy.topP,
    minP: search.number('min_p', 0, 1) ?? greedy.minP,
    repetitionPenalty: search.number('repetition_penalty', Number.MIN_VALUE) ?? greedy.repetitionPenalty,
  };
}

/** Values of a configuration by their names there; null counts as absent. */
class Section {
  constructor(
    readonly values: Json,
    readonly label: string,
  ) {}

  number(name: string, min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY): number | undefined {
    const value = this.values[name] ?? undefined;
    if (value === undefined) return undefined;
    if (typeof value === 'number' && value >= min && value <= max) return value;
    throw this.#invalid(name);
  }

  integer(name: string): number | undefined {
    const value = this.number(name, 0, 2 ** 31 - 1);
    if (value === undefined || Number.isInteger(value)) return value;
    throw this.#invalid(name);
  }

  /** At least 1. */
  count(name: string): number | undefined {
    const value = this.integer(name);
    if (value === 0) throw this.#invalid(name);
    return value;
  }

  string(name: string): string | undefined {
    const value = this.values[name] ?? undefined;
    if (value === undefined || typeof value === 'string') return value;
    throw this.#invalid(name);
  }

  /** One token or a list. */
  tokens(name: string): number[] | undefined {
    const value = this.values[name] ?? undefined;
    if (value === undefined) return undefined;
    const all: unknown[] = Array.isArray(value) ? value : [value];
    if (all.every((token) => Number.isInteger(token) && (token as number) >= 0)) return all as number[];
    throw this.#invalid(name);
  }

  #invalid(name: string): TensorRTError {
    const text = JSON.stringify(this.values[name])?.slice(0, 40);
    return new TensorRTError('ERR_MODEL_INVALID', `${this.label}: ${name} can't be ${text}.`);
  }
}

function section(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}

function unsupported(file: string, problem: string): TensorRTError {
  return new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `${file} ${problem}: only decoders of text, in one graph, are supported.`,
  );
}

/** The folder of an ONNX file, or the one above where a hub has its `onnx` folder. */
async function configDirectory(model: string): Promise<string> {
  const own = path.dirname(path.resolve(model));
  if (path.basename(own) !== 'onnx') return own;
  const names = await readdir(own);
  return names.some((name) => /^(genai_)?config\.json$/.test(name)) ? own : path.dirname(own);
}

/** The graph of a folder: the one that its configuration names, `model.onnx`, or the only one. */
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

/** @internal undefined where there is no such file. @throws (rejects) TensorRTError ERR_IO */
export async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new TensorRTError('ERR_IO', `Can't read ${file}: ${(cause as Error).message}.`, { cause });
  }
}

/** @internal As {@link readText}. @throws (rejects) TensorRTError ERR_MODEL_INVALID where it holds no object, ERR_IO */
export async function readJson(file: string): Promise<Json | undefined> {
  const text = await readText(file);
  if (text === undefined) return undefined;
  try {
    const values = section(JSON.parse(text));
    if (values) return values;
  } catch (cause) {
    throw new TensorRTError('ERR_MODEL_INVALID', `${file} is no JSON: ${(cause as Error).message}.`, {
      cause,
    });
  }
  throw new TensorRTError('ERR_MODEL_INVALID', `${file} is no JSON object.`);
}
