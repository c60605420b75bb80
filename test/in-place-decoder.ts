import { Tensor } from 'node-tensorrt';
import { expect } from 'vitest';
import type { LoadedSession } from '../dist/execution/loaded-session.js';
import type { DecoderGraph } from '../lib/base/decoder-graph.js';
import type { DecoderAnswers } from './decoder-fixture.js';

/**
 * Runs a graph with in-place caches as the decode loop does: prompts one row at a time, in chunks, then all rows
 * together, each with its own length. Expects PyTorch's tokens, and logits within `tolerance`.
 *
 * @returns the largest difference of a logit
 */
export async function expectAnswers(
  session: LoadedSession,
  graph: DecoderGraph,
  { suppressed, cases }: DecoderAnswers,
  { chunk = 48, tolerance = 1e-4, capacity = 256, gap = 1e-4, empty = Number.NaN } = {},
): Promise<number> {
  const decoder = new InPlaceDecoder(session, graph, cases.length, { capacity, empty });
  let worst = 0;
  const compare = (logits: Float32Array, expected: readonly number[]) => {
    const difference = expected.reduce(
      (largest, value, i) => Math.max(largest, Math.abs(value - logits[i]!)),
      0,
    );
    worst = Math.max(worst, difference);
    expect(difference).toBeLessThan(tolerance);
  };
  const logits = new Map<number, Float32Array>();
  for (const [row, { prompt }] of cases.entries()) {
    for (let start = 0; start < prompt.length; start += chunk) {
      const [last] = await decoder.step([row], prompt.slice(start, start + chunk));
      logits.set(row, last!);
    }
  }
  const steps = cases[0]!.greedy.length;
  for (let step = 0; step < steps; step++) {
    for (const [row, { greedy, gaps, firstLogits, lastLogits }] of cases.entries()) {
      const now = logits.get(row)!;
      if (step === 0) compare(now, firstLogits);
      if (step === steps - 1) compare(now, lastLogits);
      // If the two best are this close, either is right.
      if (gaps[step]! > gap) expect(best(now, suppressed)).toBe(greedy[step]);
    }
    const rows = cases.map((_, row) => row);
    const next = await decoder.step(
      rows,
      cases.map(({ greedy }) => greedy[step]!),
    );
    for (const row of rows) logits.set(row, next[row]!);
  }
  return worst;
}

function best(logits: Float32Array, suppressed: readonly number[]): number {
  let token = -1;
  for (const [candidate, logit] of logits.entries()) {
    if (!suppressed.includes(candidate) && (token < 0 || logit > logits[token]!)) token = candidate;
  }
  return token;
}

class InPlaceDecoder {
  readonly #session: LoadedSession;
  readonly #graph: DecoderGraph;
  /**
   * The caches of all rows, by input. Elements that no step has written are `empty`: a NaN shows that they were read.
   */
  readonly #caches: Map<
    string,
    { dims: number[]; type: 'float32' | 'float16'; data: Float32Array | Uint16Array }
  >;
  readonly #lengths: number[];

  constructor(
    session: LoadedSession,
    graph: DecoderGraph,
    rows: number,
    { capacity, empty }: { capacity: number; empty: number },
  ) {
    this.#session = session;
    this.#graph = graph;
    this.#lengths = new Array<number>(rows).fill(0);
    this.#caches = new Map(
      graph.caches.map(({ input }) => {
        const { shape, type } = session.inputMetadata.find(({ name }) => name === input)!;
        const dims = [
          rows,
          shape[1] as number,
          typeof shape[2] === 'number' ? shape[2] : capacity,
          shape[3] as number,
        ];
        const size = dims.reduce((product, dim) => product * dim, 1);
        const data =
          type === 'float32'
            ? new Float32Array(size).fill(empty)
            : new Uint16Array(size).fill(empty === 0 ? 0 : 0x7e00);
        return [input, { dims, type: type as 'float32' | 'float16', data }];
      }),
    );
  }

  /** Gives all `tokens` to one row, or one token to each of several. Returns the logits of each row's last position. */
  async step(rows: readonly number[], tokens: readonly number[]): Promise<Float32Array[]> {
    const count = tokens.length / rows.length;
    const pasts = rows.map((row) => this.#lengths[row]!);
    const positions = pasts.flatMap((past) => Array.from({ length: count }, (_, i) => past + i));
    const feeds: Record<string, Tensor> = {};
    for (const [name, role] of Object.entries(this.#graph.inputs)) {
      const totals = pasts.map((past) => past + count);
      const whole = {
        input_ids: [tokens, [rows.length, count]],
        position_ids: [positions, [rows.length, count]],
        past_lengths: [pasts, [rows.length]],
        total_lengths: [totals, [rows.length]],
        last_indices: [totals.map((total) => total - 1), [rows.length]],
        longest: [[Math.max(...totals)], []],
        logits_index: [[count - 1], []],
      } as const;
      if (role === 'attention_mask') throw new Error('a graph in place has no attention mask');
      const [values, dims] = whole[role];
      const type = this.#session.inputMetadata.find((input) => input.name === name)!.type;
      const data = type === 'int64' ? BigInt64Array.from(values, BigInt) : Int32Array.from(values);
      feeds[name] = new Tensor(type, data, dims);
    }
    for (const [name, { dims, type, data }] of this.#caches) {
      const size = data.length / dims[0]!;
      const part = data.slice(0, rows.length * size);
      for (const [i, row] of rows.entries()) part.set(data.subarray(row * size, (row + 1) * size), i * size);
      feeds[name] = new Tensor(type, part, [rows.length, ...dims.slice(1)]);
    }
    const results = await this.#session.run(feeds);
    for (const { input, output } of this.#graph.caches) {
      const { data, dims } = this.#caches.get(input)!;
      const size = data.length / dims[0]!;
      const updated = results[output]!.data as Float32Array | Uint16Array;
      for (const [i, row] of rows.entries()) {
        data.set(updated.subarray(i * size, (i + 1) * size), row * size);
      }
    }
    for (const row of rows) this.#lengths[row]! += count;
    const logits = results[this.#graph.logits]!;
    const vocabulary = logits.dims.at(-1)!;
    const perRow = logits.size / rows.length;
    return rows.map((_, i) =>
      (logits.data as Float32Array).slice((i + 1) * perRow - vocabulary, (i + 1) * perRow),
    );
  }
}
