import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type Command, Option } from 'commander';
import { invalidArgValue, TensorRTError } from '../../base/errors.js';
import { checkProfiles, completeProfiles, type DeclaredInput, rangeOf } from '../../base/shapes.js';
import type { Dims } from '../../base/tensor-like.js';
import { version } from '../../base/version.js';
import { Engine } from '../../engine/engine.js';
import { isEngineFile } from '../../engine/engine-file.js';
import type { InputMetadata } from '../../execution/model-metadata.js';
import type { Tensor } from '../../execution/tensor.js';
import { InferenceSession } from '../../session/session.js';
import type { SessionOptions } from '../../session/session-options.js';
import { writeAtomically } from '../../system/files/atomic-file.js';
import {
  type BenchmarkResult,
  type BenchmarkTarget,
  benchmark,
  benchmarkWarnings,
  type PartTimes,
  parts,
  warmUp,
} from '../benchmark/benchmark.js';
import type { LatencyStatistics } from '../benchmark/latency-statistics.js';
import { mlperfLog, type Scenario } from '../benchmark/mlperf-log.js';
import { modelInputs } from '../benchmark/model-inputs.js';
import { OnnxRuntimePeer } from '../benchmark/onnxruntime-peer.js';
import { resetPeakMemory, residentMemory } from '../benchmark/resident-memory.js';
import { parseShapeFlag } from './build.js';
import {
  checkInputFlags,
  parseDevice,
  parseInputFlags,
  randomSeed,
  randomTensor,
  readInput,
  requireInputs,
} from './model-input.js';
import { bytes, print, progressLine, table, UsageError, withFlags } from './output.js';

interface BenchFlags {
  batch?: string;
  duration: string;
  warmup: string;
  shapes: string[];
  input: string[];
  device: string;
  precision?: string;
  threads?: string;
  concurrency: string;
  compare?: 'onnxruntime';
  json?: string;
  mlperf?: string;
  scenario?: Scenario;
}

/** Turns that two runtimes take within a measurement. */
const comparisonRounds = 10;

const collect = (value: string, all: string[]) => [...all, value];

/** `bench MODEL`: what trtexec reports, and the same of onnxruntime-node in the same minutes. */
export function addBenchCommand(program: Command): void {
  program
    .command('bench')
    .description('measure throughput, latency and memory, at one or more batch sizes')
    .argument('<model>', 'ONNX file, or engine file')
    .option(
      '--batch <sizes>',
      "batch sizes, such as 1,8,16; default: 1, the model's own, or what an engine is tuned for",
    )
    .option('--duration <seconds>', 'how long to measure each', '5')
    .option('--warmup <seconds>', 'how long to run before', '0.2')
    .option(
      '--shapes <name:shape>',
      'shape of an input, NAME:1x128; its batch dimension follows --batch; repeatable. Default: by the names of the dimensions',
      collect,
      [],
    )
    .option(
      '--input <name=source>',
      'an input: NAME=FILE.npy or NAME=random:1x3x224x224; default: random',
      collect,
      [],
    )
    .option('--device <device>', "'auto', 'cpu', 'cuda' or 'cuda:N'", 'auto')
    .option('--precision <precision>', 'types to compute in: as-exported, fp32, tf32, fp16, bf16')
    .option('--threads <count>', 'CPU threads for one query; default: one per physical core')
    .option('--concurrency <count>', 'queries in flight at a time', '1')
    .addOption(new Option('--compare <peer>', 'measure it too, in turns').choices(['onnxruntime']))
    .option('--json <file>', 'write the results as JSON')
    .option('--mlperf <file>', 'write an MLPerf log')
    .addOption(
      new Option('--scenario <scenario>', "MLPerf's: SingleStream (default) or Offline").choices([
        'SingleStream',
        'Offline',
      ]),
    )
    .action(bench);
}

/** One runtime's part of a report. */
interface Row {
  readonly name: string;
  readonly version: string;
  /** What executes the queries. */
  readonly runtime: { readonly name: string; readonly version: string };
  readonly device: string;
  readonly loadMs: number;
  readonly samplesPerSecond: number;
  /**
   * Physical memory that came with the session and its first queries, at most; bytes. With the first session come the
   * runtime's libraries, with a build all that it takes. Absent where the system doesn't say, and for a peer, which
   * shares the libraries.
   */
  readonly hostBytes?: number;
  /** The session's memory on the GPU: weights, activations, inputs and outputs; bytes. */
  readonly deviceBytes?: number;
  readonly result: BenchmarkResult;
  readonly warnings: readonly string[];
}

