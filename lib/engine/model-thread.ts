import { parentPort, type TransferListItem, Worker, workerData } from 'node:worker_threads';
import { TensorRTError } from '../base/errors.js';
import { checkAttached, onAbort } from '../base/options.js';
import { isWorkingDirectoryRemoved } from '../system/files/working-directory.js';

type Answer<Value> = { value: Value } | { error: { code?: string; name: string; message: string } };

type Work = (request: object) => Promise<unknown>;

/** The work that this package's loaded modules have announced, by module file. */
const announced = new Map<string, Work>();

/**
 * Runs the work that a module of this package announced with {@link onModelThread} on another thread, since parsing,
 * hashing and casting gigabytes must not hold up the event loop. If no worker can be started, this thread does it.
 * @throws (rejects) the TensorRTError, RangeError or TypeError with a code that the work threw, ERR_IO for any other
 *   error, ERR_OUT_OF_MEMORY; the signal's reason
 */
export async function runOnModelThread<Value>(
  module: string,
  request: object,
  transfer: readonly TransferListItem[],
  signal: AbortSignal | undefined,
): Promise<Value> {
  signal?.throwIfAborted();
  const answer = isWorkingDirectoryRemoved()
    ? await answerOf(announced.get(module)!, request)
    : await answerOfWorker(module, request, transfer, signal);
  signal?.throwIfAborted();
  if (answer && 'value' in answer) return answer.value as Value;
  const { code, message } = answer?.error ?? { message: 'The thread that read the model ended.' };
  if (code?.startsWith('ERR_')) {
    const { name } = answer!.error;
    if (name === 'TensorRTError') throw new TensorRTError(code as 'ERR_IO', message);
    if (name === 'RangeError') throw Object.assign(new RangeError(message), { code });
    if (name === 'TypeError') throw Object.assign(new TypeError(message), { code });
  }
  throw new TensorRTError('ERR_IO', `Could not prepare the model: ${message}`);
}

/** A worker's answer; undefined if it ended first. */
async function answerOfWorker(
  module: string,
  request: object,
  transfer: readonly TransferListItem[],
  signal: AbortSignal | undefined,
): Promise<Answer<unknown> | undefined> {
  const worker = new Worker(module, { workerData: request, transferList: [...transfer], execArgv: [] });
  const ignore = onAbort(signal, () => void worker.terminate());
  try {
    return await new Promise<Answer<unknown> | undefined>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', () => resolve(undefined));
    });
  } catch (error) {
    signal?.throwIfAborted();
    if ((error as NodeJS.ErrnoException).code !== 'ERR_WORKER_OUT_OF_MEMORY') throw error;
    throw new TensorRTError('ERR_OUT_OF_MEMORY', 'There is not enough memory to read the model.', {
      cause: error,
    });
  } finally {
    ignore();
    await worker.terminate();
  }
}

function answerOf(work: Work, request: object): Promise<Answer<unknown>> {
  return work(request).then(
    (value) => ({ value }),
    ({ code, name, message }) => ({ error: { code, name, message } }),
  );
}

/**
 * A copy of a model's bytes to transfer, so that the caller keeps its own.
 * @throws RangeError ERR_INVALID_ARG_VALUE if they were transferred meanwhile
 */
export function copyForThread(model: Uint8Array): Uint8Array<ArrayBuffer> {
  checkAttached(model.buffer, 'model');
  return new Uint8Array(model);
}

/** Announces the work that the calling `module` does on the other thread. On such a thread, does it now. */
export function onModelThread<Request extends object, Value>(
  module: NodeJS.Module,
  work: (request: Request) => Promise<Value>,
): void {
  announced.set(module.filename, work as Work);
  if (!parentPort || require.main !== module) return;
  const port = parentPort;
  void answerOf(work as Work, workerData).then((answer) => port.postMessage(answer));
}
