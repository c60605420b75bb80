import path from 'node:path';
import { createHash } from '../base/crypto.js';
import { TensorRTError } from '../base/errors.js';
import { cacheDirectory } from '../system/files/cache-directory.js';
import { makeDirectories } from '../system/files/promises.js';
import type { Gpu } from '../system/gpu.js';
import type { NativeBytes } from '../system/native/bytes.js';
import type { NativeLoadedModel } from '../system/native/loaded-model.js';
import type { NativeSession } from '../system/native/session.js';
import type { NativeTensorRT } from '../system/native/tensorrt.js';
import { type Flavour, productOf } from '../system/nvidia-support.js';
import { findRuntime } from '../system/tensorrt-library.js';

const hashedBytes = 2 ** 20;

/** The library that compiled a plan, and the GPUs it was compiled for, e.g. 'sm_89'. */
export interface Compiled {
  readonly library: { readonly flavour: Flavour; readonly version: string };
  readonly targets: readonly string[];
}

export interface PlanRequest {
  /** A handle that belongs to the caller, who releases it. */
  readonly plan: NativeBytes;
  /** undefined for a bare plan, which doesn't record it. */
  readonly compiled: Compiled | undefined;
  readonly gpu: Gpu;
  readonly libraryPath: string | undefined;
  readonly cudaGraph: boolean;
  /** Outputs stay on the GPU. */
  readonly deviceOutputs: boolean;
}

/**
 * Loads a plan onto a GPU, with the library that compiled it.
 * @throws (rejects) TensorRTError ERR_ENGINE_INCOMPATIBLE, which names what the plan was compiled for and what is here;
 *   ERR_ENGINE_CORRUPT, ERR_IO if its file was changed, ERR_LIBRARY_NOT_FOUND, ERR_NO_GPU, ERR_OUT_OF_MEMORY,
 *   ERR_MODEL_UNSUPPORTED
 */
export async function loadPlan(
  session: Pick<NativeSession, 'load'>,
  { plan, compiled, gpu, libraryPath, cudaGraph, deviceOutputs }: PlanRequest,
): Promise<NativeLoadedModel | undefined> {
  const flavours = compiled ? [compiled.library.flavour] : flavoursOf(plan);
  const library = await findRuntime(flavours, libraryPath);
  try {
    return await session.load({
      library: library.path,
      model: plan,
      device: gpu.ordinal,
      cudaGraph,
      deviceOutputs,
      runtimeCache: await runtimeCacheFile(library, gpu, plan),
    });
  } catch (error) {
    if (!(error instanceof TensorRTError) || error.code !== 'ERR_ENGINE_INCOMPATIBLE') throw error;
    const here = `This machine has ${productOf(library.flavour)} ${library.version} and ${gpu.label}.`;
    throw new TensorRTError('ERR_ENGINE_INCOMPATIBLE', `${error.message} ${compiledFor(compiled)}${here}`, {
      cause: error,
    });
  }
}

/** The flavours that a bare plan may belong to. Its first bytes don't tell TensorRT 10 and 11 apart. */
function flavoursOf(plan: NativeBytes): readonly Flavour[] {
  const start = Buffer.alloc(Math.min(4, plan.byteLength));
  plan.read(0, start);
  return start.toString('latin1') === 'vtrt' ? ['rtx'] : ['trt11', 'trt10'];
}

function compiledFor(compiled: Compiled | undefined): string {
  if (!compiled) return '';
  const { library, targets } = compiled;
  const product = productOf(library.flavour);
  return `The engine was compiled by ${product} ${library.version} for ${targets.join(', ')}. `;
}

/**
 * The file in which TensorRT-RTX caches the kernels that it compiles when it first runs a plan; '' if it can't have
 * one.
 */
async function runtimeCacheFile(
  { flavour, version }: NativeTensorRT,
  gpu: Gpu,
  plan: NativeBytes,
): Promise<string> {
  if (flavour !== 'rtx') return '';
  const directory = path.join(cacheDirectory(), 'runtime');
  try {
    await makeDirectories(directory);
  } catch {
    return '';
  }
  const { byteLength } = plan;
  const hash = createHash('sha256').update(`${version}\n${gpu.identity}\n${byteLength}\n`);
  // Hashes only the ends, since hashing gigabytes would hold up the event loop. TensorRT validates what it finds in the
  // file.
  const part = new Uint8Array(Math.min(hashedBytes, byteLength));
  for (const from of [0, byteLength - part.length]) {
    plan.read(from, part);
    hash.update(part);
  }
  return path.join(directory, `${hash.digest('hex')}.cache`);
}