interface BatchReport {
  readonly batch: number;
  readonly inputs: readonly { readonly name: string; readonly type: string; readonly dims: Dims }[];
  readonly why: string;
  readonly rows: readonly Row[];
  /** Median latency, ours over the peer's: below 1, ours is faster. */
  readonly ratioOfMedians?: number;
}

interface Contestant
  extends BenchmarkTarget,
    Pick<Row, 'name' | 'version' | 'runtime' | 'loadMs' | 'hostBytes' | 'deviceBytes'> {}

type Settings = ReturnType<typeof readFlags>;

function readFlags(flags: BenchFlags) {
  const scenario = flags.scenario ?? 'SingleStream';
  const batches = flags.batch === undefined ? [undefined] : parseBatches(flags.batch);
  const concurrency = parseCount('--concurrency', flags.concurrency);
  checkInputFlags(flags.input);
  if (flags.scenario !== undefined && flags.mlperf === undefined) {
    throw new UsageError('--scenario is about the log of --mlperf FILE.');
  }
  if (flags.mlperf !== undefined && batches.length > 1) {
    throw new UsageError('An MLPerf log holds one run: give --batch one size.');
  }
  if (
    flags.mlperf !== undefined &&
    scenario === 'SingleStream' &&
    ((batches[0] ?? 1) > 1 || concurrency > 1)
  ) {
    throw new UsageError('SingleStream is one sample at a time: --batch 1 and --concurrency 1.');
  }
  return {
    scenario,
    batches,
    concurrency,
    durationMs: 1000 * parseSeconds('--duration', flags.duration),
    warmupMs: 1000 * parseSeconds('--warmup', flags.warmup),
    threads: flags.threads === undefined ? undefined : parseCount('--threads', flags.threads),
    device: parseDevice(flags.device),
    precision: flags.precision as SessionOptions['precision'],
    inputs: flags.input,
    shapes: new Map(flags.shapes.map(parseShape)),
  };
}

async function bench(model: string, flags: BenchFlags, command: Command): Promise<void> {
  const settings = readFlags(flags);
  const engine = isEngineFile(model) ? await Engine.load(model) : undefined;
  if (engine && flags.compare)
    throw new UsageError('--compare needs an ONNX model: onnxruntime-node runs no engines.');
  const peer = flags.compare ? new OnnxRuntimePeer() : undefined;

  const progress = progressLine();
  const reports: BatchReport[] = [];
  const initStart = Date.now();
  let times = { initStart, initStop: initStart, runStart: initStart, runStop: initStart };
  try {
    for (const batch of settings.batches) {
      progress.show(`batch ${batch ?? 1}: ${settings.durationMs / 1000} s${peer ? ' each' : ''} …`);
      const { report, began } = await benchBatch(engine ?? model, batch, settings, peer);
      times = { ...times, ...began, runStop: Date.now() };
      reports.push(report);
    }
  } finally {
    progress.clear();
  }

  const sha256 = await fileHash(model);
  const machine = {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.availableParallelism(),
    node: process.version,
  };
  const { threads, concurrency, durationMs, warmupMs } = settings;
  const setup = { model, sha256, machine, threads, concurrency, durationMs, warmupMs };
  if (flags.json !== undefined)
    await writeText(flags.json, `${JSON.stringify({ ...setup, reports }, null, 2)}\n`);
  if (flags.mlperf !== undefined) {
    const [{ batch, rows }] = reports as [BatchReport];
    const [ours] = rows as [Row];
    const log = mlperfLog({
      scenario: settings.scenario,
      benchmark: path.parse(model).name,
      modelSha256: sha256,
      seed: randomSeed,
      threads,
      concurrency,
      batch,
      device: ours.device,
      runtime: ours.runtime,
      version: ours.version,
      result: ours.result,
      times,
    });
    await writeText(flags.mlperf, log);
  }

  print(`${path.basename(model)}: ${machine.cpu}, ${machine.cores} cores, Node.js ${process.version}`);
  for (const report of reports) printReport(report, command);
}

