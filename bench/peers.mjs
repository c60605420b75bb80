// The peers from npm that generation is measured beside: transformers.js, its onnxruntime-node, and node-llama-cpp.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

export const versions = {
  '@huggingface/transformers': '4.3.0',
  'node-llama-cpp': '3.22.1',
  'onnxruntime-node': '1.30.0',
};

const folder = path.resolve(import.meta.dirname, '../build/bench/peers');

/** Resolves a peer's file, as a package that depends on it would. */
export const requirePeer = createRequire(path.join(folder, 'package.json'));
export const importPeer = (name) => import(pathToFileURL(requirePeer.resolve(name)));

/** Installs the peers into build/bench/peers, unless they are there. */
export function installPeers() {
  if (Object.keys(versions).every((name) => existsSync(path.join(folder, 'node_modules', name)))) return;
  mkdirSync(folder, { recursive: true });
  const overrides = { 'onnxruntime-node': versions['onnxruntime-node'] };
  writeFileSync(
    path.join(folder, 'package.json'),
    JSON.stringify({ private: true, dependencies: versions, overrides }),
  );
  const npm = ['install', '--ignore-scripts', '--no-audit', '--no-fund'];
  execFileSync('npm', npm, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
}

/**
 * Loads a model in a hub's layout with transformers.js. Resolves with a function that answers prompts of equal lengths, all
 * in one batch.
 */
export async function loadTransformers(directory, threads) {
  const { AutoModelForCausalLM, env, Tensor } = await importPeer('@huggingface/transformers');
  env.allowRemoteModels = false;
  env.localModelPath = path.dirname(directory);
  const model = await AutoModelForCausalLM.from_pretrained(path.basename(directory), {
    device: 'cpu',
    dtype: 'fp32',
    session_options: { intraOpNumThreads: threads },
  });
  return async (prompts, maxTokens) => {
    const dims = [prompts.length, prompts[0].length];
    const ids = BigInt64Array.from(prompts.flat(), BigInt);
    const output = await model.generate({
      inputs: new Tensor('int64', ids, dims),
      attention_mask: new Tensor('int64', new BigInt64Array(ids.length).fill(1n), dims),
      max_new_tokens: maxTokens,
      do_sample: false,
      eos_token_id: [-1],
    });
    return output.tolist().map((row) => row.slice(dims[1]).map(Number));
  };
}
