// A dialogue of five turns. What the patient says in the first is asked for in the fifth; between them the KV cache keeps
// what was read, so that each turn computes its own tokens only. `node examples/medical-dialogue/main.mjs` in a built clone.
import path from 'node:path';
import { LanguageModel } from 'node-tensorrt';

// What other runtimes write as `enable_cache(max_batch_size=16, kv_cache=True)`.
const model = await LanguageModel.load(path.join(import.meta.dirname, '../demo-model'), {
  kvCache: { maxBatchSize: 16 },
});

const turns = [
  [
    'My name is Vera Keller. I am allergic to penicillin. I take metformin, 850 mg, twice a day.',
    'Thank you, Vera Keller. I have noted it.',
  ],
  ['What am I allergic to?', 'You are allergic to penicillin.'],
  ['I also take ramipril, 250 mg, in the morning.', 'I have noted ramipril, 250 mg.'],
  ['Am I allergic to latex?', 'You are allergic to penicillin, so no.'],
  ['What is my name?', 'Your name is Vera Keller.'],
];

const messages = [];
let wrong = 0;
let held = 0; // tokens that the cache held after the turn before
for (const [question, right] of turns) {
  messages.push({ role: 'user', content: question });
  process.stdout.write(`\npatient    ${question}\nassistant  `);
  const stream = model.stream(messages);
  let next = await stream.next();
  for (; !next.done; next = await stream.next()) process.stdout.write(next.value.text);
  const { text, usage, timing } = next.value;
  messages.push({ role: 'assistant', content: text });
  const computed = usage.promptTokens - usage.cachedTokens;
  console.log(
    `\n           ${text === right ? '✓' : `✗ not “${right}”`} prompt of ${usage.promptTokens} tokens: ${usage.cachedTokens} cached, ` +
      `${computed} computed; first token after ${timing.firstTokenMs.toFixed(1)} ms`,
  );
  if (text !== right || usage.cachedTokens < held) wrong++;
  held = usage.promptTokens;
}

const { mode, bytesUsed, bytesReserved } = model.kvCache;
const kilobytes = (bytes) => `${Math.round(bytes / 1000)} kB`;
console.log(`\nKV cache (${mode}): ${kilobytes(bytesUsed)} used of ${kilobytes(bytesReserved)} reserved`);
await model.dispose();
if (wrong > 0) process.exit(1);
