import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { inspectSystem } from 'node-tensorrt';
import { afterAll, describe } from 'vitest';

export { randomElements, requireAgreement, tolerance } from './agreement.mjs';

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