async function benchBatch(
  model: string | Engine,
  batch: number | undefined,
  settings: Settings,
  peer: OnnxRuntimePeer | undefined,
): Promise<{ report: BatchReport; began: { initStop: number; runStart: number } }> {
  const { device, threads, concurrency, precision, durationMs, warmupMs } = settings;
  const inputs = await makeInputs(await inputsOf(model), batch, settings, tunedShapes(model));
  const loading = watchLoading();
  const session = await InferenceSession.create(model, {
    device,
    concurrency,
    ...(threads === undefined ? {} : { threads }),
    ...(precision === undefined ? {} : { precision }),
    // What is compiled for a GPU is compiled for these shapes, and no others.
    ...(model instanceof Engine ? {} : { shapes: inputs.dynamic }),
  });
  const loadMs = loading.milliseconds();
  const disposables: { dispose(): Promise<void> }[] = [session];
  try {
    const initStop = Date.now();
    const target: BenchmarkTarget = {
      async run() {
        let times: PartTimes = {};
        await session.run(inputs.feeds, {
          onTiming(timing) {
            times = timing;
          },
        });
        return times;
      },
    };
    await warmUp(target, warmupMs, concurrency);
    const hostBytes = loading.peakBytes();
    const { memory } = session.stats();
    const contestants: Contestant[] = [
      {
        name: 'node-tensorrt',
        version,
        runtime: session.runtime,
        loadMs,
        ...(hostBytes === undefined ? {} : { hostBytes }),
        ...(memory ? { deviceBytes: memory.weights + memory.activations + memory.io } : {}),
        run: target.run,
      },
    ];
    if (peer) {
      const { name, version } = peer;
      const began = performance.now();
      const { run, dispose } = await peer.createSession(model as string, inputs.feeds, {
        device: session.device,
        threads,
      });
      disposables.push({ dispose });
      const runtime = { name: 'onnxruntime', version };
      contestants.push({ name, version, runtime, loadMs: performance.now() - began, run });
      await warmUp({ run }, warmupMs, concurrency);
    }
    const runStart = Date.now();
    const rounds = peer ? comparisonRounds : 1;
    const results = await benchmark(contestants, { durationMs, concurrency, rounds });
    const rows = contestants.map(({ run, ...contestant }, i): Row => {
      const result = results[i]!;
      return {
        ...contestant,
        device: session.device,
        samplesPerSecond: result.queriesPerSecond * inputs.batch,
        result,
        warnings: benchmarkWarnings(result, session.device !== 'cpu'),
      };
    });
    const medians = rows.map(({ result }) => result.latency.median);
    return {
      report: {
        batch: inputs.batch,
        inputs: Object.entries(inputs.feeds).map(([name, { type, dims }]) => ({ name, type, dims })),
        why: session.why,
        rows,
        ...(peer ? { ratioOfMedians: medians[0]! / medians[1]! } : {}),
      },
      began: { initStop, runStart },
    };
  } finally {
    for (const each of disposables.toReversed()) await each.dispose();
  }
}

/** The time and the memory that come with a session; no memory where the system doesn't say. */
function watchLoading() {
  const canReset = resetPeakMemory();
  const before = residentMemory().now;
  const began = performance.now();
  return {
    milliseconds: () => performance.now() - began,
    peakBytes: () => (canReset ? residentMemory().peak - before : undefined),
  };
}

interface Inputs {
  /** Samples in a query. */
  readonly batch: number;
  /** Shapes of the inputs that have dynamic dimensions. */
  readonly dynamic: Readonly<Record<string, Dims>>;
  readonly feeds: Readonly<Record<string, Tensor>>;
}

async function inputsOf(model: string | Engine): Promise<readonly DeclaredInput[]> {
  if (typeof model === 'string') return modelInputs(model);
  return model.inputs.map(({ name, type, dims }) => ({ name, type: type ?? undefined, shape: dims }));
}

/** The shapes that an engine is tuned for; of a model there are none yet. */
function tunedShapes(model: string | Engine): ReadonlyMap<string, Dims> {
  if (typeof model === 'string') return new Map();
  return new Map(
    model.inputs.flatMap(({ name, profiles: [profile] }) => (profile ? [[name, profile.opt] as const] : [])),
  );
}

