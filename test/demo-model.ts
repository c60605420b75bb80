import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { type InferenceSession, Tensor } from 'node-tensorrt';

/** The folder of the model that examples/demo-model/train.py trained. */
export const demoModel = path.join(import.meta.dirname, '../examples/demo-model');

const json = (file: string) => JSON.parse(readFileSync(file, 'utf8'));

export interface Completion {
  readonly prompt: string;
  readonly right: string;
  /** PyTorch's greedy answer. */
  readonly answer: string;
}

export interface Turn {
  readonly user: string;
  readonly right: string;
  /** PyTorch's greedy answer, after its own earlier ones. */
  readonly answer: string;
}

/** Held-out prompts, the right answers and PyTorch's answers, written by train.py. */
export const demoAnswers: {
  readonly sums: readonly Completion[];
  readonly sorting: readonly Completion[];
  readonly dialogues: readonly (readonly Turn[])[];
  /** Each prompt follows the file, up to an empty line. */
  readonly code: { readonly file: string; readonly completions: readonly Completion[] };
} = json(path.join(import.meta.dirname, 'fixtures/demo-model/expected.json'));

/**
 * Counts the `samples` that the exporter's own graph answers right by greedy generation: those where each token of the
 * right answer is the likeliest after the ones before it. All run at once; shorter rows are padded at their end.
 */
export async function countRight(session: InferenceSession, samples: readonly Completion[]): Promise<number> {
  const tokenizer = new Tokenizer(
    json(path.join(demoModel, 'tokenizer.json')),
    json(path.join(demoModel, 'tokenizer_config.json')),
  );
  const rows = samples.map(({ prompt, right }) => ({
    start: tokenizer.encode(prompt).ids.length,
    ids: tokenizer.encode(`${prompt}${right}</s>`).ids,
  }));
  const width = Math.max(...rows.map(({ ids }) => ids.length));
  const dims = [rows.length, width];
  const matrix = (value: (ids: readonly number[], column: number) => number) => {
    const values = rows.flatMap(({ ids }) =>
      Array.from({ length: width }, (_, column) => value(ids, column)),
    );
    return new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
  };
  const feeds: Record<string, Tensor> = {
    input_ids: matrix((ids, column) => ids[column] ?? 0),
    attention_mask: matrix((ids, column) => (column < ids.length ? 1 : 0)),
    position_ids: matrix((_, column) => column),
  };
  for (const { name, shape } of session.inputMetadata) {
    if (name.startsWith('past_key_values.')) {
      feeds[name] = new Tensor('float32', new Float32Array(0), [
        rows.length,
        Number(shape[1]),
        0,
        Number(shape[3]),
      ]);
    }
  }
  const { logits } = await session.run(feeds, ['logits']);
  const vocabulary = logits!.dims[2]!;
  const data = logits!.data as Float32Array;
  const best = (row: number, column: number) => {
    const offset = (row * width + column) * vocabulary;
    return argmax(data.subarray(offset, offset + vocabulary));
  };
  return rows.filter(({ start, ids }, row) =>
    ids.slice(start).every((token, i) => best(row, start + i - 1) === token),
  ).length;
}

function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
