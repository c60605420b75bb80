// The steps of scripts/gpu-first-run, in order. Each has a name, a title, what it proves, what a failure means, the
// most seconds that it may take, the least that earlier steps must leave it, and `run`, which gets the context of
// step.mjs.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { buildEngine, Engine, InferenceSession, inspectSystem, LanguageModel, Tensor } from 'node-tensorrt';
import {
  buildBert,
  GraphBuilder,
  makeTensor,
  readModel,
  serializeModel,
  tensorElements,
  writeModel,
} from 'node-tensorrt/onnx';
import { largeLlamaDecoder, llamaDecoder, readOfStep } from '../../bench/llama.mjs';
import { describeMachine } from '../../bench/results.mjs';
import { median, timeSteps } from '../../bench/step-time.mjs';
import {
  decoders,
  logitTolerance,
  randomElements,
  requireAgreement,
  tolerance,
} from '../../test/gpu/agreement.mjs';
import { cacheCopies, layersOf } from './plan-layers.mjs';

const fixtures = path.resolve(import.meta.dirname, '../../test/fixtures');
const onGpu = { device: 'cuda', cache: true };
const precisionNames = { fp32: 'FP32', fp16: 'FP16' };

/** Runs `work`. Returns its milliseconds and its result. */
async function timed(work) {
  const began = performance.now();
  const value = await work();
  return [performance.now() - began, value];
}

const ms = (value) => (value < 10 ? value.toFixed(3) : value.toFixed(1));
const inSeconds = (value) => (value / 1000).toFixed(1);
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

// ---- the builder, the smallest engine -------------------------------------------------------------------------------

async function findBuilder({ say, note, check, machine }) {
  const system = await inspectSystem();
  const [gpu] = system.gpus;
  machine({ line: describeMachine(system).join(', '), gpu: gpu?.name });
  for (const { works, what, detail, remedy } of system.findings) {
    say(`${works ? '+' : '-'} ${what}: ${detail}${remedy ? ` (${remedy})` : ''}`);
  }
  check(gpu, 'The driver shows no GPU.');
  const library = system.tensorrt.find(({ error }) => error === undefined);
  if (!library) throw new Error(system.tensorrt[0]?.error ?? 'No TensorRT library was found.');
  note(
    `Driver ${system.driver}, which runs CUDA up to ${system.cuda}; addon for CUDA ${system.addon.cuda}; ` +
      `\`${library.path}\`, found by ${library.source}; ONNX Runtime ${system.onnxruntime?.version ?? 'not found'}.`,
  );
  const searched = (process.env.LD_LIBRARY_PATH ?? '').split(':');
  check(!searched.includes(path.dirname(library.path)), 'LD_LIBRARY_PATH names the folder of the library.');
  const g = new GraphBuilder('twice');
  g.op('Mul', [g.input('x', 'float32', [4]), g.scalar(2)], {}, { outputs: ['y'] });
  g.output('y', 'float32', [4]);
  const model = serializeModel(g.finish());
  const [took, engine] = await timed(() => buildEngine(model, { precision: 'fp32', cache: false }));
  note(
    `A plan of one multiplication: ${engine.byteLength} bytes for ${engine.manifest.targets}, ${inSeconds(took)} s.`,
  );
}

const linear = path.join(fixtures, 'session/linear.onnx');
const rowsOf = (rows, seed = 1) => ({ x: new Tensor('float32', randomElements(rows * 4, seed), [rows, 4]) });
const linearShapes = { x: { min: [1, 4], opt: [8, 4], max: [16, 4] } };

async function runSmallest({ keep, folder, table }) {
  const cpu = await keep(InferenceSession.create(linear, { device: 'cpu' }));
  const row = table('precision', 'build, s', 'load, s', 'a run, ms', 'largest difference');
  for (const precision of ['fp32', 'fp16']) {
    const options = { precision, shapes: linearShapes, cache: false };
    const [built, engine] = await timed(() => buildEngine(linear, options));
    const file = path.join(folder, `linear-${precision}.engine`);
    await engine.save(file);
    const [loaded, session] = await timed(async () => InferenceSession.create(await Engine.load(file)));
    const times = [];
    let largest = 0;
    for (const rows of [8, 1, 16, 3, 8, 8, 8]) {
      const feeds = rowsOf(rows, rows);
      const [took, found] = await timed(() => session.run(feeds));
      times.push(took);
      largest = Math.max(largest, requireAgreement(found, await cpu.run(feeds), tolerance[precision]));
    }
    await session.dispose();
    const difference = largest.toExponential(1);
    row(precisionNames[precision], inSeconds(built), inSeconds(loaded), ms(median(times)), difference);
  }
}