/** Inputs of the shapes that flags, batch size and the names of dimensions ask for. */
async function makeInputs(
  declared: readonly DeclaredInput[],
  wanted: number | undefined,
  { inputs: flags, shapes }: Settings,
  tuned: ReadonlyMap<string, Dims>,
): Promise<Inputs> {
  const names = declared.map(({ name }) => name);
  const sources = parseInputFlags(flags, names);
  requireInputs('--shapes', shapes.keys(), names);
  const given = new Map<string, Tensor>();
  for (const input of declared) {
    const source = sources.get(input.name);
    if (source !== undefined) given.set(input.name, await readInput(tensorInput(input), source));
  }
  const dims = new Map([
    ...tuned,
    ...shapes,
    ...[...given].map(([name, tensor]) => [name, tensor.dims] as const),
  ]);
  const { batch, profile } = blamingInputs(given, names, () => batchedShapes(declared, wanted, dims));
  const feeds: Record<string, Tensor> = {};
  for (const input of declared) {
    const { name, type } = tensorInput(input);
    const wantedDims = profile.get(name)!;
    const tensor = given.get(name) ?? randomTensor(type, wantedDims);
    if (tensor.dims.join() !== wantedDims.join()) {
      throw invalidArgValue(
        '--input',
        `gives '${name}' dims [${tensor.dims}], where --batch asks for [${wantedDims}].`,
      );
    }
    feeds[name] = tensor;
  }
  const dynamic = declared.filter(({ shape }) => shape.some(isDynamic));
  return {
    batch,
    feeds,
    dynamic: Object.fromEntries(dynamic.map(({ name }) => [name, profile.get(name)!])),
  };
}

/** What `work` says of the shapes of given inputs, it says of the inputs: `--shapes` did not give them. */
function blamingInputs<T>(given: ReadonlyMap<string, Tensor>, names: readonly string[], work: () => T): T {
  try {
    return work();
  } catch (error) {
    const [before, ...mentions] = (error as Error).message.split('options.shapes.');
    const blamed = mentions.map((text) => {
      const [name] = names.filter((each) => text.startsWith(each)).sort((a, b) => b.length - a.length);
      if (name === undefined || !given.has(name)) return `options.shapes.${text}`;
      return `feeds['${name}']${text.slice(name.length).replace(/^\.(?:min|opt|max)\b/, '')}`;
    });
    (error as Error).message = [before, ...blamed].join('');
    throw error;
  }
}

function tensorInput({ name, type, shape }: DeclaredInput): InputMetadata {
  if (type) return { name, isTensor: true, type, shape };
  throw new TensorRTError('ERR_MODEL_UNSUPPORTED', `The input "${name}" is no tensor of a type known here.`);
}

/** A name, or -1. */
const isDynamic = (size: number | string) => typeof size === 'string' || size < 0;

/**
 * Every input's shape at a batch size. The batch dimension is the one that leads, by its name or first: wherever that
 * name stands, the size does. A model without a dynamic one has the batch that all its inputs lead with.
 */
export function batchedShapes(
  inputs: readonly DeclaredInput[],
  wanted: number | undefined,
  given: ReadonlyMap<string, Dims>,
): { batch: number; profile: Map<string, Dims> } {
  const leading = inputs
    .filter(({ shape }) => shape.length > 0)
    .map(({ name, shape }) => ({ name, size: shape[0]! }));
  const dynamic = leading.filter(({ size }) => isDynamic(size));
  const led = dynamic.find(({ size }) => /batch|^[nb]$/i.test(String(size))) ?? dynamic[0];
  const ranges = Object.fromEntries(
    [...given].map(([name, dims]) => [name, { min: dims, opt: dims, max: dims }]),
  );
  checkProfiles([ranges], inputs);
  const [complete = {}] = completeProfiles([ranges], inputs);
  const shapeOf = ({ name, shape }: DeclaredInput) => rangeOf(complete, name)?.opt ?? (shape as Dims);

  if (!led) {
    const sizes = new Set(leading.map(({ size }) => size as number));
    const batch = sizes.size === 1 ? [...sizes][0]! : 1;
    if (wanted !== undefined && wanted !== batch) {
      throw invalidArgValue('--batch', `is ${wanted}, but the model's is fixed at ${batch}.`);
    }
    return { batch, profile: new Map(inputs.map((input) => [input.name, shapeOf(input)])) };
  }
  const batch = wanted ?? given.get(led.name)?.[0] ?? 1;
  const isBatch = (size: number | string, i: number) =>
    size === led.size && ((size !== '' && size !== -1) || i === 0);
  const profile = inputs.map((input): [string, Dims] => [
    input.name,
    shapeOf(input).map((size, i) => (isBatch(input.shape[i]!, i) ? batch : size)),
  ]);
  return { batch, profile: new Map(profile) };
}

