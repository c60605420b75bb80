import type { GenerateOptions } from 'node-tensorrt';
import { describe, expect, test } from 'vitest';
import { readGenerateOptions } from '../../../dist/generation/generate-options.js';
import { UnusableValue } from '../../../dist/generation/unusable-value.js';

const sampling = { temperature: 0.6, topK: 50, topP: 0.9, minP: 0.1, repetitionPenalty: 1.1 };
const tokenizer = { encode: () => [], decode: () => '' };
const context = { vocabulary: 320, eosTokens: [2, 4], sampling, tokenizer };
const read = (options: unknown) => readGenerateOptions(options as GenerateOptions, context);

test('options left out take the model’s value, or are off', () => {
  const { seed, ...rest } = read({});
  expect(rest).toEqual({
    maxTokens: 256,
    minTokens: 0,
    ...sampling,
    presencePenalty: 0,
    frequencyPenalty: 0,
    stop: [],
    stopTokens: Int32Array.of(2, 4),
    biasTokens: new Int32Array(),
    biases: new Float32Array(),
    logprobs: -1,
    cacheSalt: '',
    priority: 0,
  });
  expect(read({}).seed).not.toBe(seed);
});

test('given options are passed to native', () => {
  const options: GenerateOptions = {
    maxTokens: 9,
    minTokens: 3,
    temperature: 0,
    topK: 0,
    topP: 1,
    minP: 0,
    repetitionPenalty: 1,
    presencePenalty: -1,
    frequencyPenalty: 0.5,
    seed: Number.MAX_SAFE_INTEGER,
    stop: ['é', '\n\n'],
    stopTokens: [4, 5],
    logitBias: { 7: -1.5, 319: Number.NEGATIVE_INFINITY },
    logprobs: 0,
    cacheSalt: 'tenant',
    priority: -3,
  };
  const { seed, stop, stopTokens, biasTokens, biases, ...rest } = read(options);
  expect(seed).toBe(9007199254740991n);
  expect(stop.map((text) => Buffer.from(text).toString('utf8'))).toEqual(options.stop);
  expect(stopTokens).toEqual(Int32Array.of(2, 4, 5));
  expect(biasTokens).toEqual(Int32Array.of(7, 319));
  expect(biases).toEqual(Float32Array.of(-1.5, Number.NEGATIVE_INFINITY));
  expect(options).toMatchObject(rest);
  expect(read({ ignoreEos: true, stopTokens: [5] }).stopTokens).toEqual(Int32Array.of(5));
});

describe("an unusable value in the model's configuration", () => {
  const unusable = new UnusableValue("generation_config.json: x can't be 2.");
  const cases = [
    ['temperature', 0.5],
    ['topK', 3],
    ['topP', 0.5],
    ['minP', 0.5],
    ['repetitionPenalty', 2],
  ] as const;
  const readOver = (name: string, options: GenerateOptions) =>
    readGenerateOptions(options, { ...context, sampling: { ...sampling, [name]: unusable } });

  test.each(cases)(
    '%s: is an error where it would be used, and the option takes its place',
    (name, value) => {
      const message = `generation_config.json: x can't be 2. Correct it, or give options.${name}.`;
      expect(() => readOver(name, {})).toThrow(
        expect.objectContaining({ name: 'TensorRTError', code: 'ERR_MODEL_INVALID', message }),
      );
      expect(readOver(name, { [name]: value })[name]).toBe(value);
    },
  );

  test.each(['topK', 'topP', 'minP'])('%s does not matter to a greedy answer', (name) => {
    expect(readOver(name, { temperature: 0 })).toMatchObject({ temperature: 0, topK: 0, topP: 1, minP: 0 });
  });

  test('tokens that end an answer matter only if the model may end it', () => {
    const odd = { ...context, eosTokens: unusable };
    expect(() => readGenerateOptions({}, odd)).toThrow(
      /x can't be 2\. Correct it, or give options\.ignoreEos/,
    );
    expect(readGenerateOptions({ ignoreEos: true, stopTokens: [5] }, odd).stopTokens).toEqual(
      Int32Array.of(5),
    );
    const outside = { ...context, eosTokens: [-1, 2, 320] };
    expect(readGenerateOptions({}, outside).stopTokens).toEqual(Int32Array.of(2));
  });
});

test("a temperature whose reciprocal isn't a float32 is greedy", () => {
  expect(read({ temperature: 1e-39 }).temperature).toBe(0);
  expect(read({ temperature: 1e-37 }).temperature).toBe(1e-37);
});

test('a stop string needs a tokenizer', () => {
  expect(() => readGenerateOptions({ stop: ['x'] }, { ...context, tokenizer: undefined })).toThrow(
    /^options\.stop needs text, .*options\.stopTokens/,
  );
});