// ---- decoders: their plan, two steps, a poisoned row, PyTorch's answers ---------------------------------------------

/** A decoder of two layers, with 8 query heads over 2 key-value heads. */
const small = { layers: 2, hidden: 512, heads: 8, kvHeads: 2, intermediate: 1024, vocabulary: 1000 };

async function readPlans({ folder, note, table, check }) {
  const { readBuildOptions } = await import('../../dist/engine/build-options.js');
  const { buildDecoder } = await import('../../dist/engine/decoder/build-decoder.js');
  const { prepareDecoder } = await import('../../dist/engine/decoder/prepare-decoder.js');
  const { native } = await import('../../dist/system/native.js');
  const library = (await inspectSystem()).tensorrt.find(({ error }) => error === undefined).path;
  const models = {
    'one causal layer': await llamaDecoder(folder, 'float16', { ...small, layers: 1, positions: 4096 }),
    'two layers with a window': path.join(decoderFolder('qwen2-window/optimum'), 'model.onnx'),
  };
  const row = table(
    'decoder',
    'build, s',
    'plan, MB',
    'caches',
    'aliases',
    'layers of the plan',
    'copies of a cache',
  );
  for (const [name, model] of Object.entries(models)) {
    const request = { model, directory: folder, maxLength: 512, memo: path.join(folder, 'decoders.json') };
    const prepared = await prepareDecoder(request);
    const decoder = { ...prepared, capacity: 512, rows: 16, chunkSize: 512, cache: 'auto', detailed: true };
    const settings = readBuildOptions({ precision: 'fp16', cache: false });
    const [took, { engine, graph }] = await timed(() => buildDecoder(0, decoder, settings));
    for (const warning of engine.manifest.warnings) note(`TensorRT warns of ${name}: ${warning}`);
    const { information, aliases } = await native().inspectPlan({ library, plan: engine.plan(), device: 0 });
    for (const { input, output } of graph.caches) {
      check(
        aliases[output] === input,
        `${name}: ${output} shares ${aliases[output] ?? 'no input'}'s memory, not ${input}'s.`,
      );
    }
    const layers = layersOf(information);
    check(layers.length > 0, `${name}: TensorRT lists no layers of its plan.`);
    const copies = cacheCopies(layers, graph.caches);
    check(copies.length === 0, `${name}: a step copies whole caches: ${copies.join('; ')}.`);
    row(
      name,
      inSeconds(took),
      megabytes(engine.byteLength),
      graph.caches.length,
      Object.keys(aliases).length,
      layers.length,
      copies.length,
    );
    // Kernels whose names differ only in their numbers are of the same kind.
    const kinds = new Set(layers.map((layer) => layer.name.replace(/(_myl\d+_\d+|_0x[0-9a-f]+)$/, '')));
    note(`The layers of ${name}: ${[...kinds].join(', ')}.`);
  }
}

const fixtureOptions = { chunkSize: 48, kvCache: { maxBatchSize: 4, maxLength: 250 } };
const decoderFolder = (fixture) => path.join(fixtures, 'decoders', fixture);

/** The largest difference between two lists of log-probabilities over the whole vocabulary. NaN if one is missing. */
function largestDifference(actual, expected) {
  const found = new Map(actual.map(({ token, logprob }) => [token, logprob]));
  return expected.reduce((most, { token, logprob }) => {
    const difference = Math.abs(found.get(token) - logprob);
    return difference <= most ? most : difference;
  }, 0);
}

