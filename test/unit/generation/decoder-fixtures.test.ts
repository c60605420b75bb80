import { InferenceSession } from 'node-tensorrt';
import { expect, test } from 'vitest';
import { decode, decoderAnswers, decoderModel } from '../../decoder-fixture.js';

function best(logits: Float32Array, suppressed: readonly number[]): number {
  let token = -1;
  for (const [candidate, logit] of logits.entries()) {
    if (!suppressed.includes(candidate) && (token < 0 || logit > logits[token]!)) token = candidate;
  }
  return token;
}

const largestDifference = (a: Float32Array, b: readonly number[]) =>
  a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0);

test.each(['llama/optimum', 'llama/static-cache', 'llama-int4/genai', 'gpt2/optimum'])(
  '%s gives the tokens and logits of PyTorch',
  async (fixture) => {
    const { suppressed, cases } = decoderAnswers(fixture);
    await using session = await InferenceSession.create(decoderModel(fixture), { threads: 1 });
    for (const answer of cases) {
      const tokens: number[] = [];
      let step = 0;
      for await (const logits of decode(session, fixture, answer)) {
        const close = answer.gaps[step]! <= 1e-4; // either token is right
        tokens.push(close ? answer.greedy[step]! : best(logits, suppressed));
        if (step === 0) expect(largestDifference(logits, answer.firstLogits)).toBeLessThan(1e-4);
        if (step === answer.greedy.length - 1) {
          expect(largestDifference(logits, answer.lastLogits)).toBeLessThan(1e-4);
        }
        step++;
      }
      expect(tokens).toEqual(answer.greedy);
    }
  },
);
