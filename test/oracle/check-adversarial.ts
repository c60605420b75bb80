import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { InferenceSession, Tensor } from 'node-tensorrt';
import { castToFloat16, measureRanges, writeModel } from 'node-tensorrt/onnx';
import { adversarialDims, adversarialGraph, randomNumbers } from './adversarial-graphs.js';
import { runEachFloat64 } from './run-float64.js';
import { simulateEachFloat16 } from './simulate-float16.js';

export interface AdversarialResult {
  readonly seed: number;
  readonly output: string;
  /** Elements that are finite in float32 and not in simulated FP16. */
  readonly lost: number;
  /** Cosine between both; 1 where float32 gave zeros, or something that is not finite. */
  readonly cosine: number;
  /**
   * Whether float32 is an answer to compare with: its own cosine with float64 is 0.9995. Of (relu(c + 455) - 455) - c,
   * which is zero, float32 leaves nothing but its errors.
   */
  readonly determined: boolean;
  /** Nodes in FP16. */
  readonly float16: number;
}

const size = adversarialDims[0] * adversarialDims[1];

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
        await writeFile(
          `${file}.fp32.onnx.samples`,
          feeds.map(({ x }) => x.data as Float32Array),
        );
        const float16 = Object.values(report.float16).reduce((sum, number) => sum + number, 0);
        return { seed, file, feeds, float16 };
      }),
    );
    const simulated = simulateEachFloat16(cases.map(({ file }) => `${file}.fp16.onnx`));
    const precise = runEachFloat64(cases.map(({ file }) => `${file}.fp32.onnx`));
    for (const [i, { seed, file, feeds, float16 }] of cases.entries()) {
      const float64 = new Float64Array(new Uint8Array(await readFile(precise[i]!)).buffer);
      let at = 0;
      await using exact = await InferenceSession.create(`${file}.fp32.onnx`);
      await using half = await InferenceSession.create(simulated[i]!);
      for (const feed of feeds) {
        const expected = await exact.run(feed);
        const actual = await half.run(feed);
        for (const output of ['y', 'z']) {
          const [a, b] = [expected, actual].map((outputs) => outputs[output]!.data as Float32Array);
          const determined = compared(a!, float64.subarray(at, at + size)).cosine >= 0.9995;
          results.push({ seed, output, float16, determined, ...compared(a!, b!) });
          at += size;
        }
      }
    }
    return results;
  } finally {
    await rm(directory, { recursive: true });
  }
}

function compared(
  expected: Float32Array,
  actual: Float32Array | Float64Array,
): { lost: number; cosine: number } {
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
  if (a === 0 || !Number.isFinite(largest)) return { lost, cosine: 1 };
  return { lost, cosine: b === 0 ? 0 : dot / Math.sqrt(a * b) };
}
