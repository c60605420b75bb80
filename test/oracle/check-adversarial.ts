import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { InferenceSession, Tensor } from 'node-tensorrt';
import { castToFloat16, measureRanges, writeModel } from 'node-tensorrt/onnx';
import { adversarialDims, adversarialGraph, randomNumbers } from './adversarial-graphs.js';
import { simulateEachFloat16 } from './simulate-float16.js';

export interface AdversarialResult {
  readonly seed: number;
  readonly output: string;
  /** Elements that are finite in float32 and not in simulated FP16. */
  readonly lost: number;
  /** Cosine between both; 1 where float32 gave zeros, or something that is not finite. */
  readonly cosine: number;
  /** Nodes in FP16. */
  readonly float16: number;
}

/** Runs random graphs in float32 and, cast by what calibration says, in simulated FP16. */
export async function checkAdversarial(first: number, count: number): Promise<AdversarialResult[]> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'adversarial-'));
  try {
    const results: AdversarialResult[] = [];
    const cases = await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const seed = first + i;
        const model = adversarialGraph(seed);
        const random = randomNumbers(seed + 1e6);
        const size = adversarialDims[0] * adversarialDims[1];
        // Some values are large in one sample alone.
        const feeds = [1, 1, 10].map((scale) => ({
          x: new Tensor(
            'float32',
            Float32Array.from({ length: size }, () => scale * (4 * random() - 2)),
            [...adversarialDims],
          ),
        }));
        const ranges = await measureRanges(model, { calibration: feeds });
        const { model: mixed, report } = castToFloat16(model, { ranges });
        const file = path.join(directory, `${seed}`);
        await writeModel(model, `${file}.fp32.onnx`);
        await writeModel(mixed, `${file}.fp16.onnx`);
        const float16 = Object.values(report.float16).reduce((sum, number) => sum + number, 0);
        return { seed, file, feeds, float16 };
      }),
    );
    const simulated = simulateEachFloat16(cases.map(({ file }) => `${file}.fp16.onnx`));
    for (const [i, { seed, file, feeds, float16 }] of cases.entries()) {
      await using exact = await InferenceSession.create(`${file}.fp32.onnx`);
      await using half = await InferenceSession.create(simulated[i]!);
      for (const feed of feeds) {
        const expected = await exact.run(feed);
        const actual = await half.run(feed);
        for (const output of ['y', 'z']) {
          const [a, b] = [expected, actual].map((outputs) => outputs[output]!.data as Float32Array);
          results.push({ seed, output, float16, ...compared(a!, b!) });
        }
      }
    }
    return results;
  } finally {
    await rm(directory, { recursive: true });
  }
}

function compared(expected: Float32Array, actual: Float32Array): { lost: number; cosine: number } {
  let [dot, a, b, lost] = [0, 0, 0, 0];
  // Scaled, for squares of float32's largest are beyond float64's precision of what else there is.
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  expected.forEach((value, i) => {
    if (!Number.isFinite(value)) return;
    if (!Number.isFinite(actual[i])) lost++;
    dot += (value / largest) * (actual[i]! / largest);
    a += (value / largest) ** 2;
    b += (actual[i]! / largest) ** 2;
  });
  return { lost, cosine: a === 0 || !Number.isFinite(largest) ? 1 : dot / Math.sqrt(a * b) };
}
