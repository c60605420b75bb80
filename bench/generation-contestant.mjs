// Child of bench/generate.mjs: one contestant in one scenario, in its own process. Prints its measurements as JSON.
//     node bench/generation-contestant.mjs CONTESTANT SCENARIO DIRECTORY THREADS
// DIRECTORY is a model as optimum exports it. Answers are greedy and have the requested length.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { eventLoopDelay } from './event-loop-delay.mjs';
import { loadTransformers, requirePeer } from './peers.mjs';
import { median } from './step-time.mjs';

const [contestant, scenario, directory, threadsText] = process.argv.slice(2);
const threads = Number(threadsText);

let state = 1;
/**
 * Tokens that differ from the beginning of every earlier prompt, so that none is in a cache. Special tokens are below
 * 16.
 */
function prompt(length) {
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
    return 16 + (state % 8000);
  });
}

async function timed(work) {
  const started = performance.now();
  const result = await work();
  return [performance.now() - started, result];
}

// ---- contestants: generate(prompt, tokens) resolves with the answer's tokens ---------------------------------------

async function loadOurs() {
  const { LanguageModel } = await import('node-tensorrt');
  const model = await LanguageModel.load(directory, { device: 'cpu', threads });
  if (model.kvCache.mode !== 'in-place')
    throw new Error(`The cache is not updated in place: ${model.kvCache.why}`);
  const options = (maxTokens) => ({ maxTokens, temperature: 0, ignoreEos: true });
  return {
    model,
    options,
    generate: async (tokens, maxTokens) => (await model.generate(tokens, options(maxTokens))).tokens,
  };
}

async function loadTransformersJs() {
  const generate = await loadTransformers(directory, threads);
  return {
    generate: async (tokens, maxTokens) => (await generate([tokens], maxTokens))[0],
    generateBatch: generate,
  };
}

/** Collects the requests that are made at once into one batch. */
function inOneBatch(generateBatch) {
  let waiting = [];
  const send = (maxTokens) => {
    const batch = waiting;
    waiting = [];
    const answers = generateBatch(
      batch.map(({ tokens }) => tokens),
      maxTokens,
    );
    for (const [i, { resolve }] of batch.entries()) resolve(answers.then((rows) => rows[i]));
  };
  return (tokens, maxTokens) =>
    new Promise((resolve) => {
      waiting.push({ tokens, resolve });
      if (waiting.length === 1) setImmediate(send, maxTokens);
    });
}

// ---- scenarios that several contestants run -----------------------------------------------------------------------

/** Tokens per second for answers of `answer` tokens, `requests` at a time, including the reading of prompts. */
async function throughput({ generate }, { length, answer, requests, repeat }) {
  await generate(prompt(length), 4);
  const rates = [];
  for (let i = 0; i < repeat; i++) {
    const prompts = Array.from({ length: requests }, () => prompt(length));
    const [ms, answers] = await timed(() => Promise.all(prompts.map((each) => generate(each, answer))));
    if (answers.some((each) => each.length !== answer)) throw new Error('An answer is too short');
    rates.push((1000 * requests * answer) / ms);
  }
  return { tokensPerSecond: median(rates) };
}

const sizes = {
  short: { length: 16, answer: 128, requests: 1, repeat: 3 },
  'long-prompt': { length: 2048, answer: 64, requests: 1, repeat: 1 },
  requests: { length: 128, answer: 128, requests: 16, repeat: 1 },
};

const deepRows = 16;
const deepLength = 1024;
const deepSteps = 24;

/** Steps per second with 16 rows of 1,024 tokens each. */
async function ourDeepSteps({ model, options }) {
  const sequences = Array.from({ length: deepRows }, () => model.createSequence());
  for (const sequence of sequences) await sequence.append(prompt(deepLength));
  // The first step is left out, since not all rows take part in it.
  const steps = async (count) =>
    (await timed(() => all(sequences, (each) => each.generate(options(count)))))[0];
  const few = await steps(2);
  const many = await steps(2 + deepSteps);
  return { stepsPerSecond: (1000 * deepSteps) / (many - few) };
}