async function runTwoSteps({ table, check }) {
  const prompts = [[7], [5, 6, 7, 8, 9, 10, 11], Array.from({ length: 60 }, (_, i) => 3 + ((37 * i) % 200))];
  const row = table('decoder', 'precision', 'build and load, s', 'after the prompt', 'after the next token');
  for (const [fixture, precision] of [
    ['llama/optimum', 'fp32'],
    ['llama/optimum', 'fp16'],
    ['qwen2-window/optimum', 'fp32'],
  ]) {
    const { vocab_size: vocabulary } = JSON.parse(
      await readFile(path.join(decoderFolder(fixture), 'config.json'), 'utf8'),
    );
    const answers = async (options) => {
      const [took, model] = await timed(() =>
        LanguageModel.load(decoderFolder(fixture), { ...fixtureOptions, ...options }),
      );
      check(model.kvCache.mode === 'in-place', `${fixture}: ${model.kvCache.why}`);
      const found = [];
      // The second token is forced, since the first logits may be nearly equal.
      for (const prompt of prompts) {
        const asked = { temperature: 0, maxTokens: 2, ignoreEos: true, logprobs: vocabulary };
        found.push((await model.generate(prompt, { ...asked, logitBias: { 12: 100 } })).logprobs);
      }
      await model.dispose();
      return [took, found];
    };
    const [, expected] = await answers({ device: 'cpu' });
    const [took, actual] = await answers({ ...onGpu, precision });
    const worst = [0, 1].map((step) =>
      Math.max(...expected.map((each, i) => largestDifference(actual[i][step].top, each[step].top))),
    );
    row(fixture, precisionNames[precision], inSeconds(took), ...worst.map((value) => value.toExponential(1)));
    const limit = 2 * logitTolerance[precision];
    check(
      worst.every((value) => value <= limit),
      `${fixture} in ${precisionNames[precision]}: a log-probability differs from the CPU's by ${Math.max(...worst)}, more than ${limit}.`,
    );
  }
}

async function poisonRow({ keep, folder, note, check }) {
  const file = path.join(folder, 'poisoned.onnx');
  const poison = small.vocabulary - 1;
  const model = await readModel(await llamaDecoder(folder, 'float16', { ...small, positions: 4096 }));
  const { initializer } = model.graph;
  const at = initializer.findIndex(({ name }) => name === 'embedding');
  const elements = tensorElements(initializer[at]).slice();
  elements.fill(0x7e00, poison * small.hidden); // FP16's NaN
  initializer[at] = makeTensor('embedding', 'float16', initializer[at].dims, elements);
  await writeModel(model, file);

  const options = { kvCache: { maxBatchSize: 2, maxLength: 256, prefixReuse: false }, chunkSize: 64 };
  const asked = { temperature: 0, maxTokens: 24, ignoreEos: true, logprobs: 2 };
  const tokens = (length, first) => Array.from({ length }, (_, i) => (first + 37 * i) % 500);
  const [longer, shorter] = [tokens(40, 3), tokens(4, 11)];
  const expected = new Map();
  {
    const cpu = await keep(LanguageModel.load(file, { device: 'cpu', ...options }));
    for (const prompt of [longer, shorter]) expected.set(prompt, await cpu.generate(prompt, asked));
  }
  const gpu = await keep(LanguageModel.load(file, { ...onGpu, precision: 'as-exported', ...options }));
  check(gpu.kvCache.mode === 'in-place', gpu.kvCache.why);
  const generate = (prompt) => gpu.generate(prompt, asked);
  const requireCpu = (when, prompt, generation) => {
    const differs = differingToken(generation.tokens, expected.get(prompt), logitTolerance.fp16);
    check(differs < 0, `${when}, token ${differs} of the answer is not the CPU's.`);
  };
  requireCpu('Before', longer, await generate(longer));
  // Poison both rows completely: the NaNs lie beyond the lengths of the requests that follow.
  const poisoned = [...tokens(100, 5), poison, ...tokens(100, 7)];
  const beside = await Promise.allSettled([generate(poisoned), generate(longer)]);
  const isTyped = ({ status, reason }) => status === 'rejected' && /^ERR_/.test(reason.code);
  check(
    isTyped(beside[0]),
    `A request whose logits are not numbers was ${beside[0].status}, not refused with a code.`,
  );
  note(
    `The poisoned request: ${beside[0].reason ? `${beside[0].reason.code}, ${beside[0].reason.message}` : 'answered'}`,
  );
  if (beside[1].status === 'fulfilled') requireCpu('Beside it', longer, beside[1].value);
  else check(false, `The request beside it failed: ${beside[1].reason.message}`);
  await Promise.allSettled([generate(poisoned), generate(poisoned)]);
  const after = [longer, shorter, shorter, longer];
  for (const [i, each] of (await Promise.allSettled(after.map(generate))).entries()) {
    if (each.status === 'fulfilled') requireCpu('In a row that was poisoned', after[i], each.value);
    else check(false, `In a row that was poisoned, a request failed: ${each.reason.message}`);
  }
}

