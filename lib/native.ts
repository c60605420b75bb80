import { existsSync } from 'node:fs';
import path from 'node:path';
import { TensorRTError } from './errors.js';

/** Native memory behind an ArrayBuffer; runs use it without a copy. */
export interface HostBuffer {
  readonly arrayBuffer: ArrayBuffer;
}

export interface NativeTensorInfo {
  name: string;
  /** ONNX element type, see data-type.ts. */
  type: number;
  /** A number, or the symbolic name of a dynamic dimension ('' where it has none). */
  shape: (number | string)[];
}

/** `[type, dims, data]`; no data where the run wrote a HostBuffer of the caller. */
export type NativeOutput = [type: number, dims: number[], data: ArrayBuffer | string[] | undefined];

export type NativeInput = ArrayBufferView | HostBuffer | readonly string[];

export interface NativeSession {
  load(
    library: string,
    model: string | Uint8Array,
    threads: number,
  ): Promise<{
    inputs: NativeTensorInfo[];
    outputs: NativeTensorInfo[];
    runtime: { name: string; version: string };
  }>;
  /** Resolves with undefined when `cancel(id)` ended the run. */
  run(
    id: number,
    data: NativeInput[],
    dims: (readonly number[])[],
    outputIndices: number[],
    targets: (HostBuffer | undefined)[],
    targetDims: (readonly number[])[],
  ): Promise<NativeOutput[] | undefined>;
  runSync(
    id: number,
    data: NativeInput[],
    dims: (readonly number[])[],
    outputIndices: number[],
    targets: (HostBuffer | undefined)[],
    targetDims: (readonly number[])[],
  ): NativeOutput[];
  cancel(id: number): void;
  close(): Promise<void>;
}

export interface NativeBinding {
  initialize(errorClass: typeof TensorRTError): void;
  HostBuffer: new (byteLength: number) => HostBuffer;
  NativeSession: new (config: { concurrency: number; maxQueue: number }) => NativeSession;
}

let binding: NativeBinding | undefined;

/**
 * The compiled addon, loaded on first use: `NODE_TENSORRT_BINARY` (a path), else this checkout's build.
 * @throws TensorRTError ERR_LIBRARY_NOT_FOUND with what was tried and what to do
 */
export function native(): NativeBinding {
  if (binding) return binding;
  const named = process.env.NODE_TENSORRT_BINARY;
  const candidate = named ?? path.join(__dirname, '..', 'build', 'addon', 'Release', 'node_tensorrt.node');
  const what = `Could not load the native addon of node-tensorrt for ${process.platform}-${process.arch}`;
  if (!existsSync(candidate)) {
    throw new TensorRTError(
      'ERR_LIBRARY_NOT_FOUND',
      `${what}: ${candidate} does not exist. ` +
        (named ? 'Correct NODE_TENSORRT_BINARY or unset it.' : 'In a checkout, `npm run build` compiles it.'),
    );
  }
  try {
    const loaded = require(candidate) as NativeBinding;
    loaded.initialize(TensorRTError);
    binding = loaded;
    return loaded;
  } catch (cause) {
    throw new TensorRTError('ERR_LIBRARY_NOT_FOUND', `${what}: ${(cause as Error).message}`, { cause });
  }
}
