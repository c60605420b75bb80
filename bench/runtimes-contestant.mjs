// Child of runtimes.mjs: one runtime with one model, in a process of its own. Prints as JSON its version, the tokens of the
// first answer, and tokens per second of later ones (medians), what reads the prompts included.
//   node runtimes-contestant.mjs CONTESTANT MODEL THREADS PROMPT ANSWER REPEAT
// Answers are greedy and as long as asked for. No prompt begins as an earlier one, so that no cache has it.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { importPeer, loadTransformers, versions } from './peers.mjs';
import { median } from './step-time.mjs';

const [contestant, file, threadsText, length, answer, repeat] = process.argv.slice(2);
const threads = Number(threadsText);

let state = 1;
const prompt = (count) =>
  Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
    return 300 + (state % 7800);
  });

const contestants = {
  async 'node-tensorrt'() {
    const { LanguageModel } = await import('node-tensorrt');
    const model = await LanguageModel.load(file, { device: 'cpu', threads });
    if (model.kvCache.mode !== 'in-place') throw new Error(model.kvCache.why);
    const { version } = JSON.parse(
      readFileSync(path.resolve(import.meta.dirname, '../package.json'), 'utf8'),
    );
    const options = (maxTokens) => ({ maxTokens, temperature: 0, ignoreEos: true });
    return {
      version,
      generate: async (tokens, count) => (await model.generate(tokens, options(count))).tokens,
    };
  },

  async 'transformers.js'() {
    const generate = await loadTransformers(file, threads);
    return {
      version: versions['@huggingface/transformers'],
      generate: async (tokens, count) => (await generate([tokens], count))[0],
    };
  },

  async 'node-llama-cpp'() {
    const { getLlama } = await importPeer('node-llama-cpp');
    const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: threads });
    const model = await llama.loadModel({ modelPath: file });
    const context = await model.createContext({ contextSize: 2048, batchSize: 512, threads });
    const sequence = context.getSequence();
    const generate = async (tokens, count) => {
      await sequence.clearHistory();
      const chosen = [];
      for await (const token of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
        chosen.push(token);
        if (chosen.length === count) break;
      }
      return chosen;
    };
    return { version: versions['node-llama-cpp'], generate };
  },
};

const { version, generate } = await contestants[contestant]();
const tokens = await generate(prompt(Number(length)), Number(answer));
const times = [];
for (let i = 0; i < Number(repeat); i++) {
  const next = prompt(Number(length));
  const began = performance.now();
  const { length: count } = await generate(next, Number(answer));
  if (count !== Number(answer)) throw new Error('An answer is too short.');
  times.push(performance.now() - began);
}
const tokensPerSecond = (1000 * Number(answer)) / median(times);
console.log(JSON.stringify({ version, tokensPerSecond, tokens }));
process.exit(0);
