import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { type GenerateOptions, type Generation, type InputMetadata, Tensor } from 'node-tensorrt';
import type { ModelProto } from 'node-tensorrt/onnx';
import { expect } from 'vitest';
import { loadOnCpu } from '../dist/execution/load-on-cpu.js';
import type { LoadedSession } from '../dist/execution/loaded-session.js';
import { writeBeside } from '../dist/onnx/format/write-beside.js';

const decoders = path.join(import.meta.dirname, 'fixtures/decoders');

/** PyTorch's results; test/fixtures/decoders/README.md explains how they were computed. */
export interface DecoderAnswers {
  /** End-of-sequence tokens, which were never chosen. */
  readonly suppressed: readonly number[];
  readonly cases: readonly DecoderCase[];
}

export interface DecoderCase {
  readonly prompt: readonly number[];
  readonly greedy: readonly number[];
  /** For each step, the difference between the best and the second-best logit. */
  readonly gaps: readonly number[];
  readonly firstLogits: readonly number[];
  readonly lastLogits: readonly number[];
}

/** All fixtures: WEIGHTS/EXPORT, such as 'llama/optimum'. */
export const decoderFixtures: readonly string[] = readdirSync(decoders)
  .filter((weights) => existsSync(path.join(decoders, weights, 'expected.json')))
  .flatMap((weights) =>
    readdirSync(path.join(decoders, weights), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `${weights}/${entry.name}`),
  );

/** A session on the CPU for a model that is written into `folder` and whose weights are in `where.directory`. */
export async function sessionBeside(
  model: ModelProto,
  folder: string,
  where: { directory?: string } = {},
): Promise<LoadedSession> {
  const { file, weights } = await writeBeside(model, folder, where);
  return loadOnCpu({ model: file, weights, threads: 1 });
}

/** `fixture` is WEIGHTS/EXPORT, such as 'llama/optimum'. */
export function decoderModel(fixture: string): string {
  return path.join(decoders, fixture, 'model.onnx');
}

export function decoderAnswers(fixture: string): DecoderAnswers {
  return JSON.parse(readFileSync(path.join(decoders, fixture, '../expected.json'), 'utf8'));
}

/** The options that PyTorch's answers were generated with: greedy, and tokens that end an answer are never chosen. */
export function asked({ greedy }: DecoderCase, stopTokens: readonly number[]): GenerateOptions {
  return { temperature: 0, maxTokens: greedy.length, minTokens: greedy.length, stopTokens };
}

/**
 * Compares tokens with PyTorch's. If PyTorch's two best logits are closer than `gap`, either is right, and the
 * comparison ends there.
 */
export function expectGreedy(
  tokens: readonly number[],
  { greedy, gaps }: Pick<DecoderCase, 'greedy' | 'gaps'>,
  gap = 1e-4,
): void {
  const differs = greedy.findIndex((token, i) => token !== tokens[i]);
  if (differs >= 0 && gaps[differs]! < gap) return;
  expect(tokens).toEqual(greedy);
}

/** Compares logits with PyTorch's. Log-probabilities over the whole vocabulary are logits minus a constant. */
export function expectLogits(
  { logprobs }: Generation,
  step: number,
  logits: readonly number[],
  suppressed: readonly number[],
  tolerance = 1e-4,
): void {
  const { top } = logprobs!.at(step)!;
  const likely = top.filter(({ token }) => !suppressed.includes(token));
  const offset = logits[likely[0]!.token]! - likely[0]!.logprob;
  const differences = likely.map(({ token, logprob }) => Math.abs(logits[token]! - logprob - offset));
  expect(likely.length).toBe(logits.length - suppressed.length);
  expect(Math.max(...differences)).toBeLessThan(tolerance);
}

/**
 * Yields the logits of each step's last position, float32 `[vocabulary]`: the whole prompt at once, then one token at a
 * time over the cache that the model returned. The tokens are PyTorch's, whatever the logits are.
 */
export async function* decode(
  session: LoadedSession,
  fixture: string,
  { prompt, greedy }: DecoderCase,
): AsyncGenerator<Float32Array> {
  const int64 = (values: readonly number[], dims: number[]) =>
    new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
  const capacity = session.inputNames.includes('write_indices') ? prompt.length + greedy.length : 0;
  let cache: Record<string, Tensor> = Object.fromEntries(
    session.inputMetadata
      .filter(({ name }) => isCache(name))
      .map((input) => {
        const dims = cacheDims(input, fixture, capacity);
        const values = new Float32Array(dims.reduce((product, dim) => product * dim, 1));
        return [input.name, new Tensor('float32', values, dims)];
      }),
  );
  let past = 0;
  for (let step = 0; step < greedy.length; step++) {
    const ids = step === 0 ? prompt : [greedy[step - 1]!];
    const total = past + ids.length;
    const feeds: Record<string, Tensor> = {
      input_ids: int64(ids, [1, ids.length]),
      attention_mask: int64(new Array(total).fill(1), [1, total]),
      position_ids: int64(
        ids.map((_, i) => past + i),
        [1, ids.length],
      ),
      write_indices: int64([past], [1]),
      nonpad_kv_seqlen: int64([total], [1]),
      ...cache,
    };
    const results = await session.run(
      Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]!])),
    );
    const { data, dims } = results.logits!;
    yield (data as Float32Array).subarray(-dims.at(-1)!);
    cache = Object.fromEntries(Object.keys(cache).map((name) => [name, results[presentName(name)]!]));
    past = total;
  }
}

const isCache = (name: string) => name.startsWith('past_key_values.') || name.includes('_cache.');

const presentName = (name: string) =>
  name.startsWith('past_') ? name.replace('past_key_values', 'present') : `updated_${name}`;

/** `[1, kvHeads, length, headDim]`, or `[1, length, kvHeads * headDim]`. */
function cacheDims({ shape }: InputMetadata, fixture: string, capacity: number): number[] {
  const lengthAxis = shape.length - 2;
  return shape.map((dim, axis) => {
    if (axis === 0) return 1;
    if (typeof dim === 'number') return dim;
    return axis === lengthAxis ? capacity : headDim(fixture);
  });
}

/** onnxruntime-genai's graphs only give the head's size a symbolic name. */
function headDim(fixture: string): number {
  const config = readFileSync(path.join(decoders, fixture, 'genai_config.json'), 'utf8');
  return JSON.parse(config).model.decoder.head_size;
}