/**
 * The index of the first token that differs from an expected answer, -1 if none does. If the two likeliest tokens are
 * closer than `gap`, either is right.
 */
function differingToken(tokens, expected, gap) {
  const at = expected.tokens.findIndex((token, i) => token !== tokens[i]);
  if (at < 0) return -1;
  const [first, second] = expected.logprobs[at].top;
  return first.logprob - second.logprob < gap ? -1 : at;
}

async function answerFixtures({ table, check, secondsLeft }) {
  const row = table(
    'decoder',
    'precision',
    'load, s',
    "answers with PyTorch's tokens",
    'largest difference of a logit',
  );
  let longest = 0;
  for (const [fixture, precision] of decoders) {
    if (secondsLeft() < 1.5 * longest) {
      row(fixture, precisionNames[precision], 'not run: no time', '', '');
      check(false, `${fixture} in ${precisionNames[precision]} was not run: no time.`);
      continue;
    }
    const { suppressed, cases } = JSON.parse(
      await readFile(path.join(decoderFolder(fixture), '../expected.json'), 'utf8'),
    );
    const [took, model] = await timed(() =>
      LanguageModel.load(decoderFolder(fixture), { ...onGpu, precision, ...fixtureOptions }),
    );
    longest = Math.max(longest, took / 1000);
    const generations = await Promise.all(
      cases.map(({ prompt, greedy, firstLogits }) => {
        const { length } = greedy;
        const limits = { maxTokens: length, minTokens: length, stopTokens: suppressed };
        return model.generate(prompt, { temperature: 0, ...limits, logprobs: firstLogits.length });
      }),
    );
    await model.dispose();
    // Two logits may each be off by the tolerance.
    const limit = 2 * logitTolerance[precision];
    let right = 0;
    let worst = 0;
    for (const [i, { tokens, logprobs }] of generations.entries()) {
      const { greedy, gaps, firstLogits } = cases[i];
      const differs = greedy.findIndex((token, step) => token !== tokens[step]);
      if (differs < 0 || gaps[differs] < limit) right++;
      const top = logprobs[0].top.filter(({ token }) => !suppressed.includes(token));
      // Log-probabilities are logits minus a constant.
      const offset = firstLogits[top[0].token] - top[0].logprob;
      for (const { token, logprob } of top) {
        const difference = Math.abs(firstLogits[token] - logprob - offset);
        if (!(difference <= worst)) worst = difference;
      }
    }
    row(
      fixture,
      precisionNames[precision],
      inSeconds(took),
      `${right} of ${cases.length}`,
      worst.toExponential(1),
    );
    const what = `${fixture} in ${precisionNames[precision]}`;
    check(
      right === cases.length,
      `${what}: ${cases.length - right} of ${cases.length} answers have other tokens.`,
    );
    check(worst <= limit, `${what}: a logit is off by ${worst}, more than ${limit}.`);
  }
}

// ---- a model of a billion parameters ---------------------------------------------------------------------------------

/** The size of Llama 3.2 1B with a smaller vocabulary; with `--quick`, a size that a CPU can run. */
const sizes = {
  large: {
    shape: {
      layers: 16,
      hidden: 2048,
      heads: 32,
      kvHeads: 8,
      intermediate: 8192,
      vocabulary: 32_000,
      positions: 32_768,
    },
    capacities: [4096, 1024, 16_384, 32_768],
    steps: 64,
  },
  quick: {
    shape: {
      layers: 2,
      hidden: 256,
      heads: 8,
      kvHeads: 2,
      intermediate: 512,
      vocabulary: 1000,
      positions: 1024,
    },
    capacities: [512, 128],
    steps: 8,
  },
};
const rowsOfLarge = 16;

