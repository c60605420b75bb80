import { randomBytes } from '../base/crypto.js';
import { describe, invalidArgType, invalidArgValue } from '../base/errors.js';
import {
  abortSignal,
  boolean,
  integer,
  type OptionReader,
  type OptionsOf,
  type OptionTable,
  readOptions,
  real,
  strings,
  text,
} from '../base/options.js';
import type { NativeGenerateOptions } from '../system/native/language-model.js';
import { checkTokens } from '../text/prompt.js';
import { specialToken, type Tokenizer } from '../text/tokenizer.js';
import type { SamplingDefaults } from './decoder-config.js';
import { type UnusableValue, usable } from './unusable-value.js';

/**
 * How to answer. What chooses tokens, temperature to repetitionPenalty, defaults to what the model's
 * generation_config.json (or genai_config.json's `search`) says; without one, greedy. Logits are changed in this order:
 * penalties and bias, temperature, topK, topP, minP.
 */
export interface GenerateOptions {
  /** The most tokens to add. Default 256. */
  maxTokens?: number;
  /** Tokens to add before one may end the answer; a stop text may at once. Default 0. */
  minTokens?: number;
  /** 0 is greedy: the likeliest token, whatever topK, topP, minP and seed say. */
  temperature?: number;
  /** Of the likeliest so many. 0: of all. */
  topK?: number;
  /** Of the likeliest that together have this probability, in (0, 1]. */
  topP?: number;
  /** Of those at least so likely as this part of the likeliest, in [0, 1]. */
  minP?: number;
  /** Divides the positive logits of tokens in prompt and answer, and multiplies the others (Hugging Face's). 1: off. */
  repetitionPenalty?: number;
  /** Taken from the logit of each token in the answer (OpenAI's). Default 0. */
  presencePenalty?: number;
  /** The same, times how often it is there. Default 0. */
  frequencyPenalty?: number;
  /** The same seed gives the same answer, whatever else runs. A safe integer of at least 0. Default: a random one. */
  seed?: number;
  /** Texts that end the answer; it ends before them. One that is a special token, which answers don't show, is that token too. */
  stop?: readonly string[];
  /** Tokens that end the answer, beside the model's own, and are not in it. */
  stopTokens?: readonly number[];
  /** Added to the logits of tokens; -Infinity forbids one. */
  logitBias?: Readonly<Record<number, number>>;
  /**
   * Reports with each token its log-probability, and the so many likeliest; 0: its own only. They are the natural
   * logarithms of the model's probabilities after penalties and bias, before temperature.
   */
  logprobs?: number;
  /** The model's end-of-sequence tokens don't end the answer. Default false. */
  ignoreEos?: boolean;
  /** What the cache holds of a prompt serves only requests with the same salt: one for each tenant, say. Default ''. */
  cacheSalt?: string;
  /** Where rows are scarce, higher goes first, equals in the order in which they came. Default 0. */
  priority?: number;
  /** Aborting rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** Of a sequence: its row is its own, whatever others have in the cache. */
export type SequenceGenerateOptions = Omit<GenerateOptions, 'cacheSalt'>;

const oneAnswer =
  'is not supported: call generate() once for each answer, with seeds of their own; the prompt is computed once.';
const noToolCalls = 'is not supported: tool calls are not.';
const noStructure = 'is not supported: structured output is not.';

/** What a user of other libraries may look for, there `like_this` too, and what to do. */
const refused: Readonly<Record<string, string>> = Object.assign(Object.create(null), {
  n: oneAnswer,
  numReturnSequences: oneAnswer,
  numBeams: 'is not supported: there is no beam search.',
  tools: noToolCalls,
  toolChoice: noToolCalls,
  responseFormat: noStructure,
  grammar: noStructure,
  jsonSchema: noStructure,
  maxNewTokens: 'is not an option: it is maxTokens.',
  doSample: 'is not an option: temperature 0 is greedy, any other samples.',
});

/** What options are checked against. */
export interface GenerateContext {
  readonly vocabulary: number;
  /** Tokens that end an answer. One outside the vocabulary, which the model can't choose, is ignored. */
  readonly eosTokens: readonly number[] | UnusableValue;
  readonly sampling: SamplingDefaults;
  /** Without one, answers have no text. */
  readonly tokenizer: Tokenizer | undefined;
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

const noFilters = { topK: 0, topP: 1, minP: 0 };
const leastTemperature = 2 ** -126;
const int32 = 2 ** 31 - 1;
const largestFloat32 = 3.4028234663852886e38;

/** The readers of {@link GenerateOptions} for a model with so many tokens. What is left out and has no default is undefined. */
function generateOptions(vocabulary: number) {
  return {
    maxTokens: integer(256, 1, int32),
    minTokens: integer(0, 0, int32),
    temperature: real(undefined, 0, 100),
    topK: integer(undefined, 0, int32),
    topP: aboveZero(real(undefined, 0, 1)),
    minP: real(undefined, 0, 1),
    repetitionPenalty: aboveZero(real(undefined, 0, 100)),
    presencePenalty: real(0, -100, 100),
    frequencyPenalty: real(0, -100, 100),
    seed: integer(undefined, 0, Number.MAX_SAFE_INTEGER),
    stop: stopTexts,
    stopTokens: (tokens: unknown = [], path: string) => {
      checkTokens(tokens, path, vocabulary);
      return tokens;
    },
    logitBias: (bias: unknown, path: string) => readBias(bias, path, vocabulary),
    logprobs: integer(undefined, 0, vocabulary),
    ignoreEos: boolean(false),
    cacheSalt: text(''),
    priority: integer(0, -int32, int32),
    signal: abortSignal,
  } satisfies OptionTable<GenerateOptions>;
}

type GenerateSettings = OptionsOf<ReturnType<typeof generateOptions>>;

/**
 * Native's options, with all that the caller left out.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function readGenerateOptions(
  options: GenerateOptions,
  context: GenerateContext,
): Omit<NativeGenerateOptions, 'stream'> {
  refuseForeign(options);
  return nativeOptions(readOptions(options, 'options', generateOptions(context.vocabulary)), context);
}

/** As {@link readGenerateOptions}, for a sequence. @throws as there */
export function readSequenceOptions(
  options: SequenceGenerateOptions,
  context: GenerateContext,
): Omit<NativeGenerateOptions, 'stream'> {
  refuseForeign(options);
  const { cacheSalt: _, ...ofSequence } = generateOptions(context.vocabulary);
  return nativeOptions({ ...readOptions(options, 'options', ofSequence), cacheSalt: '' }, context);
}

/** Says of what other libraries call an option what to use here. */
function refuseForeign(options: unknown): void {
  if (typeof options !== 'object' || options === null) return;
  for (const [name, value] of Object.entries(options)) {
    const reason = value === undefined ? undefined : refused[camelCase(name)];
    if (reason !== undefined) throw invalidArgValue(`options.${name}`, reason);
  }
}

function nativeOptions(
  settings: GenerateSettings,
  { vocabulary, eosTokens, sampling, tokenizer }: GenerateContext,
): Omit<NativeGenerateOptions, 'stream'> {
  const { maxTokens, seed, stop, stopTokens, ignoreEos, logitBias, logprobs } = settings;
  const chosen = (name: keyof SamplingDefaults, defaults: SamplingDefaults) =>
    settings[name] ?? usable(defaults[name], `options.${name}`);
  const minTokens = integer(0, 0, maxTokens)(settings.minTokens, 'options.minTokens');
  const temperature = chosen('temperature', sampling);
  // Nothing is drawn where the likeliest token is taken: then the model's filters are not used.
  const filters = temperature === 0 ? { ...sampling, ...noFilters } : sampling;
  if (stop.length > 0 && !tokenizer) {
    const problem = 'needs text, and the model was loaded without a tokenizer: use options.stopTokens.';
    throw invalidArgValue('options.stop', problem);
  }
  const inVocabulary = (token: number | undefined) => token !== undefined && token >= 0 && token < vocabulary;
  // Answers don't show special tokens: one that a stop text names ends the answer as a token.
  const special = stop
    .map((each) => specialToken(each.toString('utf8'), tokenizer!))
    .filter((token): token is number => inVocabulary(token));
  const eos = () => usable(eosTokens, 'options.ignoreEos with options.stopTokens').filter(inVocabulary);
  const [biasTokens, biases] = logitBias;
  return {
    maxTokens,
    minTokens,
    // Native multiplies by the reciprocal, which isn't a float32 for a smaller temperature.
    temperature: temperature < leastTemperature ? 0 : temperature,
    topK: chosen('topK', filters),
    topP: chosen('topP', filters),
    minP: chosen('minP', filters),
    repetitionPenalty: chosen('repetitionPenalty', sampling),
    presencePenalty: settings.presencePenalty,
    frequencyPenalty: settings.frequencyPenalty,
    seed: seed === undefined ? randomBytes(8).readBigUInt64LE() : BigInt(seed),
    stop,
    stopTokens: Int32Array.from(new Set([...(ignoreEos ? [] : eos()), ...stopTokens, ...special])),
    biasTokens,
    biases,
    logprobs: logprobs ?? -1,
    cacheSalt: settings.cacheSalt,
    priority: settings.priority,
  };
}

/** Reads a number that may not be 0, though its range begins there. */
function aboveZero(read: OptionReader<number | undefined>): OptionReader<number | undefined> {
  return (value, path) => {
    if (value === 0) throw invalidArgValue(path, 'must be more than 0.');
    return read(value, path);
  };
}

function stopTexts(stop: unknown, path: string): Buffer[] {
  const texts = strings(stop, path);
  const empty = texts.indexOf('');
  if (empty >= 0) throw invalidArgValue(`${path}[${empty}]`, 'is empty.');
  return texts.map((each) => Buffer.from(each, 'utf8'));
}

function readBias(bias: unknown, path: string, vocabulary: number): [Int32Array, Float32Array] {
  if (bias === undefined) return [new Int32Array(), new Float32Array()];
  // Of a Map, which has no keys of an object, nothing would be read.
  if (typeof bias !== 'object' || bias === null || Symbol.iterator in bias) {
    throw invalidArgType(path, 'an object of numbers by token', bias);
  }
  const entries = Object.entries(bias).filter(([, value]) => value !== undefined);
  for (const [key, value] of entries) {
    if (!/^(0|[1-9]\d{0,9})$/.test(key) || Number(key) >= vocabulary) {
      throw invalidArgValue(
        `${path}['${key}']`,
        `is no token of the model's vocabulary, 0 to ${vocabulary - 1}.`,
      );
    }
    if (typeof value !== 'number') throw invalidArgType(`${path}['${key}']`, 'a number', value);
    if (!(value <= largestFloat32) || (value < -largestFloat32 && value !== Number.NEGATIVE_INFINITY)) {
      throw invalidArgValue(`${path}['${key}']`, `must be finite, or -Infinity, not ${describe(value)}.`);
    }
  }
  return [
    Int32Array.from(entries, ([key]) => Number(key)),
    Float32Array.from(entries, ([, value]) => value as number),
  ];
}
