// Completes code over a long context: reads a file of 200 functions once, then completes calls of functions far above,
// and checks every completion. Each request computes only its own tokens, since the file's are in the KV cache.
// `node examples/code-completion/main.mjs [SEED]` in a built clone.
import path from 'node:path';
import { LanguageModel } from 'node-tensorrt';

const model = await LanguageModel.load(path.join(import.meta.dirname, '../demo-model'));

let state = Number(process.argv[2] ?? 1);
/** An integer from 0 to `bound` - 1, from Lehmer's generator. A seed of at least 1 makes the file repeatable. */
function random(bound) {
  state = (state * 48_271) % 2_147_483_647;
  return state % bound;
}
/** Removes one of `values` at random and returns it. */
const draw = (values) => values.splice(random(values.length), 1)[0];

// The words that demo-model/tasks.py uses for code.
const words = (text) => text.split(' ');
const verbs = words('add scale merge split count move trim pack sort load save draw check mask sum join');
const nouns = words('Price Row Path Line Node Page Key Item Cell Word Step File Rate Tree Set Box');
const argumentNames = words('a b c n x y first last left right size total');

const names = verbs.flatMap((verb) => nouns.map((noun) => verb + noun));
const functions = Array.from({ length: 200 }, () => {
  const left = [...argumentNames];
  const [first, second] = [draw(left), draw(left)];
  const [operator, another] = ['+-*'[random(3)], '+-*'[random(3)]];
  const body = `${first} ${operator} ${second} ${another} ${10 + random(990)}`;
  return { name: draw(names), parameters: `${first}, ${second}`, body };
});
const file = functions
  .map(({ name, parameters, body }) => `def ${name}(${parameters}):\n    return ${body}\n\n`)
  .join('');
const unasked = [...functions];
const questions = Array.from({ length: 24 }, () => {
  const { name, parameters } = draw(unasked);
  return { prompt: `result = ${name}(`, right: `${parameters})` };
});

console.log(`a file of ${functions.length} functions, ${file.length} characters, on ${model.device}\n`);
let wrong = 0;
let held = 0; // tokens of the file, which the first request reads
for (const { prompt, right } of questions) {
  const { text, usage, timing } = await model.generate(file + prompt, { stop: ['\n\n'] });
  const computed = usage.promptTokens - usage.cachedTokens;
  console.log(
    `${prompt}${text}\n           ${text === right ? '✓' : `✗ not “${right}”`} prompt of ${usage.promptTokens} tokens: ` +
      `${usage.cachedTokens} cached, ${computed} computed; first token after ${timing.firstTokenMs.toFixed(1)} ms`,
  );
  if (text !== right || usage.cachedTokens < held) wrong++;
  held ||= model.tokenizer.encode(file).length;
}
console.log(`\n${questions.length - wrong} of ${questions.length} completions are right`);
await model.dispose();
if (wrong > 0) process.exit(1);