async function loadLarge({ folder, quick }, capacity, options = {}) {
  const { shape } = sizes[quick ? 'quick' : 'large'];
  const model = await largeLlamaDecoder(folder, 'float16', shape);
  // TensorRT-RTX doesn't measure kernels, and has no timing cache.
  const flavour = (await inspectSystem()).tensorrt.find(({ error }) => error === undefined)?.flavour;
  return LanguageModel.load(model, {
    ...onGpu,
    kvCache: { maxBatchSize: rowsOfLarge, maxLength: capacity },
    ...(flavour === 'rtx' ? {} : { timingCache: path.join(folder, 'timing.cache') }),
    ...options,
  });
}

/**
 * Makes `rows` sequences of `context` tokens each.
 * @returns [sequences, milliseconds that it took to read the tokens of one]
 */
async function sequencesOf(model, rows, context, vocabulary) {
  const first = model.createSequence();
  const prompt = Array.from({ length: context }, (_, i) => (7919 * i) % vocabulary);
  const [took] = await timed(() => first.append(prompt));
  const others = [];
  for (let row = 1; row < rows; row++) others.push(await first.fork());
  return [[first, ...others], took];
}

async function measureCapacities(context) {
  const { quick, table, note, check, secondsLeft } = context;
  const { shape, capacities, steps } = sizes[quick ? 'quick' : 'large'];
  const { weights, perToken } = readOfStep(shape);
  const [gpu] = (await inspectSystem()).gpus;
  if (!gpu) throw new Error('The driver shows no GPU.');
  note(`${Math.round((weights + shape.vocabulary * shape.hidden) / 1e6)} million parameters, random, FP16.`);
  const row = table(
    'capacity',
    'tokens in a row',
    'load, s',
    'prompt, tokens/s',
    '1 row: ms a step',
    'GB/s',
    '16 rows: ms a step',
    'GB/s',
  );
  let longest = 0;
  for (const capacity of capacities) {
    const needed = 2 * (weights + shape.vocabulary * shape.hidden + rowsOfLarge * capacity * perToken);
    if (needed > 0.85 * gpu.memory) {
      row(capacity, '', `not run: needs ${(needed / 1e9).toFixed(0)} GB`, '', '', '', '', '');
      continue;
    }
    if (secondsLeft() < 1.2 * longest) {
      row(capacity, '', 'not run: no time', '', '', '', '', '');
      check(false, `Capacity ${capacity} was not run: no time.`);
      continue;
    }
    const [whole] = await timed(async () => {
      const [took, model] = await timed(() => loadLarge(context, capacity));
      check(model.kvCache.mode === 'in-place', model.kvCache.why);
      await model.generate([1, 2, 3], { maxTokens: 4, ignoreEos: true }); // loads what the first step loads
      for (const tokens of [64, capacity - 2 * steps]) {
        const cells = [];
        let prompt;
        for (const rows of [1, rowsOfLarge]) {
          const [sequences, read] = await sequencesOf(model, rows, tokens, shape.vocabulary);
          prompt ??= (1000 * tokens) / read;
          const step = await timeSteps(sequences, tokens, steps);
          for (const each of sequences) each.dispose();
          const bytes = 2 * (weights + rows * (tokens + steps / 2) * perToken);
          cells.push(ms(step), (bytes / step / 1e6).toFixed(0));
        }
        row(capacity, tokens, inSeconds(took), Math.round(prompt), ...cells);
      }
      await model.dispose();
    });
    longest = Math.max(longest, whole / 1000);
  }
  check(longest > 0, 'No capacity was run.');
}

async function compareGraphs(context) {
  const { quick, table, check } = context;
  const { shape, capacities, steps } = sizes[quick ? 'quick' : 'large'];
  const row = table(
    'CUDA graphs',
    '1 row: ms a step',
    '16 rows: ms a step',
    'captured',
    'replayed',
    'refused',
  );
  const asked = { maxTokens: steps, temperature: 0, ignoreEos: true, logprobs: 2 };
  const answers = {};
  for (const mode of ['on', 'off']) {
    const model = await loadLarge(context, capacities[0], { cudaGraph: mode === 'on' });
    const cells = [];
    answers[mode] = [];
    for (const rows of [1, rowsOfLarge]) {
      const [sequences] = await sequencesOf(model, rows, 64, shape.vocabulary);
      cells.push(ms(await timeSteps(sequences, 64, steps)));
      answers[mode].push(...(await Promise.all(sequences.map((each) => each.generate(asked)))));
      for (const each of sequences) each.dispose();
    }
    const { captured, replayed, refused } = model.stats().graphs;
    row(mode, ...cells, captured, replayed, refused);
    check(refused === 0, `The driver refused to capture ${refused} shapes.`);
    if (mode === 'off') check(captured === 0, `${captured} graphs were captured with cudaGraph: false.`);
    await model.dispose();
  }
  // All have read the same prompt. Rows that run together round differently from a row that runs alone.
  const [alone] = answers.off;
  const differ = (mode) =>
    answers[mode].filter(({ tokens }) => differingToken(tokens, alone, logitTolerance.fp16) >= 0).length;
  check(
    differ('off') === 0,
    `${differ('off')} of 16 rows that were launched have other tokens than one alone.`,
  );
  check(
    differ('on') === 0,
    `${differ('on')} rows that were replayed have other tokens than one that was launched.`,
  );
}

