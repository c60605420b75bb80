// Measures generation beside onnxruntime-genai, transformers.js and node-llama-cpp in one run: the same random Llama, from
// the same weights, in FP32 and in int4, as ONNX for three and as GGUF for llama.cpp. Each contestant has a process of its own;
// rounds go there and back, and medians are of the ratios within a round.
//   node bench/runtimes.mjs [--rounds 5] [--threads 2] [--precision float32,int4] [--json]
// Leave the machine to it: llama.cpp's threads wait for each other by spinning. The peers are installed into build/bench and
// build/ when they aren't there.
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { genaiPeer } from '../scripts/python-oracle.mjs';
import { llamaForRuntimes } from './llama.mjs';
import { installPeers } from './peers.mjs';
import { median } from './step-time.mjs';

const root = path.resolve(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: String(Math.min(os.availableParallelism(), 4)) },
    precision: { type: 'string', default: 'float32,int4' },
    json: { type: 'boolean', default: false },
  },
});
const shape = {
  layers: 8,
  hidden: 512,
  heads: 8,
  kvHeads: 2,
  intermediate: 1408,
  vocabulary: 8192,
  positions: 2048,
};
const scenarios = {
  'prompt 16 → 128 tokens': { length: 16, answer: 128, repeat: 3 },
  'prompt 1,024 → 32 tokens': { length: 1024, answer: 32, repeat: 2 },
};
/** Tokens at the beginning of the first answer that all contestants have to agree on: then rounding may decide. */
const equalTokens = 4;
/** Lays an ONNX file out as onnxruntime-genai and transformers.js look for it. */
function layOut(onnx) {
  const folder = onnx.replace(/\.onnx$/, '');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(path.join(folder, 'onnx'), { recursive: true });
  symlinkSync(onnx, path.join(folder, 'onnx/model.onnx'));
  symlinkSync(onnx, path.join(folder, 'model.onnx'));
  const { layers, hidden, heads, kvHeads, intermediate, vocabulary, positions } = shape;
  const config = {
    model_type: 'llama',
    architectures: ['LlamaForCausalLM'],
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    vocab_size: vocabulary,
    max_position_embeddings: positions,
    bos_token_id: 1,
    eos_token_id: 2,
  };
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(config));
  const names = (part) => ({
    [`${part}_key_names`]: `${part === 'past' ? 'past_key_values' : 'present'}.%d.key`,
    [`${part}_value_names`]: `${part === 'past' ? 'past_key_values' : 'present'}.%d.value`,
  });
  const genai = {
    model: {
      type: 'llama',
      bos_token_id: 1,
      eos_token_id: 2,
      pad_token_id: 0,
      vocab_size: vocabulary,
      context_length: positions,
      decoder: {
        filename: 'model.onnx',
        head_size: hidden / heads,
        hidden_size: hidden,
        num_attention_heads: heads,
        num_key_value_heads: kvHeads,
        num_hidden_layers: layers,
        inputs: { input_ids: 'input_ids', attention_mask: 'attention_mask', ...names('past') },
        outputs: { logits: 'logits', ...names('present') },
      },
    },
    search: { max_length: positions, past_present_share_buffer: true, do_sample: false },
  };
  writeFileSync(path.join(folder, 'genai_config.json'), JSON.stringify(genai));
  return folder;
}

installPeers();
const python = { ...process.env, PYTHONPATH: genaiPeer() };
const contestants = ['node-tensorrt', 'onnxruntime-genai', 'transformers.js', 'node-llama-cpp'];

function measure(contestant, { onnx, gguf, folder }, { length, answer, repeat }) {
  const sizes = [length, answer, repeat].map(String);
  const child = (command, args, env) =>
    JSON.parse(
      execFileSync(command, args, { cwd: root, encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'ignore'] })
        .trim()
        .split('\n')
        .at(-1),
    );
  if (contestant === 'onnxruntime-genai') {
    const script = path.join(root, 'bench/runtimes-contestant.py');
    return child('python3', [script, folder, options.threads, ...sizes], python);
  }
  const model = { 'node-tensorrt': onnx, 'transformers.js': folder, 'node-llama-cpp': gguf }[contestant];
  const script = path.join(root, 'bench/runtimes-contestant.mjs');
  return child(process.execPath, [script, contestant, model, options.threads, ...sizes], process.env);
}

const machine = { cpu: os.cpus()[0]?.model, cores: os.availableParallelism(), node: process.version };
const report = { machine, threads: Number(options.threads), rounds: Number(options.rounds), results: [] };
if (!options.json) {
  console.log(`${machine.cpu}, ${machine.cores} cores, ${options.threads} threads, Node.js ${machine.node}`);
}
for (const precision of options.precision.split(',')) {
  const files = await llamaForRuntimes(path.join(root, 'build/bench/runtimes'), precision, shape);
  const models = { ...files, folder: layOut(files.onnx) };
  for (const [name, scenario] of Object.entries(scenarios)) {
    const samples = Object.fromEntries(contestants.map((contestant) => [contestant, []]));
    for (let round = 0; round < report.rounds; round++) {
      for (const contestant of round % 2 === 0 ? contestants : contestants.toReversed()) {
        samples[contestant].push(measure(contestant, models, scenario));
      }
    }
    const ours = samples['node-tensorrt'];
    const begins = ({ tokens }) => tokens.slice(0, equalTokens).join();
    for (const contestant of contestants) {
      if (begins(samples[contestant][0]) === begins(ours[0])) continue;
      console.error(
        `${contestant} answers otherwise: ${begins(samples[contestant][0])}, not ${begins(ours[0])}`,
      );
      process.exitCode = 1;
    }
    const rows = contestants.map((contestant) => ({
      runtime: `${contestant} ${samples[contestant][0].version}`,
      tokensPerSecond: median(samples[contestant].map(({ tokensPerSecond }) => tokensPerSecond)),
      oursToThis: median(
        samples[contestant].map((each, i) => ours[i].tokensPerSecond / each.tokensPerSecond),
      ),
    }));
    report.results.push({ precision, scenario: name, rows });
    if (options.json) continue;
    console.log(`\n${precision}, ${name}`);
    console.table(
      Object.fromEntries(
        rows.map(({ runtime, tokensPerSecond, oursToThis }) => [
          runtime,
          {
            'tokens/s': Number(tokensPerSecond.toPrecision(4)),
            'ours to this': Number(oursToThis.toPrecision(3)),
          },
        ]),
      ),
    );
  }
}
if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