// ---- the report ----

const partNames = {
  queueMs: 'queue',
  enqueueMs: 'enqueue',
  h2dMs: 'H2D',
  computeMs: 'compute',
  d2hMs: 'D2H',
};

function printReport({ batch, rows, ratioOfMedians, why }: BatchReport, command: Command): void {
  print('');
  const [ours] = rows as [Row];
  print(`batch ${batch}, on ${ours.device} (${withFlags(why, command)})`);
  print(
    table(
      ['', 'queries/s', 'samples/s', 'queries', 'host memory', 'GPU memory', 'loaded in'],
      rows.map(({ name, runtime, result, samplesPerSecond, hostBytes, deviceBytes, loadMs }) => [
        `${name} (${runtime.name} ${runtime.version})`,
        figure(result.queriesPerSecond),
        figure(samplesPerSecond),
        String(result.queries),
        hostBytes === undefined ? '' : bytes(hostBytes),
        deviceBytes === undefined ? '' : bytes(deviceBytes),
        `${(loadMs / 1000).toFixed(2)} s`,
      ]),
    ),
  );
  print('');
  const line = (name: string, what: string, { coefficientOfVariation, ...s }: LatencyStatistics) => [
    name,
    what,
    ...[s.min, s.mean, s.median, s.p90, s.p95, s.p99, s.max].map((ms) => ms.toPrecision(4)),
    `${(100 * coefficientOfVariation).toFixed(1)} %`,
  ];
  print(
    table(
      ['', 'ms', 'min', 'mean', 'median', 'p90', 'p95', 'p99', 'max', 'variation'],
      rows.flatMap(({ name, result }) => [
        line(name, 'latency', result.latency),
        ...parts.flatMap((part) =>
          result.parts[part] ? [line('', partNames[part], result.parts[part])] : [],
        ),
      ]),
    ),
  );
  if (ratioOfMedians !== undefined)
    print(`\nratio of median latencies: ${ratioOfMedians.toFixed(3)} (below 1, node-tensorrt is faster)`);
  for (const { name, warnings } of rows)
    for (const warning of warnings) print(`warning: ${name}: ${warning}`);
}

const figure = (value: number) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

async function writeText(file: string, text: string): Promise<void> {
  await writeAtomically(file, [Buffer.from(text)], 'results');
}

/** Hexadecimal SHA-256. */
async function fileHash(file: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(file), hash);
  } catch (cause) {
    throw new TensorRTError('ERR_IO', `Could not read ${file}: ${(cause as Error).message}`, { cause });
  }
  return hash.digest('hex');
}

// ---- flags ----

function parseBatches(text: string): number[] {
  return text.split(',').map((size) => parseCount('--batch', size));
}

function parseCount(flag: string, text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text.trim())) return Number(text);
  throw new UsageError(`${flag} must be a whole number of at least 1, not '${text}'.`);
}

function parseSeconds(flag: string, text: string): number {
  const seconds = Number(text);
  if (text.trim() !== '' && Number.isFinite(seconds) && seconds >= 0) return seconds;
  throw new UsageError(`${flag} must be a number of seconds, not '${text}'.`);
}

/** `NAME:1x128`; the name may have colons. */
function parseShape(text: string): [name: string, dims: Dims] {
  const [name, dims] = parseShapeFlag(text);
  if (Array.isArray(dims)) return [name, dims as Dims];
  throw new UsageError(`--shapes must be NAME:SHAPE such as x:1x3x224x224, not '${text}'.`);
}
