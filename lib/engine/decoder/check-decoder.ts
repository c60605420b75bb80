import type { DecoderGraph, DecoderInputRole } from '../../base/decoder-graph.js';
import type { TensorRTError } from '../../base/errors.js';
import { uniformNumbers } from '../../base/random.js';
import { loadOnCpu } from '../../execution/load-on-cpu.js';
import type { LoadedSession } from '../../execution/loaded-session.js';
import { Tensor } from '../../execution/tensor.js';
import type { CacheTensor, Decoder } from '../../onnx/decoder/decoder.js';
import { numbers } from '../../onnx/decoder/tensor-numbers.js';
import type { WrittenModel } from '../../onnx/format/written-model.js';

export interface CheckRequest {
  /** The decoder as it was exported, run in 'copying' mode. */
  readonly original: { readonly model: WrittenModel; readonly decoder: Decoder };
  /** The rewritten decoder, which is updated 'in-place'. */
  readonly rewritten: { readonly model: WrittenModel; readonly graph: DecoderGraph };
  /** The most tokens that a row of the rewritten decoder can hold. */
  readonly maxLength: number;
  /**
   * Tokens of the longer prompt. More than a sliding window's length, so that an error in dropping old tokens shows.
   * Default 9.
   */
  readonly promptLength?: number;
}

/** The result of a comparison. */
export interface CheckVerdict {
  /** True if the logits agree within {@link tolerances}, or as well as the exported decoder agrees with itself. */
  readonly agree: boolean;
  /** The largest difference between two logits, relative to the largest logit (at least 1). */
  readonly difference: number;
  /** The reason why the rewritten graph couldn't be run. */
  readonly error?: string;
}

/**
 * The largest difference to allow, relative to the largest logit: sums in another order differ by this much. FP16 rounds
 * to 11 bits, and the errors add up over the layers.
 */
export const tolerances = { float32: 1e-4, float16: 3e-2, bfloat16: 0.2 } as const;

/**
 * A decoder that rounds activations to 8 bits (MatMulNBits with accuracy_level 4, which onnxruntime-genai's builder writes
 * for the CPU) differs from itself when it reads the same prompt in other chunks, because a last bit may decide how a number
 * is rounded. The rewritten one may differ by this many times as much, but not beyond `noisiest`.
 */
const ownDifferences = 4;
const noisiest = 0.2;

/**
 * Runs a decoder as it was exported and as it was rewritten on the CPU: two prompts of different lengths, each read in two
 * chunks, then two steps in which both rows decode together, and compares the logits of the last position after each.
 *
 * @throws (rejects) the errors of `loadOnCpu` and of runs
 */
export async function checkDecoder({
  original,
  rewritten,
  maxLength,
  promptLength = 9,
}: CheckRequest): Promise<CheckVerdict> {
  const { decoder } = original;
  const uniform = uniformNumbers(1);
  const vocabulary = decoder.vocabulary ?? 100;
  const tokens = (count: number) => Array.from({ length: count }, () => Math.floor(uniform() * vocabulary));
  const longer = Math.min(promptLength, maxLength - 2);
  const rows = [Math.max(1, Math.min(5, longer - 1)), longer].map((length) => {
    const half = Math.ceil(length / 2);
    return {
      chunks: [tokens(half), tokens(length - half)].filter(({ length }) => length > 0),
      steps: tokens(2),
    };
  });
  const capacity = Math.min(maxLength, longer + 2);
  const parts = rows.map(({ chunks, steps }) => [...chunks, ...steps.map((token) => [token])]);
  // One decoder runs after the other, so that the weights are in memory once.
  const inParts = await runExported(original, parts, capacity);
  let actual: Float32Array[];
  try {
    actual = await runRewritten(rewritten, decoder, rows, capacity);
  } catch (error) {
    const { code, message } = error as TensorRTError;
    if (!rewrittenErrors.has(code)) throw error;
    return { agree: false, difference: Number.POSITIVE_INFINITY, error: message };
  }
  const difference = largestDifference(actual, inParts.flat());
  if (difference <= tolerances[decoder.caches[0]!.type]) return { agree: true, difference };
  const inOne = parts.map((each) => [each.flat()]);
  const whole = await runExported(original, inOne, capacity);
  const own = largestDifference(
    whole.flat(),
    inParts.map((logits) => logits.at(-1)!),
  );
  return { agree: difference <= Math.min(ownDifferences * own, noisiest), difference };
}