const all = (values, work) => Promise.all(values.map(work));

/**
 * The exporter's own graph in a plain loop that feeds its cache back. The content of the cache doesn't affect the time.
 */
async function graphDeepSteps() {
  const { InferenceSession, Tensor } = requirePeer('onnxruntime-node');
  const session = await InferenceSession.create(path.join(directory, 'onnx/model.onnx'), {
    intraOpNumThreads: threads,
  });
  const ids = (rows, length, value) =>
    new Tensor('int64', new BigInt64Array(rows * length).fill(BigInt(value)), [rows, length]);
  const caches = session.inputNames.filter((name) => name.startsWith('past_key_values'));
  const { shape } = session.inputMetadata.find(({ name }) => name === caches[0]);
  const dims = [deepRows, shape[1], deepLength, shape[3]];
  const size = dims.reduce((a, b) => a * b);
  let past = Object.fromEntries(
    caches.map((name) => [name, new Tensor('float32', new Float32Array(size).fill(0.01), dims)]),
  );
  const times = [];
  for (let length = deepLength; length < deepLength + 8; length++) {
    const feeds = {
      input_ids: ids(deepRows, 1, 20),
      attention_mask: ids(deepRows, length + 1, 1),
      position_ids: ids(deepRows, 1, length),
    };
    const known = Object.entries(feeds).filter(([name]) => session.inputNames.includes(name));
    const [ms, outputs] = await timed(() => session.run({ ...Object.fromEntries(known), ...past }));
    past = Object.fromEntries(
      caches.map((name) => [name, outputs[name.replace('past_key_values', 'present')]]),
    );
    times.push(ms);
  }
  return { stepsPerSecond: 1000 / median(times.slice(1)) };
}

// ---- scenarios that are ours alone --------------------------------------------------------------------------------

/** Milliseconds until the first token of a stream, and between tokens. */
async function intervals({ model, options }, tokens, answer, onToken) {
  const times = [performance.now()];
  for await (const _ of model.stream(tokens, options(answer))) {
    times.push(performance.now());
    onToken?.();
  }
  return times.slice(1).map((time, i) => time - times[i]);
}