describe('refused', () => {
  test.each<[object | null, string, RegExp]>([
    [{ maxTokens: 0 }, 'ERR_INVALID_ARG_VALUE', /^options\.maxTokens must be an integer from 1 to/],
    [{ maxTokens: '9' }, 'ERR_INVALID_ARG_TYPE', /^options\.maxTokens must be a number, not "9"/],
    [{ maxTokens: 5, minTokens: 6 }, 'ERR_INVALID_ARG_VALUE', /^options\.minTokens .* from 0 to 5, not 6/],
    [{ temperature: -0.1 }, 'ERR_INVALID_ARG_VALUE', /^options\.temperature must be a number from 0 to/],
    [{ temperature: Number.NaN }, 'ERR_INVALID_ARG_VALUE', /^options\.temperature .* not NaN/],
    [{ topK: 1.5 }, 'ERR_INVALID_ARG_VALUE', /^options\.topK must be an integer/],
    [{ topP: 0 }, 'ERR_INVALID_ARG_VALUE', /^options\.topP must be more than 0/],
    [{ topP: 1.01 }, 'ERR_INVALID_ARG_VALUE', /^options\.topP must be a number from 0 to 1/],
    [{ minP: 2 }, 'ERR_INVALID_ARG_VALUE', /^options\.minP/],
    [{ repetitionPenalty: 0 }, 'ERR_INVALID_ARG_VALUE', /^options\.repetitionPenalty must be more than 0/],
    [{ seed: -1 }, 'ERR_INVALID_ARG_VALUE', /^options\.seed/],
    [{ seed: 2 ** 53 }, 'ERR_INVALID_ARG_VALUE', /^options\.seed/],
    [{ stop: 'end' }, 'ERR_INVALID_ARG_TYPE', /^options\.stop must be an array of strings/],
    [{ stop: ['a', ''] }, 'ERR_INVALID_ARG_VALUE', /^options\.stop\[1\] is empty/],
    [{ stopTokens: [1, 320] }, 'ERR_INVALID_ARG_VALUE', /^options\.stopTokens\[1\] .* 0 to 319, not 320/],
    [{ stopTokens: ['x'] }, 'ERR_INVALID_ARG_TYPE', /^options\.stopTokens\[0\] must be a number/],
    [{ logitBias: [1] }, 'ERR_INVALID_ARG_TYPE', /^options\.logitBias must be an object/],
    [{ logitBias: new Map([[1, 1]]) }, 'ERR_INVALID_ARG_TYPE', /^options\.logitBias .*, not a Map/],
    [{ logitBias: { '01': 1 } }, 'ERR_INVALID_ARG_VALUE', /^options\.logitBias\['01'\] isn't a token/],
    [{ logitBias: { x: 1 } }, 'ERR_INVALID_ARG_VALUE', /^options\.logitBias\['x'\] isn't a token/],
    [{ logitBias: { 320: 1 } }, 'ERR_INVALID_ARG_VALUE', /^options\.logitBias\['320'\] isn't a token/],
    [{ logitBias: { 1: Number.NaN } }, 'ERR_INVALID_ARG_VALUE', /^options\.logitBias\['1'\] must be finite/],
    [{ logprobs: 321 }, 'ERR_INVALID_ARG_VALUE', /^options\.logprobs must be an integer from 0 to 320/],
    [{ logprobs: true }, 'ERR_INVALID_ARG_TYPE', /^options\.logprobs must be a number/],
    [{ ignoreEos: 1 }, 'ERR_INVALID_ARG_TYPE', /^options\.ignoreEos must be a boolean/],
    [{ cacheSalt: 1 }, 'ERR_INVALID_ARG_TYPE', /^options\.cacheSalt must be a string/],
    [{ priority: 0.5 }, 'ERR_INVALID_ARG_VALUE', /^options\.priority must be an integer/],
    [{ signal: {} }, 'ERR_INVALID_ARG_TYPE', /^options\.signal must be an AbortSignal/],
    [
      { max_tokens: 5 },
      'ERR_INVALID_ARG_VALUE',
      /^options\.max_tokens is not an option; did you mean 'maxTokens'/,
    ],
    [{ n: 2 }, 'ERR_INVALID_ARG_VALUE', /^options\.n is not supported: call generate\(\) once for each/],
    [{ numBeams: 4 }, 'ERR_INVALID_ARG_VALUE', /^options\.numBeams is not supported/],
    [
      { num_beams: 4 },
      'ERR_INVALID_ARG_VALUE',
      /^options\.num_beams is not supported: there is no beam search/,
    ],
    [{ num_return_sequences: 2 }, 'ERR_INVALID_ARG_VALUE', /^options\.num_return_sequences is not supported/],
    [{ max_new_tokens: 5 }, 'ERR_INVALID_ARG_VALUE', /^options\.max_new_tokens .*: it is maxTokens/],
    [{ do_sample: true }, 'ERR_INVALID_ARG_VALUE', /^options\.do_sample .*temperature 0 is greedy/],
    [{ toString: 1 }, 'ERR_INVALID_ARG_VALUE', /^options\.toString is not an option/],
    [{ maxTokens: {} }, 'ERR_INVALID_ARG_TYPE', /^options\.maxTokens must be a number, not an object/],
    [{ tools: [] }, 'ERR_INVALID_ARG_VALUE', /^options\.tools is not supported/],
    [{ responseFormat: {} }, 'ERR_INVALID_ARG_VALUE', /^options\.responseFormat is not supported/],
    [null, 'ERR_INVALID_ARG_TYPE', /^options must be an object, not null/],
  ])('%j', (options, code, message) => {
    expect(() => read(options)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });
});