/** Returns the exported decoder's logits after each part of each row. */
async function runExported(
  { model, decoder }: CheckRequest['original'],
  rows: readonly (readonly number[][])[],
  capacity: number,
): Promise<Float32Array[][]> {
  await using session = await loadWritten(model);
  const results: Float32Array[][] = [];
  for (const parts of rows) {
    const run =
      decoder.graph.mode === 'copying'
        ? new CopyingRun(session, decoder)
        : new InPlaceRun(session, decoder.graph, decoder.caches, capacity, 1);
    const logits: Float32Array[] = [];
    for (const tokens of parts) logits.push(await run.prefill(0, tokens));
    results.push(logits);
  }
  return results;
}

/** The codes with which ONNX Runtime refuses a graph. */
const rewrittenErrors = new Set(['ERR_MODEL_INVALID', 'ERR_MODEL_UNSUPPORTED', 'ERR_EXECUTION_FAILED']);

/** Returns each row's logits after its chunks, then after its steps. */
async function runRewritten(
  { model, graph }: CheckRequest['rewritten'],
  decoder: Decoder,
  rows: readonly { chunks: readonly number[][]; steps: readonly number[] }[],
  capacity: number,
): Promise<Float32Array[]> {
  await using session = await loadWritten(model);
  // Always of rank 4, whatever the exported cache's rank was.
  const caches = graph.caches.map(
    (cache, i): CacheTensor => ({ ...decoder.caches[i]!, ...cache, rank: 4, capacity: undefined }),
  );
  const run = new InPlaceRun(session, graph, caches, capacity, rows.length);
  const prompts: Float32Array[][] = [];
  for (const [row, { chunks }] of rows.entries()) {
    const logits: Float32Array[] = [];
    for (const chunk of chunks) logits.push(await run.prefill(row, chunk));
    prompts.push(logits);
  }
  const steps: Float32Array[][] = [];
  for (const step of [0, 1]) steps.push(await run.decode(rows.map((row) => row.steps[step]!)));
  return rows.flatMap((_, row) => [...prompts[row]!, ...steps.map((logits) => logits[row]!)]);
}

const loadWritten = ({ file, weights }: WrittenModel) => loadOnCpu({ model: file, weights });

/** A NaN wins. */
const larger = (a: number, b: number) => (b <= a ? a : b);

function largestDifference(actual: readonly Float32Array[], expected: readonly Float32Array[]): number {
  return actual.reduce((most, logits, i) => larger(most, relativeDifference(logits, expected[i]!)), 0);
}

function relativeDifference(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let scale = 1;
  expected.forEach((value, i) => {
    difference = larger(difference, Math.abs(actual[i]! - value));
    scale = Math.max(scale, Math.abs(value));
  });
  return difference / scale;
}

function feed(type: string, values: readonly number[], dims: readonly number[]): Tensor {
  return type === 'int32'
    ? new Tensor('int32', Int32Array.from(values), dims)
    : new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
}

/** The inputs of a step, by their roles. `pasts` holds each row's past length. */
function inputsOf(
  session: LoadedSession,
  graph: DecoderGraph,
  tokens: readonly number[],
  pasts: readonly number[],
): Record<string, Tensor> {
  const rows = pasts.length;
  const count = tokens.length / rows;
  const totals = pasts.map((past) => past + count);
  const longest = Math.max(...totals);
  const positions = pasts.flatMap((past) => Array.from({ length: count }, (_, i) => past + i));
  const mask = totals.flatMap((total) => Array.from({ length: longest }, (_, i) => (i < total ? 1 : 0)));
  const values: Record<DecoderInputRole, [values: readonly number[], dims: readonly number[]]> = {
    input_ids: [tokens, [rows, count]],
    position_ids: [positions, [rows, count]],
    attention_mask: [mask, [rows, longest]],
    past_lengths: [pasts, [rows]],
    total_lengths: [totals, [rows]],
    last_indices: [totals.map((total) => total - 1), [rows]],
    longest: [[longest], []],
    logits_index: [[count - 1], []],
  };
  return Object.fromEntries(
    Object.entries(graph.inputs).map(([name, role]) => {
      const { type, shape } = session.inputMetadata.find((input) => input.name === name)!;
      const [numbers, dims] = values[role];
      return [name, feed(type, numbers, role === 'longest' && shape.length === 1 ? [1] : dims)];
    }),
  );
}