const ours = {
  /** A step with 128 and with 1,024 tokens of context, in turns. */
  async 'step-growth'(loaded) {
    const step = async (length) => median((await intervals(loaded, prompt(length), 48)).slice(2));
    await step(16);
    const samples = [];
    for (let i = 0; i < 3; i++) samples.push([await step(128), await step(1024)]);
    return {
      at128Ms: median(samples.map(([short]) => short)),
      at1024Ms: median(samples.map(([, long]) => long)),
      ratio: median(samples.map(([short, long]) => long / short)),
    };
  },

  /** The event loop is blocked for 50 ms in every 60. Rates are measured by the decode loop's own clock. */
  async 'blocked-loop'({ model, options }) {
    const rate = async () => {
      const { timing } = await model.generate(prompt(16), options(192));
      return (1000 * 191) / (timing.totalMs - timing.firstTokenMs);
    };
    const cell = new Int32Array(new SharedArrayBuffer(4));
    const blocked = async () => {
      let isDone = false;
      const result = rate().finally(() => {
        isDone = true;
      });
      while (!isDone) {
        Atomics.wait(cell, 0, 0, 50);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return result;
    };
    await rate();
    const samples = [];
    for (let i = 0; i < 3; i++) samples.push([await rate(), await blocked()]);
    return {
      freeTokensPerSecond: median(samples.map(([free]) => free)),
      blockedTokensPerSecond: median(samples.map(([, held]) => held)),
      ratio: median(samples.map(([free, held]) => held / free)),
    };
  },

  /** The second of two prompts that share their first 1,000 tokens. */
  async 'prefix-reuse'({ model, options }) {
    await model.generate(prompt(1000), options(1));
    const samples = [];
    for (let i = 0; i < 5; i++) {
      const shared = prompt(1000);
      const times = [];
      for (let j = 0; j < 2; j++) {
        const { timing, usage } = await model.generate([...shared, ...prompt(8)], options(2));
        if (j === 1 && usage.cachedTokens < 1000)
          throw new Error(`Only ${usage.cachedTokens} tokens were cached`);
        times.push(timing.firstTokenMs);
      }
      samples.push(times);
    }
    return {
      firstMs: median(samples.map(([first]) => first)),
      secondMs: median(samples.map(([, second]) => second)),
      ratio: median(samples.map(([first, second]) => second / first)),
    };
  },

  /** Copies a row of 1,000 tokens into rows that have been used before. */
  async fork({ model }) {
    const sequence = model.createSequence();
    await sequence.append(prompt(1000));
    const times = [];
    for (let i = 0; i < 20; i++) {
      const [ms, copy] = await timed(() => sequence.fork());
      copy.dispose();
      times.push(ms);
    }
    return { forkMs: median(times.slice(4)) };
  },

  /** How long a prompt of 2,048 tokens stops eight running streams. Allowed: 3 of their steps and one chunk. */
  async 'entering-prompt'(loaded) {
    const { model, options } = loaded;
    const streams = 8;
    const chunkTokens = 512;
    await model.generate(prompt(chunkTokens), options(1));
    const chunks = [];
    for (let i = 0; i < 3; i++) {
      const { timing } = await model.generate(prompt(chunkTokens), options(1));
      chunks.push(timing.firstTokenMs);
    }
    let given = 0;
    let enter;
    const isTime = new Promise((resolve) => {
      enter = resolve;
    });
    const running = all(Array.from({ length: streams }), () =>
      intervals(loaded, prompt(16), 160, () => {
        if (++given === streams * 40) enter();
      }),
    );
    await isTime;
    await model.generate(prompt(2048), options(1));
    const gaps = (await running).map((each) => each.slice(1));
    // The pause is the longest gap while the prompt is read. Each stream's first quarter runs without it.
    const stepMs = median(gaps.flatMap((each) => each.slice(8, 36)));
    const pauseMs = Math.max(...gaps.flatMap((each) => each.slice(36)));
    return { stepMs, chunkMs: median(chunks), pauseMs, allowedMs: 3 * stepMs + median(chunks) };
  },
};

/** Measured while answers follow one another, computed in this process or, as a lower bound, in another one. */
async function delayOfEventLoop(work) {
  await work();
  return eventLoopDelay(work, 4);
}

const work = ({ generate }) => generate(prompt(256), 64);

async function run() {
  if (contestant === 'worker') {
    const loaded = await loadOurs();
    process.on('message', async () => {
      await work(loaded);
      process.send('done');
    });
    process.send('ready');
    return new Promise(() => {});
  }
  if (contestant === 'another process') {
    const child = fork(process.argv[1], ['worker', ...process.argv.slice(3)], {
      stdio: ['ignore', 2, 2, 'ipc'],
    });
    await once(child, 'message');
    const result = await delayOfEventLoop(async () => {
      child.send('work');
      await once(child, 'message');
    });
    child.kill();
    return result;
  }
  if (contestant === 'onnxruntime-node') return graphDeepSteps();
  const loaded = contestant === 'node-tensorrt' ? await loadOurs() : await loadTransformersJs();
  if (scenario === 'event-loop') return delayOfEventLoop(() => work(loaded));
  if (sizes[scenario]) {
    if (contestant === 'transformers.js, one batch') {
      return throughput({ generate: inOneBatch(loaded.generateBatch) }, sizes[scenario]);
    }
    return throughput(loaded, sizes[scenario]);
  }
  if (scenario === 'deep-steps') return ourDeepSteps(loaded);
  return ours[scenario](loaded);
}

const result = await run();
process.stdout.write(JSON.stringify(result), () => process.exit(0));
