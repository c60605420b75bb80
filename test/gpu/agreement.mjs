// How close results of a GPU must be to the CPU's, and which decoders are tried: for the suites here and for
// scripts/gpu-first-run, which has no vitest.

/** FP32 on a GPU sums in another order than the CPU does; TF32 is off. FP16 rounds factors and every intermediate value. */
export const tolerance = /** @type {const} */ ({
  fp32: { cosine: 0.99999, relative: 1e-3 },
  fp16: { cosine: 0.999, relative: 5e-2 },
});

/**
 * Decoders of test/fixtures/decoders and the precisions to try them in, the most telling first: grouped queries, windows,
 * int4, every head its own, one key/value head, normalised queries, the cache's own operator.
 */
export const decoders = /** @type {const} */ ([
  ['llama/optimum', 'fp32'],
  ['llama/optimum', 'fp16'],
  ['qwen2-window/optimum', 'fp32'],
  ['llama3/genai', 'fp16'],
  ['llama-int4/genai', 'fp32'],
  ['gemma3/optimum', 'fp32'],
  ['gpt2/optimum', 'fp32'],
  ['qwen3/optimum', 'fp32'],
  ['llama/tensor-scatter', 'fp32'],
]);

/** What logits of a standard deviation of 2 may differ by from PyTorch's on a CPU. */
export const logitTolerance = /** @type {const} */ ({ fp32: 0.002, fp16: 0.1 });

/**
 * Cosine of the angle between two tensors (1 for zeros), and their largest difference over the largest magnitude expected.
 *
 * @param {import('node-tensorrt').TensorLike} actual
 * @param {import('node-tensorrt').TensorLike} expected
 */
export function agreement(actual, expected) {
  const a = Array.from(/** @type {ArrayLike<number>} */ (/** @type {unknown} */ (actual.data)), Number);
  const b = Array.from(/** @type {ArrayLike<number>} */ (/** @type {unknown} */ (expected.data)), Number);
  if (a.length !== b.length) throw new Error(`${a.length} elements where ${b.length} were expected`);
  // Zeros have no direction: ReLU can leave nothing else.
  if ([...a, ...b].every((value) => value === 0)) return { cosine: 1, relative: 0 };
  let dot = 0;
  let aa = 0;
  let bb = 0;
  let difference = 0;
  let largest = 0;
  for (const [i, value] of a.entries()) {
    const other = b[i] ?? Number.NaN;
    dot += value * other;
    aa += value ** 2;
    bb += other ** 2;
    difference = Math.max(difference, Math.abs(value - other));
    largest = Math.max(largest, Math.abs(other));
  }
  return { cosine: dot / Math.sqrt(aa * bb), relative: difference / largest };
}

/**
 * Throws, with both numbers, unless every output agrees with the CPU's. @returns the largest relative difference
 *
 * @param {Readonly<Record<string, import('node-tensorrt').TensorLike>>} actual
 * @param {Readonly<Record<string, import('node-tensorrt').TensorLike>>} expected
 * @param {{ cosine: number, relative: number }} tolerance
 */
export function requireAgreement(actual, expected, { cosine, relative }) {
  let largest = 0;
  for (const [name, tensor] of Object.entries(expected)) {
    const found = actual[name];
    if (found?.dims.join() !== tensor.dims.join()) {
      throw new Error(`${name} has dims [${found?.dims}] where [${tensor.dims}] were expected`);
    }
    const measured = agreement(found, tensor);
    // Written so that NaN fails.
    if (!(measured.cosine >= cosine && measured.relative <= relative)) {
      throw new Error(`${name}: cosine ${measured.cosine}, largest relative difference ${measured.relative}`);
    }
    largest = Math.max(largest, measured.relative);
  }
  return largest;
}

/**
 * Elements in [-1, 1): the same every time.
 *
 * @param {number} length
 */
export function randomElements(length, seed = 1) {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
    return state / 2 ** 31 - 1;
  });
}