/** Returns the logits of each row's last position. */
function lastLogits(logits: Tensor, rows: number): Float32Array[] {
  const vocabulary = logits.dims.at(-1)!;
  const values = numbers(logits);
  const perRow = values.length / rows;
  return Array.from({ length: rows }, (_, row) =>
    values.slice((row + 1) * perRow - vocabulary, (row + 1) * perRow),
  );
}

class CopyingRun {
  #past = 0;
  #cache: Record<string, Tensor>;

  constructor(
    readonly session: LoadedSession,
    readonly decoder: Decoder,
  ) {
    this.#cache = Object.fromEntries(decoder.caches.map((cache) => [cache.input, emptyCache(cache)]));
  }

  async prefill(_row: number, tokens: readonly number[]): Promise<Float32Array> {
    const { graph } = this.decoder;
    const results = await this.session.run({
      ...inputsOf(this.session, graph, tokens, [this.#past]),
      ...this.#cache,
    });
    this.#past += tokens.length;
    this.#cache = Object.fromEntries(graph.caches.map(({ input, output }) => [input, results[output]!]));
    return lastLogits(results[graph.logits]!, 1)[0]!;
  }
}

function emptyCache({ type, kvHeads, headDim }: CacheTensor): Tensor {
  return zeros(type, [1, kvHeads, 0, headDim]);
}

function zeros(type: CacheTensor['type'], dims: readonly number[]): Tensor {
  const size = dims.reduce((product, dim) => product * dim, 1);
  return new Tensor(type, type === 'float32' ? new Float32Array(size) : new Uint16Array(size), dims);
}

class InPlaceRun {
  readonly #session: LoadedSession;
  readonly #graph: DecoderGraph;
  readonly #caches: readonly CacheTensor[];
  readonly #capacity: number;
  readonly #pasts: number[];
  /** The inputs of each row by itself, because a prompt's chunk runs one row. */
  readonly #rows: Record<string, Tensor>[];

  constructor(
    session: LoadedSession,
    graph: DecoderGraph,
    caches: readonly CacheTensor[],
    capacity: number,
    rows: number,
  ) {
    this.#session = session;
    this.#graph = graph;
    this.#caches = caches;
    this.#capacity = capacity;
    this.#pasts = new Array(rows).fill(0);
    this.#rows = this.#pasts.map(() => this.#allocate(1));
  }

  #allocate(rows: number): Record<string, Tensor> {
    return Object.fromEntries(
      this.#caches.map(({ input, type, rank, kvHeads, headDim, capacity = this.#capacity }) => {
        const dims = rank === 4 ? [rows, kvHeads, capacity, headDim] : [rows, capacity, headDim];
        return [input, Tensor.allocate(type, dims)];
      }),
    );
  }

  async prefill(row: number, tokens: readonly number[]): Promise<Float32Array> {
    const [logits] = await this.#run(tokens, [this.#pasts[row]!], this.#rows[row]!);
    this.#pasts[row]! += tokens.length;
    return logits!;
  }

  /** Runs one token for each row. */
  async decode(tokens: readonly number[]): Promise<Float32Array[]> {
    const together = this.#allocate(this.#rows.length);
    const each = (copy: (whole: Uint8Array, part: Uint8Array) => void) => {
      for (const { input } of this.#caches) {
        const whole = bytes(together[input]!);
        const size = whole.length / this.#rows.length;
        this.#rows.forEach((row, i) => {
          copy(whole.subarray(i * size, (i + 1) * size), bytes(row[input]!));
        });
      }
    };
    each((whole, part) => whole.set(part));
    const logits = await this.#run(tokens, this.#pasts, together);
    each((whole, part) => part.set(whole));
    this.#pasts.forEach((past, row) => {
      this.#pasts[row] = past + 1;
    });
    return logits;
  }

  async #run(
    tokens: readonly number[],
    pasts: readonly number[],
    cache: Readonly<Record<string, Tensor>>,
  ): Promise<Float32Array[]> {
    const feeds = { ...inputsOf(this.#session, this.#graph, tokens, pasts), ...cache };
    const fetches = Object.fromEntries([
      [this.#graph.logits, null],
      ...this.#graph.caches.map(({ input, output }) => [output, cache[input]!]),
    ]);
    const results = await this.#session.run(feeds, fetches);
    return lastLogits(results[this.#graph.logits]!, pasts.length);
  }
}

function bytes({ data }: Tensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = data as Uint8Array;
  return new Uint8Array(buffer, byteOffset, byteLength);
}
