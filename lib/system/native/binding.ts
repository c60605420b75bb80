import type { TensorRTError } from '../../base/errors.js';
import type { NativeBytes } from './bytes.js';
import type { NativeCuda } from './cuda.js';
import type { NativeFileLock } from './file-lock.js';
import type {
  NativeGenerationEvent,
  NativeLanguageModel,
  NativeLanguageModelConfig,
} from './language-model.js';
import type { NativeMasks } from './mask.js';
import type { NativeBuild, NativeBuildRequest, NativeParseResult, NativePlan } from './plan-builder.js';
import type { NativeSession } from './session.js';
import type { DeviceTensor, HostBuffer } from './tensor.js';
import type { NativeTensorRT } from './tensorrt.js';

/** The addon's exports. */
export interface NativeBinding extends NativeMasks {
  readonly variant: NativeVariant;
  initialize(errorClass: typeof TensorRTError): void;
  /** Abandons all work and waits for the threads of this environment. */
  stopAll(): void;
  /**
   * Opens the library and checks its version, on its own thread. Rejects with ERR_LIBRARY_NOT_FOUND,
   * ERR_LIBRARY_UNSUPPORTED.
   */
  openTensorRT(library: string): Promise<NativeTensorRT>;
  /** Parses and compiles on its own thread. */
  buildPlan(
    request: NativeBuildRequest,
    onProgress: ((phase: string, step: number, steps: number) => void) | undefined,
  ): NativeBuild;
  /** Loads a plan on its own thread, to see what the compiler made of the network. */
  inspectPlan(request: { library: string; plan: Uint8Array; device: number }): Promise<NativePlan>;
  /** Parses on its own thread, without compiling. */
  parseModel(
    request: Pick<NativeBuildRequest, 'library' | 'model' | 'modelPath' | 'device'>,
  ): Promise<NativeParseResult>;
  /** Runs on its own thread: CUDA may take a while to initialise. */
  probeCuda(): Promise<NativeCuda>;
  /**
   * Claims a folder that doesn't exist yet or was abandoned: holds the lock `path.lock` until `disownDirectory(path)`.
   * If the process exits or this worker ends first, the folder is removed. Returns false if another holder has the
   * lock.
   * @throws TensorRTError ERR_IO
   */
  ownDirectory(path: string): boolean;
  disownDirectory(path: string): void;
  FileLock: new (path: string) => NativeFileLock;
  downloadTensor(tensor: DeviceTensor): Promise<ArrayBuffer>;
  releaseTensor(tensor: DeviceTensor): void;
  HostBuffer: new (byteLength: number) => HostBuffer;
  NativeBytes: {
    /** Copies `bytes`. Throws ERR_OUT_OF_MEMORY. */
    new (bytes: Uint8Array): NativeBytes;
    /**
     * A part of a file. `file` is its name in errors; the caller keeps the descriptor. Throws ERR_IO if the file has no
     * such part.
     */
    new (file: string, descriptor: number, from: number, byteLength: number): NativeBytes;
  };
  NativeSession: new (config: { concurrency: number; maxQueue: number }) => NativeSession;
  NativeLanguageModel: new (
    config: NativeLanguageModelConfig,
    onEvents: (events: NativeGenerationEvent[]) => void,
  ) => NativeLanguageModel;
}

/** The configuration that a binary was compiled for. */
export interface NativeVariant {
  /** CUDA's major version. */
  readonly cuda: 12 | 13;
  /** The TensorRT flavours that the binary supports, e.g. 'rtx'. */
  readonly flavours: readonly string[];
}