// ---- new shapes, traffic, sessions beside each other
// -------------------------------------------------------------------

const encoder = {
  model_type: 'bert',
  vocab_size: 1000,
  hidden_size: 256,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  intermediate_size: 1024,
  max_position_embeddings: 256,
  type_vocab_size: 2,
};

function encoderFeeds(rows, length) {
  const ids = (value) =>
    new Tensor(
      'int64',
      BigInt64Array.from({ length: rows * length }, (_, i) => BigInt(value(i))),
      [rows, length],
    );
  return {
    input_ids: ids((i) => (i * 37) % 1000),
    attention_mask: ids(() => 1),
    token_type_ids: ids(() => 0),
  };
}

async function encoderEngine({ folder }) {
  const file = path.join(folder, 'encoder.onnx');
  await writeModel(await buildBert(encoder, { head: 'last_hidden_state' }), file);
  const range = { min: [1, 1], opt: [4, 64], max: [16, 256] };
  const shapes = { input_ids: range, attention_mask: range, token_type_ids: range };
  return [
    file,
    await buildEngine(file, { precision: 'fp32', shapes, cache: path.join(folder, 'cache/engines') }),
  ];
}

async function measureNewShapes(context) {
  const { keep, quick, table } = context;
  const [file, engine] = await encoderEngine(context);
  const cpu = await keep(InferenceSession.create(file, { device: 'cpu' }));
  const row = table('what', 'first run, ms', 'second', 'later ones');
  for (const cudaGraph of [true, false]) {
    const session = await keep(InferenceSession.create(engine, { cudaGraph }));
    await session.run(encoderFeeds(1, 1));
    const times = [[], [], []];
    for (let i = 0; i < 12; i++) {
      const feeds = encoderFeeds(1 + (i % 4), 17 + 11 * i);
      const expected = await cpu.run(feeds);
      for (let run = 0; run < 6; run++) {
        const [took, found] = await timed(() => session.run(feeds));
        times[Math.min(run, 2)].push(took);
        requireAgreement(found, expected, tolerance.fp32);
      }
    }
    row(
      `an encoder's run, CUDA graphs ${cudaGraph ? 'on' : 'off'}`,
      ...times.map((each) => ms(median(each))),
    );
  }
  const { shape, capacities } = sizes[quick ? 'quick' : 'large'];
  const model = await keep(loadLarge(context, capacities[0]));
  const prompts = [0, 1, 2].map(() => []);
  for (let i = 0; i < 8; i++) {
    for (const run of [0, 1, 2]) {
      const sequence = model.createSequence({ cacheSalt: `${i} ${run}` });
      const tokens = Array.from({ length: 17 + 9 * i }, (_, at) => (at * 37 + i + run) % shape.vocabulary);
      prompts[run].push((await timed(() => sequence.append(tokens)))[0]);
      sequence.dispose();
    }
  }
  row("a decoder's prompt", ...prompts.map((each) => ms(median(each))));
}

