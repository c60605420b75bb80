import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { inspectSystem, type Tensor, type TensorLike } from 'node-tensorrt';
import { afterAll, describe } from 'vitest';

// These suites run on whatever GPU and TensorRT are here, and need nothing but this checkout's build, the packages that
// npm installs, and a TensorRT library: no Python, no network. Every number is compared with the CPU runtime's.

const system = await inspectSystem();
const usable = system.tensorrt.find(({ error }) => error === undefined);
const missing =
  system.gpus.length === 0
    ? (system.findings.find(({ works, what }) => !works && /GPU/.test(what))?.detail ?? 'there is no GPU')
    : usable
      ? undefined
      : 'there is no TensorRT library';
if (missing !== undefined) console.warn(`Skipped: what needs a GPU, for ${missing}`);
else {
  const [gpu] = system.gpus;
  console.warn(
    `On ${gpu!.name} (compute capability ${gpu!.computeCapability}), driver ${system.driver}, ` +
      `TensorRT (${usable!.flavour}) ${usable!.version}`,
  );
}

/** A suite that needs a GPU and a TensorRT library; skipped, and said so, where one is missing. */
export const describeOnGpu = describe.skipIf(missing !== undefined);

/** Compute capability of the first GPU as targets name it, such as `sm_90`. */
export const target = `sm_${system.gpus[0]?.computeCapability.replace('.', '')}`;

/** A folder for a suite's files. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'gpu-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  return folder;
}

export const fixture = (name: string) => path.join(import.meta.dirname, '../fixtures/session', name);

/**
 * FP32 on a GPU sums in another order than the CPU does, and may use TF32, which rounds factors to 11 bits as FP16
 * does. FP16 rounds every intermediate value too.
 */
export const tolerance = {
  fp32: { cosine: 0.99999, relative: 5e-3 },
  fp16: { cosine: 0.999, relative: 5e-2 },
} as const;

/** Cosine of the angle between two tensors (1 for zeros), and their largest difference over the largest magnitude expected. */
function agreement(actual: TensorLike, expected: TensorLike): { cosine: number; relative: number } {
  const a = Array.from(actual.data as unknown as ArrayLike<number>, Number);
  const b = Array.from(expected.data as unknown as ArrayLike<number>, Number);
  if (a.length !== b.length) throw new Error(`${a.length} elements where ${b.length} were expected`);
  // Zeros have no direction: ReLU can leave nothing else.
  if ([...a, ...b].every((value) => value === 0)) return { cosine: 1, relative: 0 };
  let dot = 0;
  let aa = 0;
  let bb = 0;
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
    difference = Math.max(difference, Math.abs(a[i]! - b[i]!));
    largest = Math.max(largest, Math.abs(b[i]!));
  }
  if (aa === 0 && bb === 0) return { cosine: 1, relative: 0 };
  return { cosine: dot / Math.sqrt(aa * bb), relative: difference / largest };
}

/** Throws, with both numbers, unless every output agrees with the CPU's. */
export function requireAgreement(
  actual: Readonly<Record<string, Tensor>>,
  expected: Readonly<Record<string, Tensor>>,
  { cosine, relative }: { cosine: number; relative: number },
): void {
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
  }
}

/** Elements in [-1, 1): the same every time. */
export function randomElements(length: number, seed = 1): Float32Array {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
    return state / 2 ** 31 - 1;
  });
}
