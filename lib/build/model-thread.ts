import { parentPort, type TransferListItem, Worker, workerData } from 'node:worker_threads';
import { TensorRTError } from '../errors.js';
import { onAbort } from '../options.js';

type Answer<Value> = { value: Value } | { error: { code?: string; name: string; message: string } };

/**
 * Has another thread do the work that a module of this package announces with {@link onModelThread}: parsing, hashing
 * and casting gigabytes must not hold up the event loop.
 * @throws (rejects) the TensorRTError, RangeError or TypeError with a code that the work threw, ERR_IO for any
 *   other error, ERR_OUT_OF_MEMORY; the
 *   signal's reason
 */
export async function runOnModelThread<Value>(
  module: string,
  request: object,
  transfer: readonly TransferListItem[],
  signal: AbortSignal | undefined,
): Promise<Value> {
  signal?.throwIfAborted();
  const worker = new Worker(module, { workerData: request, transferList: [...transfer], execArgv: [] });
  const unhear = onAbort(signal, () => void worker.terminate());
  try {
    const answer = await new Promise<Answer<Value> | undefined>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', () => resolve(undefined));
    });
    signal?.throwIfAborted();
    if (answer && 'value' in answer) return answer.value;
    const { code, message } = answer?.error ?? { message: 'The thread that read the model ended.' };
    if (code?.startsWith('ERR_')) {
      const { name } = answer!.error;
      if (name === 'TensorRTError') throw new TensorRTError(code as 'ERR_IO', message);
      if (name === 'RangeError') throw Object.assign(new RangeError(message), { code });
      if (name === 'TypeError') throw Object.assign(new TypeError(message), { code });
    }
    throw new TensorRTError('ERR_IO', `Could not prepare the model: ${message}`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY') {
      throw new TensorRTError('ERR_OUT_OF_MEMORY', 'There is not enough memory to read the model.', {
        cause: error,
      });
    }
    throw error;
  } finally {
    unhear();
    await worker.terminate();
  }
}

/** On the other thread: what `module`, which calls this, does there. Nothing where it is only imported. */
export function onModelThread<Request, Value>(
  module: NodeJS.Module,
  work: (request: Request) => Promise<Value>,
): void {
  if (!parentPort || require.main !== module) return;
  const port = parentPort;
  work(workerData as Request).then(
    (value) => port.postMessage({ value } satisfies Answer<Value>),
    ({ code, name, message }) => port.postMessage({ error: { code, name, message } } satisfies Answer<Value>),
  );
}
