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
 * How to generate an answer. The options that choose tokens, from `temperature` to `repetitionPenalty`, default to the
 * model's generation_config.json (or `search` in genai_config.json); without one, generation is greedy. Logits are
 * changed in this order: penalties and bias, temperature, topK, topP, minP.
 *
 * @example
 * ```js
 * import { LanguageModel } from 'node-tensorrt';
 *
 * const model = await LanguageModel.load('llama');
 * const { text, usage } = await model.generate('Once upon a time', { maxTokens: 20, temperature: 0.8, seed: 7 });
 * console.log(text, usage);
 * await model.dispose();
 * ```
 */
export interface GenerateOptions {
  /** The most tokens to generate. Defaults to 256. */
  maxTokens?: number;
  /** Tokens to generate before an end-of-sequence or stop token may end the answer. Defaults to 0. */
  minTokens?: number;
  /** How much to flatten the distribution. 0 is greedy: it takes the likeliest token and ignores topK, topP, minP and seed. */
  temperature?: number;
  /** Chooses among this many of the likeliest tokens. 0 chooses among all. */
  topK?: number;
  /** Chooses among the likeliest tokens that have this probability together, in (0, 1]. */
  topP?: number;
  /** Chooses among the tokens that are at least this fraction as likely as the likeliest one, in [0, 1]. */
  minP?: number;
  /**
   * Makes tokens of prompt and answer less likely: their positive logits are divided by it, the others multiplied
   * (Hugging Face's rule). 1 turns it off.
   */
  repetitionPenalty?: number;
  /** Subtracted from the logit of each token that is in the answer (OpenAI's rule). Defaults to 0. */
  presencePenalty?: number;
  /** Subtracted from a token's logit for each time that it is in the answer (OpenAI's rule). Defaults to 0. */
  frequencyPenalty?: number;
  /**
   * The same seed gives the same answer, whatever else runs at the same time. An integer from 0 to 2^53 − 1. Defaults to
   * a random one.
   */
  seed?: number;
  /**
   * Texts that end the answer, which ends before them. A text that is a special token, which answers don't show, ends it
   * as that token too. Defaults to none.
   */
  stop?: readonly string[];
  /** Tokens that end the answer, beside the model's own. They aren't part of the answer. Defaults to none. */
  stopTokens?: readonly number[];
  /** Numbers to add to the logits of tokens, by token; -Infinity forbids one. Defaults to none. */
  logitBias?: Readonly<Record<number, number>>;
  /**
   * Reports the log-probability of each token, and of this many of the likeliest ones; 0 reports the token's own only.
   * They are natural logarithms of the model's probabilities after penalties and bias and before temperature. Defaults
   * to no report.
   */
  logprobs?: number;
  /** Goes on after the model's end-of-sequence tokens. Defaults to false. */
  ignoreEos?: boolean;
  /**
   * Separates tenants in the cache: cached tokens of a prompt serve only requests with the same salt. Defaults to ''.
   */
  cacheSalt?: string;
  /** When rows are scarce, requests with a higher priority go first, then those that came first. Defaults to 0. */
  priority?: number;
  /** Aborting rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** How to generate the answer of a sequence. It has no `cacheSalt`, because its row is its own. */
export type SequenceGenerateOptions = Omit<GenerateOptions, 'cacheSalt'>;

const oneAnswer =
  'is not supported: call generate() once for each answer, with seeds of their own; the prompt is computed once.';
const noToolCalls = 'is not supported: tool calls are not.';
const noStructure = 'is not supported: structured output is not.';

/** Options of other libraries (also spelled `like_this`) that are refused by name, each with the reason. */
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

/** The facts about a model that options are checked against. */
export interface GenerateContext {
  readonly vocabulary: number;
  /** Tokens that end an answer. One outside the vocabulary is ignored: the model can't choose it. */
  readonly eosTokens: readonly number[] | UnusableValue;
  readonly sampling: SamplingDefaults;
  /** undefined for a model without a tokenizer, whose answers have no text. */
  readonly tokenizer: Tokenizer | undefined;
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

const noFilters = { topK: 0, topP: 1, minP: 0 };
const leastTemperature = 2 ** -126;
const int32 = 2 ** 31 - 1;
const largestFloat32 = 3.4028234663852886e38;

/**
 * Readers of {@link GenerateOptions} for a model with `vocabulary` tokens. An option without a default that is left out
 * is undefined.
 */
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
 * Checks options and fills in defaults, for the addon.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function readGenerateOptions(
  options: GenerateOptions,
  context: GenerateContext,
): Omit<NativeGenerateOptions, 'stream'> {
  refuseForeign(options);
  return nativeOptions(readOptions(options, 'options', generateOptions(context.vocabulary)), context);
}

/** Does what {@link readGenerateOptions} does, for a sequence. @throws as there */
export function readSequenceOptions(
  options: SequenceGenerateOptions,
  context: GenerateContext,
): Omit<NativeGenerateOptions, 'stream'> {
  refuseForeign(options);
  const { cacheSalt: _, ...ofSequence } = generateOptions(context.vocabulary);
  return nativeOptions({ ...readOptions(options, 'options', ofSequence), cacheSalt: '' }, context);
}

/** Refuses options of other libraries by name. @throws RangeError ERR_INVALID_ARG_VALUE */
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
  // Greedy generation draws nothing, so it doesn't use the model's filters.
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
    // The addon multiplies by the reciprocal, which isn't a float32 for a smaller temperature.
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
  // A Map has no keys of an object: nothing in it would be read.
  if (typeof bias !== 'object' || bias === null || Symbol.iterator in bias) {
    throw invalidArgType(path, 'an object of numbers by token', bias);
  }
  const entries = Object.entries(bias).filter(([, value]) => value !== undefined);
  for (const [key, value] of entries) {
    if (!/^(0|[1-9]\d{0,9})$/.test(key) || Number(key) >= vocabulary) {
      throw invalidArgValue(
        `${path}['${key}']`,
        `isn't a token of the model's vocabulary, 0 to ${vocabulary - 1}.`,
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
