// A dialogue of five turns. The fifth asks for what the patient says in the first. The KV cache keeps the earlier
// turns, so that each turn computes only its own tokens. `node examples/medical-dialogue/main.mjs` in a built clone.
import path from 'node:path';
import { LanguageModel } from 'node-tensorrt';

// Other runtimes write this as `enable_cache(max_batch_size=16, kv_cache=True)`.
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
let held = 0; // tokens in the cache after the previous turn
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
