// A trained decoder writes sums and sorted lists as text: 200 requests at once over 16 rows of the KV cache, with every
// answer checked. `node examples/arithmetic/main.mjs [SEED]` in a built clone.
import path from 'node:path';
import { LanguageModel } from 'node-tensorrt';

const model = await LanguageModel.load(path.join(import.meta.dirname, '../demo-model'), {
  kvCache: { maxBatchSize: 16 },
});

let state = Number(process.argv[2] ?? 1);
/** An integer from 0 to `bound` - 1, from Lehmer's generator. A seed of at least 1 makes the questions repeatable. */
function random(bound) {
  state = (state * 48_271) % 2_147_483_647;
  return state % bound;
}
const questions = Array.from({ length: 200 }, (_, i) => {
  if (i % 4 === 3) {
    const digits = Array.from({ length: 3 + random(6) }, () => random(10));
    return { prompt: `sort ${digits.join(' ')} =`, right: ` ${digits.toSorted().join(' ')}` };
  }
  const [a, b] = [random(1000), random(1000)];
  // The working comes first: the digits from last to first, as in addition on paper.
  return { prompt: `${a}+${b}=`, right: `[${[...`${a + b}`].reverse().join('')}] ${a + b}` };
});

const started = performance.now();
const answers = await Promise.all(questions.map(({ prompt }) => model.generate(prompt)));
const seconds = (performance.now() - started) / 1000;

const checked = questions.map(({ prompt, right }, i) => ({ prompt, right, ...answers[i] }));
const wrong = checked.filter(({ text, right }) => text !== right);
const tokens = checked.reduce((sum, { usage }) => sum + usage.completionTokens, 0);
for (const { prompt, text } of checked.slice(0, 8)) console.log(`  ${prompt}${text}`);
console.log(
  `${checked.length - wrong.length} of ${checked.length} answers are right; ${tokens} tokens in ` +
    `${seconds.toFixed(2)} s (${Math.round(tokens / seconds)} tokens/s), on ${model.device}`,
);
for (const { prompt, text, right } of wrong) console.log(`  ✗ ${prompt}${text}, not ${right}`);
await model.dispose();
if (wrong.length > 5) process.exit(1); // the model's README gives its error rate
