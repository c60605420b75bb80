import { createHash } from 'node:crypto';
import path from 'node:path';
import { type Engine, flavourOfPlan, planOf } from './engine.js';
import { TensorRTError } from './errors.js';
import { cacheDirectory } from './files/cache-directory.js';
import { mkdir } from './files/promises.js';
import type { NativeLoadedModel, NativeSession, NativeTensorRT } from './native.js';
import type { Gpu } from './system/gpu.js';
import { productOf } from './system/nvidia-support.js';
import { findRuntime } from './system/tensorrt-library.js';

const hashedBytes = 2 ** 20;

export interface EngineRequest {
  readonly engine: Engine;
  readonly gpu: Gpu;
  readonly libraryPath: string | undefined;
  readonly cudaGraph: boolean;
  /** Outputs stay on the GPU. */
  readonly deviceOutputs: boolean;
}

/**
 * Loads an engine's plan onto a GPU, with the library that compiled it.
 * @throws (rejects) TensorRTError ERR_ENGINE_INCOMPATIBLE, which says what the plan was compiled for and what is here;
 *   ERR_ENGINE_CORRUPT, ERR_LIBRARY_NOT_FOUND, ERR_NO_GPU, ERR_OUT_OF_MEMORY, ERR_MODEL_UNSUPPORTED
 */
export async function loadEngine(
  session: Pick<NativeSession, 'load'>,
  { engine, gpu, libraryPath, cudaGraph, deviceOutputs }: EngineRequest,
): Promise<NativeLoadedModel | undefined> {
  const plan = planOf(engine);
  const library = await findRuntime(flavourOfPlan(engine), libraryPath);
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
    const here = `Here are ${productOf(library.flavour)} ${library.version} and ${gpu.label}.`;
    throw new TensorRTError('ERR_ENGINE_INCOMPATIBLE', `${error.message} ${compiledFor(engine)}${here}`, {
      cause: error,
    });
  }
}

function compiledFor(engine: Engine): string {
  try {
    const { library, targets } = engine.manifest;
    const product = productOf(library.flavour);
    return `The engine was compiled by ${product} ${library.version} for ${targets.join(', ')}. `;
  } catch {
    return ''; // a bare plan
  }
}

/** Where TensorRT-RTX keeps the kernels that it compiles when it first runs a plan; '' where there is no such place. */
async function runtimeCacheFile(
  { flavour, version }: NativeTensorRT,
  gpu: Gpu,
  plan: Uint8Array,
): Promise<string> {
  if (flavour !== 'rtx') return '';
  const directory = path.join(cacheDirectory(), 'runtime');
  try {
    await mkdir(directory, { recursive: true });
  } catch {
    return '';
  }
  const hash = createHash('sha256').update(`${version}\n${gpu.identity}\n${plan.length}\n`);
  // All of a plan of gigabytes would hold up the event loop, and TensorRT checks what it finds in the file.
  hash.update(plan.subarray(0, hashedBytes)).update(plan.subarray(-hashedBytes));
  return path.join(directory, `${hash.digest('hex')}.cache`);
}
