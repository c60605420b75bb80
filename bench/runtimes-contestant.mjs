// Child of runtimes.mjs: one runtime with one model, in a process of its own. Prints as JSON its version, the tokens of the
// first answer, and tokens per second of later ones (medians), what reads the prompts included.
//   node runtimes-contestant.mjs CONTESTANT MODEL THREADS PROMPT ANSWER REPEAT PEERS
// Answers are greedy and as long as asked for. No prompt begins as an earlier one, so that no cache has it.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [contestant, file, threadsText, length, answer, repeat, peers] = process.argv.slice(2);
const threads = Number(threadsText);
const requirePeer = createRequire(path.join(peers, 'package.json'));
const versionOf = (name) =>
  JSON.parse(readFileSync(path.join(peers, 'node_modules', name, 'package.json'), 'utf8')).version;

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
    const { AutoModelForCausalLM, env, Tensor } = await import(
      pathToFileURL(requirePeer.resolve('@huggingface/transformers'))
    );
    env.allowRemoteModels = false;
    env.localModelPath = path.dirname(file);
    const model = await AutoModelForCausalLM.from_pretrained(path.basename(file), {
      device: 'cpu',
      dtype: 'fp32',
      session_options: { intraOpNumThreads: threads },
    });
    const generate = async (tokens, count) => {
      const dims = [1, tokens.length];
      const output = await model.generate({
        inputs: new Tensor('int64', BigInt64Array.from(tokens, BigInt), dims),
        attention_mask: new Tensor('int64', new BigInt64Array(tokens.length).fill(1n), dims),
        max_new_tokens: count,
        do_sample: false,
        eos_token_id: [-1],
      });
      return output.tolist()[0].slice(tokens.length).map(Number);
    };
    return { version: versionOf('@huggingface/transformers'), generate };
  },

  async 'node-llama-cpp'() {
    const { getLlama } = await import(pathToFileURL(requirePeer.resolve('node-llama-cpp')));
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
    return { version: versionOf('node-llama-cpp'), generate };
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
times.sort((a, b) => a - b);
const tokensPerSecond = (1000 * Number(answer)) / times[Math.floor(times.length / 2)];
console.log(JSON.stringify({ version, tokensPerSecond, tokens }));
process.exit(0);
