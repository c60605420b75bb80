// Child of parsers.test.ts: parses mutated files. `node parse.mjs FORMAT SEED FROM COUNT CORPUS`, CORPUS a folder.
// Prints a JSON document: { cases, parsed, slowestMs, findings: [{ case, problem }] }. A case that never ends, or ends
// this process, is the one in progress.txt of the working directory.
import { openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { Engine, LanguageModel } from '../../dist/index.mjs';
import {
  externalData,
  isExternal,
  parseModel,
  parseSafetensors,
  serializeModel,
  tensorDataType,
  tensorElements,
} from '../../dist/onnx.mjs';
import { generator, mutateEngine, mutateOnnx, mutateSafetensors, mutateState } from './mutate.mjs';

const [format, seed, from, count, folder] = process.argv.slice(2);
const corpus = readdirSync(folder)
  .sort()
  .map((name) => readFileSync(path.join(folder, name)));

/** CPU time, not the clock's: a busy machine is no slow parser. */
const maxMs = 2_000;

const formats = {
  onnx: {
    mutate: mutateOnnx,
    parse(bytes) {
      const model = parseModel(bytes);
      for (const tensor of model.graph.initializer) {
        typed(() => tensorDataType(tensor));
        if (isExternal(tensor)) typed(() => externalData(tensor, '/models'));
        else typed(() => tensorElements(tensor));
      }
      // What parses can be written, and what was written parses to the same.
      const written = serializeModel(model);
      if (!Buffer.from(serializeModel(parseModel(written))).equals(written)) {
        throw new Error('what is written differs from what is read');
      }
    },
  },
  safetensors: {
    mutate: mutateSafetensors,
    parse(bytes) {
      const { tensors, metadata } = parseSafetensors(bytes);
      let size = 0;
      for (const tensor of tensors.values()) size += tensor.bytes.length;
      if (size > bytes.length) throw new Error(`the tensors have ${size} bytes of ${bytes.length}`);
      for (const value of Object.values(metadata)) if (typeof value !== 'string') throw new Error('metadata');
    },
  },
  engine: {
    mutate: mutateEngine,
    async parse(bytes) {
      // From a file too, which is read, and said to be damaged, in other places.
      writeFileSync('case.engine', bytes);
      const fromFile = await Engine.load('case.engine').then(
        (loaded) => {
          loaded.plan();
          loaded.dispose();
        },
        (error) => error,
      );
      const engine = await Engine.load(bytes).catch((error) => {
        if (fromFile?.code !== error.code) throw new Error(`from a file: ${fromFile}; from bytes: ${error}`);
        throw error;
      });
      if (fromFile) throw new Error(`only from a file: ${fromFile}`);
      if (engine.byteLength !== bytes.length) throw new Error('another length');
      engine.plan();
      JSON.stringify([engine.inputs, engine.outputs, engine.manifest.profiles]);
      await engine.inspect();
      engine.dispose();
    },
  },
  sequence: {
    mutate: mutateState,
    async load() {
      const llama = path.join(import.meta.dirname, '../fixtures/decoders/llama/optimum');
      return LanguageModel.load(llama, {
        device: 'cpu',
        threads: 1,
        kvCache: { maxBatchSize: 1, maxLength: 64 },
      });
    },
    async parse(bytes, model) {
      const sequence = await model.restoreSequence(bytes);
      try {
        const { tokens } = sequence;
        if (tokens.length > 64 || tokens.some(isNoToken))
          throw new Error(`the tokens ${tokens} were restored`);
        if (tokens.length === 0 || tokens.length === 64) return;
        // Large numbers may give logits that aren't finite.
        const answer = await sequence
          .generate({ maxTokens: 2, temperature: 1, seed: 1, ignoreEos: true })
          .catch((error) => {
            if (error.code !== 'ERR_EXECUTION_FAILED') throw new Error(`generate() failed: ${error}`);
          });
        if (answer?.tokens.some(isNoToken)) throw new Error(`the answer is ${answer.tokens}`);
      } finally {
        sequence.dispose();
      }
    },
    refuses: ({ code }) => code === 'ERR_STATE_MISMATCH',
  },
};

const isNoToken = (token) => !Number.isInteger(token) || token < 0 || token >= 320;

/** The errors that this package throws on purpose. */
function isTyped(error) {
  const known = ['TensorRTError', 'TypeError', 'RangeError'].includes(error?.name);
  return known && /^ERR_/.test(error.code ?? '') && error.code !== 'ERR_OUT_OF_MEMORY';
}

function typed(action) {
  try {
    action();
  } catch (error) {
    if (!isTyped(error)) throw error;
  }
}

const { mutate, load, parse, refuses = isTyped } = formats[format];
const loaded = await load?.();
const progress = openSync('progress.txt', 'w');
const findings = [];
let parsed = 0;
let slowestMs = 0;
for (let i = Number(from); i < Number(from) + Number(count); i++) {
  writeSync(progress, String(i).padEnd(16), 0);
  const bytes = mutate(corpus, generator(seed, i));
  const before = process.cpuUsage();
  try {
    await parse(new Uint8Array(bytes), loaded);
    parsed++;
  } catch (error) {
    if (!refuses(error)) findings.push({ case: i, problem: String(error?.stack ?? error).slice(0, 600) });
  }
  const { user, system } = process.cpuUsage(before);
  const ms = (user + system) / 1000;
  slowestMs = Math.max(slowestMs, ms);
  if (ms > maxMs) findings.push({ case: i, problem: `took ${ms} ms` });
  if (findings.length >= 20) break;
}
await loaded?.dispose();
process.stdout.write(JSON.stringify({ cases: Number(count), parsed, slowestMs, findings }));
