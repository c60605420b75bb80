import os from 'node:os';
import { type NativeCuda, native, nativePath } from './native.js';
import { findOnnxRuntime } from './onnxruntime-library.js';
import { InferenceSession } from './session.js';
import type { TensorRTLibrary } from './tensorrt-library.js';
import { version } from './version.js';

/** Something that this machine can or cannot do. */
export interface Finding {
  readonly works: boolean;
  /** What: 'Run models on the CPU'. */
  readonly what: string;
  /** With what, or why not. */
  readonly detail: string;
  /** What to do about it, where it does not work. */
  readonly remedy?: string;
}

export interface SystemReport {
  readonly platform: string;
  readonly node: string;
  /** Version of node-tensorrt. */
  readonly version: string;
  /** The compiled addon: its file, and what it was compiled for. */
  readonly addon: {
    readonly path: string;
    /** CUDA's major version. */
    readonly cuda: number;
    /** The TensorRT flavours that it has a binding for. */
    readonly flavours: readonly string[];
  };
  /** NVIDIA's driver, e.g. '580.65'; null without one. */
  readonly driver: string | null;
  /** The newest CUDA that the driver supports, e.g. '13.0'; null without a driver. */
  readonly cuda: string | null;
  readonly gpus: readonly {
    readonly name: string;
    /** e.g. '8.9', for which engines are compiled with `target: 'sm_89'`. */
    readonly computeCapability: string;
    /** Bytes. */
    readonly memory: number;
  }[];
  /** Each TensorRT library found; the first without an `error` compiles engines. */
  readonly tensorrt: readonly TensorRTLibrary[];
  readonly onnxruntime: { readonly version: string; readonly path: string } | null;
  readonly findings: readonly Finding[];
}

/**
 * What this machine has, what works, and what to do about what doesn't. Opens every library it finds and runs a
 * model of one node on the CPU.
 * @throws (rejects) TensorRTError ERR_LIBRARY_NOT_FOUND when the addon itself can't be loaded
 */
export async function inspectSystem(): Promise<SystemReport> {
  const cuda = native().probeCuda();
  const { listTensorRT } = await import('./tensorrt-library.js');
  const tensorrt = await listTensorRT();
  const cpu = await tryCpu();
  return {
    platform: `${process.platform}-${process.arch} (${os.type()} ${os.release()})`,
    node: process.version,
    version,
    addon: { path: nativePath(), ...native().variant },
    driver: cuda.driver || null,
    cuda: cuda.cudaVersion || null,
    gpus: cuda.gpus.map(({ name, computeCapability, memory }) => ({
      name,
      computeCapability: computeCapability.join('.'),
      memory,
    })),
    tensorrt,
    onnxruntime: 'error' in cpu ? null : cpu,
    findings: [cpuFinding(cpu), compileFinding(tensorrt), gpuFinding(cuda)],
  };
}

type Cpu = { version: string; path: string } | { error: string };

async function tryCpu(): Promise<Cpu> {
  try {
    const path = findOnnxRuntime();
    const { GraphBuilder, serializeModel } = await import('./onnx/index.js');
    const graph = new GraphBuilder('identity');
    graph.op('Identity', [graph.input('x', 'float32', [1])], {}, { outputs: ['y'] });
    graph.output('y', 'float32', [1]);
    const session = await InferenceSession.create(serializeModel(graph.finish()), { device: 'cpu' });
    await session.run({ x: { type: 'float32', dims: [1], data: Float32Array.of(1) } });
    await session.dispose();
    return { version: session.runtime.version, path };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

function cpuFinding(cpu: Cpu): Finding {
  const what = 'Run ONNX models on the CPU';
  if (!('error' in cpu)) return { works: true, what, detail: `ONNX Runtime ${cpu.version}` };
  // The error says what to do.
  return { works: false, what, detail: cpu.error, remedy: 'npm install onnxruntime-node' };
}

function compileFinding(libraries: readonly TensorRTLibrary[]): Finding {
  const what = 'Compile engines (options.target; no GPU needed)';
  const usable = libraries.find((library) => library.capabilities?.aheadOfTime);
  if (usable) return { works: true, what, detail: `TensorRT-RTX ${usable.version}` };
  return {
    works: false,
    what,
    detail: libraries[0]?.error ?? 'TensorRT-RTX was not found.',
    remedy: 'npx node-tensorrt libs install rtx',
  };
}

function gpuFinding(cuda: NativeCuda): Finding {
  const what = 'Run engines on a GPU';
  const cpuOnly = 'This version compiles engines and does not run them: its sessions run on the CPU.';
  if (cuda.error !== undefined) {
    return {
      works: false,
      what,
      detail: `${cuda.error} ${cpuOnly}`,
      remedy: "Compile for a GPU elsewhere with options.target, such as 'sm_89'.",
    };
  }
  const gpu = cuda.gpus[0];
  const target = `sm_${gpu.computeCapability.join('')}`;
  return {
    works: false,
    what,
    detail: `${gpu.name} is present. ${cpuOnly}`,
    remedy: `Compile for it (${target}) and run the plan with trtexec or TensorRT-RTX itself: Engine.plan().`,
  };
}
