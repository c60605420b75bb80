import type { DataType } from '../../base/data-type.js';
import { TensorRTError } from '../../base/errors.js';
import type { Tensor } from '../../execution/tensor.js';
import { requireFromWorkingDirectory } from '../../system/files/working-directory.js';
import type { BenchmarkTarget } from './benchmark.js';

/** The parts of onnxruntime-node that are used here. */
interface OnnxRuntimeNode {
  readonly InferenceSession: {
    create(
      model: string,
      options: { intraOpNumThreads?: number; executionProviders: unknown[] },
    ): Promise<{ run(feeds: Record<string, unknown>): Promise<unknown>; release(): Promise<void> }>;
  };
  readonly Tensor: new (type: DataType, data: unknown, dims: readonly number[]) => unknown;
  readonly env: { readonly versions: { readonly node?: string } };
}

export interface PeerSession extends BenchmarkTarget {
  dispose(): Promise<void>;
}

/** onnxruntime-node, to be measured beside this package. */
export class OnnxRuntimePeer {
  readonly name = 'onnxruntime-node';
  readonly version: string;
  readonly #module: OnnxRuntimeNode;

  /**
   * Finds it from this package, then from the working directory.
   * @throws TensorRTError ERR_LIBRARY_NOT_FOUND
   */
  constructor() {
    let cause: unknown;
    for (const load of [require, requireFromWorkingDirectory()]) {
      if (!load) continue;
      try {
        this.#module = load('onnxruntime-node');
        this.version = this.#module.env.versions.node ?? 'unknown';
        return;
      } catch (error) {
        cause ??= error;
      }
    }
    throw new TensorRTError(
      'ERR_LIBRARY_NOT_FOUND',
      `onnxruntime-node, needed for the comparison, can't be loaded (${(cause as Error).message.split('\n')[0]}): ` +
        '`npm install onnxruntime-node`, with ONNXRUNTIME_NODE_INSTALL=skip if its download of CUDA parts fails.',
      { cause },
    );
  }

  /**
   * A session on 'cpu', or on a GPU ('cuda:1') through its CUDA execution provider.
   * @throws (rejects) TensorRTError ERR_LIBRARY_UNSUPPORTED
   */
  async createSession(
    model: string,
    feeds: Readonly<Record<string, Tensor>>,
    { device, threads }: { device: string; threads?: number },
  ): Promise<PeerSession> {
    const { InferenceSession, Tensor } = this.#module;
    const deviceId = Number(device.split(':')[1] ?? 0);
    const session = await InferenceSession.create(model, {
      executionProviders: [device === 'cpu' ? 'cpu' : { name: 'cuda', deviceId }],
      ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
    }).catch((cause: Error) => {
      throw new TensorRTError(
        'ERR_LIBRARY_UNSUPPORTED',
        `onnxruntime-node, needed for the comparison, can't run this model on ${device}: ${cause.message}`,
        { cause },
      );
    });
    const theirs = Object.fromEntries(
      Object.entries(feeds).map(([name, { type, dims, data }]) => [name, new Tensor(type, data, dims)]),
    );
    return {
      async run() {
        await session.run(theirs);
        return {};
      },
      dispose: () => session.release(),
    };
  }
}