async function answerRandomRequests(context) {
  const { keep, quick, note, check } = context;
  const { shape, capacities } = sizes[quick ? 'quick' : 'large'];
  const model = await keep(loadLarge(context, capacities[0]));
  const random = randomElements(10_000, 7);
  let drawn = 0;
  const between = (from, to) =>
    from + Math.floor(((random[drawn++ % random.length] + 1) / 2) * (to - from + 1));
  const requests = Array.from({ length: quick ? 40 : 400 }, () => {
    const prompt = Array.from({ length: between(4, quick ? 60 : 700) }, () =>
      between(0, shape.vocabulary - 1),
    );
    return [prompt, { maxTokens: between(2, quick ? 20 : 160), temperature: 0, ignoreEos: true }];
  });
  const before = model.stats();
  const [took, generations] = await timed(() => Promise.all(requests.map((each) => model.generate(...each))));
  const wrong = generations.filter(({ tokens }, i) => tokens.length !== requests[i][1].maxTokens).length;
  check(wrong === 0, `${wrong} answers are shorter than requested.`);
  const { tokens, steps, graphs } = model.stats();
  const decoded = tokens.decoded - before.tokens.decoded;
  const answered = requests.reduce((sum, [, { maxTokens }]) => sum + maxTokens, 0);
  const count = { prefill: steps.prefill - before.steps.prefill, decode: steps.decode - before.steps.decode };
  note(
    `${requests.length} requests at once, ${rowsOfLarge} rows: ${Math.round((1000 * answered) / took)} tokens/s answered beside ` +
      `${Math.round((1000 * (tokens.prefilled - before.tokens.prefilled)) / took)} tokens/s of prompts; ${(decoded / count.decode).toFixed(1)} rows a step.`,
  );
  note(
    `${count.prefill} steps with prompts, ${count.decode} without; CUDA graphs: ${graphs.captured} captured, ${graphs.replayed} replayed, ${graphs.refused} refused.`,
  );
  check(graphs.refused === 0, `The driver refused to capture ${graphs.refused} shapes.`);
  check(
    graphs.captured <= 50,
    `${graphs.captured} graphs were captured, more than 50: traffic meets new shapes again and again.`,
  );
}

async function captureBeside(context) {
  const { keep, quick, note, check } = context;
  const [file, engine] = await encoderEngine(context);
  const cpu = await keep(InferenceSession.create(file, { device: 'cpu' }));
  const all = Array.from({ length: 24 }, (_, i) => encoderFeeds(1 + (i % 3), 9 + 7 * i));
  const expected = [];
  for (const feeds of all) expected.push(await cpu.run(feeds));
  const capturing = await keep(InferenceSession.create(engine, { cudaGraph: true }));
  let isOver = false;
  let opened = 0;
  const linearEngine = await buildEngine(linear, { precision: 'fp32', shapes: linearShapes, cache: false });
  const allocate = async () => {
    while (!isOver) {
      const session = await InferenceSession.create(linearEngine, { preferredOutputLocation: 'cuda' });
      const outputs = await Promise.all([1, 16, 5].map((rows) => session.run(rowsOf(rows))));
      for (const { y } of outputs) y.dispose();
      await session.dispose();
      opened++;
    }
  };
  const capture = async () => {
    // Only eight shapes keep their graphs, so in each round each of the 24 shapes is captured anew.
    for (let round = 0; round < (quick ? 2 : 20); round++) {
      for (const [i, feeds] of all.entries()) {
        for (let run = 0; run < 3; run++) {
          requireAgreement(await capturing.run(feeds), expected[i], tolerance.fp32);
        }
      }
    }
    isOver = true;
  };
  await Promise.all([allocate(), capture()]);
  const { captured, replayed, refused } = capturing.stats().graphs;
  note(
    `${opened} sessions came and went; CUDA graphs beside them: ${captured} captured, ${replayed} replayed, ${refused} refused.`,
  );
  check(opened > 0, 'No session allocated meanwhile.');
  check(refused === 0, `${refused} captures were refused.`);
  const capturesItself = capturing.runtime.name === 'tensorrt-rtx';
  check(
    capturesItself || captured >= all.length,
    `Only ${captured} graphs of ${all.length} shapes were captured.`,
  );
}

// ---- the list ------------------------------------------------------------------------------------------------------

