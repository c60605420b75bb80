import os from 'node:os';
import { version } from '../../base/version.js';
import { InferenceSession } from '../../session/session.js';
import type { CudaCompiler, CudaRuntime, CudaToolkit } from '../../system/cuda-toolkit.js';
import { native, nativePath } from '../../system/native.js';
import { readDriverFiles } from '../../system/nvidia-driver.js';
import { type Flavour, flavoursFor } from '../../system/nvidia-support.js';
import { fileVersion } from '../../system/system-files.js';
import type { ListedLibrary } from '../libraries/list-libraries.js';
import type { Finding } from './diagnosis.js';

/** A description of this machine: its GPUs, drivers and libraries, and what works with them. */
export interface SystemReport {
  /** Platform, architecture and kernel, such as 'linux-x64 (Linux 6.1.0)'. */
  readonly platform: string;
  /** The version of Node.js. */
  readonly node: string;
  /** The version of node-tensorrt. */
  readonly version: string;
  /** The compiled addon; null if it can't be loaded. */
  readonly addon: {
    /** Its file. */
    readonly path: string;
    /** The major version of CUDA that it was built for. */
    readonly cuda: number;
    /** The TensorRT flavours that it can use: 'trt10', 'trt11' and 'rtx'. */
    readonly flavours: readonly string[];
  } | null;
  /** The version of NVIDIA's driver, as nvidia-smi prints it, such as '580.65.06'; null without one. */
  readonly driver: string | null;
  /** The newest CUDA that the driver supports, such as '13.0'; null without a driver. */
  readonly cuda: string | null;
  /** The file of the driver's CUDA library; null without one. */
  readonly libcuda: string | null;
  /** CUDA's compiler; null without one. This package doesn't need it. */
  readonly nvcc: CudaCompiler | null;
  /** The CUDA toolkits found. This package doesn't need one. */
  readonly toolkits: readonly CudaToolkit[];
  /** The libcudart files found. This package doesn't need one. */
  readonly runtimes: readonly CudaRuntime[];
  /** The GPUs, in CUDA's order: the first is `cuda:0`. */
  readonly gpus: readonly {
    /** Its product name. */
    readonly name: string;
    /** Its compute capability, such as '8.9': engines for it are compiled with `target: 'sm_89'`. */
    readonly computeCapability: string;
    /** Its memory in bytes, as nvidia-smi counts it. */
    readonly memory: number;
    /** 'GPU-' and hexadecimal digits; '' if the driver is too old to tell. */
    readonly uuid: string;
    /** Its place on the PCI bus, as nvidia-smi writes it: '00000000:1B:00.0'. */
    readonly pciBusId: string;
    /** The TensorRT flavours that run on it, installed or not. */
    readonly flavours: readonly Flavour[];
  }[];
  /** Each TensorRT library found. The first one without an `error` compiles engines. */
  readonly tensorrt: readonly ListedLibrary[];
  /** ONNX Runtime, which runs models on the CPU; null if it can't be used. */
  readonly onnxruntime: {
    /** Its version. */
    readonly version: string;
    /** Its library's file. */
    readonly path: string;
  } | null;
  /** The things that work and those that don't, each with a remedy. */
  readonly findings: readonly Finding[];
}

/**
 * Describes this machine: what it has, what works, and what to do about what doesn't. It opens every library that it
 * finds and runs a model of one node on the CPU. If the addon can't be loaded, that is the first finding, and everything
 * that only the addon could tell is missing.
 *
 * @example
 * ```js
 * import { inspectSystem } from 'node-tensorrt';
 *
 * const { gpus, tensorrt, findings } = await inspectSystem();
 * for (const { works, what, detail } of findings) console.log(works ? 'yes' : 'no', what, detail);
 * console.log(gpus.length, tensorrt.length);
 * ```
 */
export async function inspectSystem(): Promise<SystemReport> {
  // Importing the package loads none of these.
  const { findCuda } = await import('../../system/cuda-toolkit.js');
  const { computeCapability, diagnose } = await import('./diagnosis.js');
  const { sitePackages } = await import('../../system/python-packages.js');
  const files = readDriverFiles();
  const found = {
    platform: `${process.platform}-${process.arch} (${os.type()} ${os.release()})`,
    node: process.version,
    version,
    ...findCuda({ sitePackages: await sitePackages() }),
  };
  let addon: NonNullable<SystemReport['addon']>;
  try {
    addon = { path: nativePath(), ...native().variant };
  } catch (error) {
    return {
      ...found,
      addon: null,
      driver: files.kernelModule ?? null,
      cuda: null,
      libcuda: null,
      gpus: [],
      tensorrt: [],
      onnxruntime: null,
      findings: [addonFinding(error as Error)],
    };
  }
  const cuda = await native().probeCuda();
  const { listLibraries } = await import('../libraries/list-libraries.js');
  const tensorrt = await listLibraries();
  const cpu = await tryCpu();
  return {
    ...found,
    addon,
    driver: cuda.driver || null,
    cuda: cuda.cudaVersion || null,
    libcuda: cuda.library || null,
    gpus: cuda.gpus.map((gpu) => ({
      ...gpu,
      computeCapability: computeCapability(gpu),
      // nvidia-smi writes the domain with eight digits.
      pciBusId: gpu.pciBusId === '' ? '' : gpu.pciBusId.toUpperCase().padStart(16, '0'),
      flavours: flavoursFor(computeCapability(gpu)),
    })),
    tensorrt,
    onnxruntime: 'error' in cpu ? null : cpu,
    findings: [
      cpuFinding(cpu),
      compileFinding(tensorrt),
      ...diagnose({
        files,
        cuda,
        libcuda: fileVersion(cuda.library),
        tensorrt,
        visibleDevices: process.env.CUDA_VISIBLE_DEVICES,
      }),
    ],
  };
}

/** Makes a finding of the addon's load error, whose lines say what to do. */
function addonFinding({ message }: Error): Finding {
  const [detail = '', ...lines] = message.split('\n');
  const solutions = lines.filter((line) => line.startsWith('- '));
  return {
    works: false,
    what: 'Load the native addon',
    detail,
    remedy: (solutions[0] ?? detail).replace(/^- /, ''),
  };
}

type Cpu = { version: string; path: string } | { error: string };

async function tryCpu(): Promise<Cpu> {
  try {
    const { findOnnxRuntime } = await import('../../system/onnxruntime-library.js');
    const path = findOnnxRuntime();
    const { GraphBuilder, serializeModel } = await import('../../onnx.js');
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
  // The error's message says what to do.
  return { works: false, what, detail: cpu.error, remedy: 'npm install onnxruntime-node' };
}

function compileFinding(libraries: readonly ListedLibrary[]): Finding {
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
