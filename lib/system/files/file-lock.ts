import { setTimeout as delay } from 'node:timers/promises';
import { native } from '../native.js';

/** A lock that this process holds. It ends with the process, or the worker, at the latest. */
export interface FileLock {
  release(): void;
}

/** Milliseconds to wait before asking for a lock again. */
const pollInterval = 20;

/**
 * The lock of the file `path`, which exists while someone holds it; undefined while another does, be it another
 * process or this one.
 * @throws TensorRTError ERR_IO where there can be no such file, or no lock on it
 */
export function tryFileLock(path: string): FileLock | undefined {
  const lock = new (native().FileLock)(path);
  return lock.tryAcquire() ? lock : undefined;
}

/**
 * {@link tryFileLock}, once no one else holds it.
 * @param onWait called once, if the lock is not free
 * @throws (rejects) TensorRTError ERR_IO; the signal's reason
 */
export async function fileLock(path: string, signal?: AbortSignal, onWait?: () => void): Promise<FileLock> {
  for (let waited = false; ; waited = true) {
    signal?.throwIfAborted();
    const lock = tryFileLock(path);
    if (lock) return lock;
    if (!waited) onWait?.();
    // Asked again, rather than waited for in the kernel: that would take a thread, and could not be aborted.
    await delay(pollInterval, undefined, { signal }).catch(() => undefined);
  }
}
