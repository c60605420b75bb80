import { expect, test } from 'vitest';
import { DecodeLoop } from '../../../dist/generation/decode-loop.js';
import type { NativeGenerationEvent } from '../../../dist/system/native/language-model.js';
import { native } from '../../../dist/system/native.js';

test('a long answer arrives as one event', async () => {
  const binding = native();
  const { NativeLanguageModel } = binding;
  const tokens = Int32Array.from({ length: 300_000 }, (_, token) => token);
  // The parts of native's class that a request uses.
  class Answering {
    constructor(
      _config: unknown,
      readonly onEvents: (events: NativeGenerationEvent[]) => void,
    ) {}
    generate(id: number): void {
      const usage = { promptTokens: 1, cachedTokens: 0, completionTokens: tokens.length };
      const timing = { queueMs: 0, firstTokenMs: 0, totalMs: 0 };
      setImmediate(() => this.onEvents([{ id, tokens, finished: 'length', text: '', usage, timing }]));
    }
  }
  binding.NativeLanguageModel = Answering as never;
  try {
    const loop = new DecodeLoop({} as never);
    const answer = await loop.generate({
      sequence: undefined,
      tokens: Int32Array.of(1),
      options: {} as never,
      signal: undefined,
    });
    expect(answer.tokens).toHaveLength(300_000);
    expect(answer.tokens.at(-1)).toBe(299_999);
  } finally {
    binding.NativeLanguageModel = NativeLanguageModel;
  }
});