export const steps = [
  {
    name: 'builder',
    title: 'The builder, by its path alone',
    proves:
      "TensorRT is opened by its path, its builder finds its kernels' libraries without LD_LIBRARY_PATH, and the driver accepts those kernels.",
    failure:
      "Nothing can be compiled here. If a library isn't found: the ones beside libnvinfer are not opened by path. If PTX or a kernel image is refused: the driver is older than TensorRT's CUDA; take a newer driver, or a TensorRT for an older CUDA. The steps after this one look for libraries in TensorRT's folder.",
    most: 90,
    least: 0,
    run: findBuilder,
  },
  {
    name: 'smallest',
    title: 'The smallest engine',
    proves:
      "A plan that was compiled here is saved, loaded and run, and a matrix product has the CPU's values in FP32 and FP16.",
    failure:
      'The binding, memory copies or streams are wrong, or this TensorRT lacks kernels: nothing below can be trusted. The error says whether compiling, loading or running failed.',
    most: 60,
    least: 20,
    run: runSmallest,
  },
  {
    name: 'attention',
    title: 'Caches in the plan',
    proves:
      "In a decoder's plan, each cache's output is written to its input's memory, and no layer only copies a cache.",
    failure:
      "Without an alias, this TensorRT writes to other memory, and decoders can't run in place. If a cache is copied, results are right, but each step takes longer with a larger capacity.",
    most: 75,
    least: 20,
    run: readPlans,
  },
  {
    name: 'two-steps',
    title: 'Two steps beside the CPU',
    proves:
      "The logits after a prompt, and after one more token, equal the CPU's: masks, positions, cache writes and FP16 are right.",
    failure:
      'Wrong after the prompt: attention or its mask. Wrong after the next token only: the cache is written or read in the wrong place. Wrong in FP16 only: a range or a kernel that sums in FP16.',
    most: 75,
    least: 20,
    run: runTwoSteps,
  },
  {
    name: 'poison',
    title: 'A row that held NaN',
    proves:
      'A request whose logits are not numbers fails with a code; requests beside it, and later ones in its row, are answered as usual.',
    failure:
      "A fused kernel multiplies values beyond a row's length by zero, and NaN stays NaN: rows must be cleared when a request fails. One bad request would spoil a row until the process ends.",
    most: 60,
    least: 15,
    run: poisonRow,
  },
  {
    name: 'generation',
    title: "PyTorch's answers",
    proves:
      "Nine decoders, as exporters write them, give PyTorch's tokens and logits: grouped queries, windows, int4, norms of queries.",
    failure: 'The row names the decoder and its error; the decoders that pass narrow down the cause.',
    most: 150,
    least: 40,
    run: answerFixtures,
  },
  {
    name: 'capacity',
    title: 'A billion parameters: milliseconds a step by capacity',
    proves:
      'A plan of 2 GB builds, loads and runs; a step takes as long as reading its weights and tokens, whatever the capacity.',
    failure:
      "If steps with 64 tokens get slower with capacity, they read or copy the whole row: look at the kernels in step 3. If GB/s are far below the memory's bandwidth: kernels are not fused, or launches dominate (step 8).",
    most: 240,
    least: 60,
    run: measureCapacities,
  },
  {
    name: 'graphs',
    title: 'CUDA graphs on and off',
    proves: 'Steps are captured and replayed and give the same tokens. Shows how much faster replaying is.',
    failure:
      'Refused: something in a step of this TensorRT cannot be captured (memory from the driver, synchronisation). Other tokens: a graph replays an address or a length that has changed.',
    most: 60,
    least: 25,
    run: compareGraphs,
  },
  {
    name: 'new-shape',
    title: 'What a new shape costs',
    proves:
      "The values of every run are right. Shows how long a shape's first run takes, its second, which is captured, and later ones.",
    failure:
      'If values are wrong from the second run on, a graph was captured too early or for another shape.',
    most: 60,
    least: 20,
    run: measureNewShapes,
  },
  {
    name: 'throughput',
    title: 'Requests of random lengths',
    proves:
      'Rows run together whatever their lengths, all answers are whole, and steady traffic stops meeting new shapes.',
    failure:
      'Many captures: graphs are keyed by lengths or addresses that change. Step 9 shows the cost of each.',
    most: 60,
    least: 20,
    run: answerRandomRequests,
  },
  {
    name: 'beside',
    title: 'Sessions that allocate while another captures',
    proves: 'Sessions that come, allocate and go do not disturb a capture on another thread.',
    failure:
      "If a capture is refused, or the driver reports an error about capturing: memory is allocated or freed while another thread's capture forbids it.",
    most: 60,
    least: 15,
    run: captureBeside,
  },
];
