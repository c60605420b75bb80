import { setTimeout as delay } from 'node:timers/promises';
import { native } from '../native.js';

/** A lock that this process holds. It ends with the process or worker at the latest. */
export interface FileLock {
  release(): void;
}

/** Milliseconds between attempts to take a lock. */
const pollInterval = 20;

/**
 * Takes the lock file `path`, which exists while the lock is held. Returns undefined if another process, or this one,
 * holds it.
 * @throws TensorRTError ERR_IO if the file can't be created or locked
 */
export function tryFileLock(path: string): FileLock | undefined {
  const lock = new (native().FileLock)(path);
  return lock.tryAcquire() ? lock : undefined;
}

/**
 * Waits until nobody else holds the lock, then takes it. See {@link tryFileLock}.
 * @param onWait called once if the lock isn't free
 * @throws (rejects) TensorRTError ERR_IO; the signal's reason
 */
export async function fileLock(path: string, signal?: AbortSignal, onWait?: () => void): Promise<FileLock> {
  for (let waited = false; ; waited = true) {
    signal?.throwIfAborted();
    const lock = tryFileLock(path);
    if (lock) return lock;
    if (!waited) onWait?.();
    // Polls instead of waiting in the kernel, since that would occupy a thread and couldn't be aborted.
    await delay(pollInterval, undefined, { signal }).catch(() => undefined);
  }
}
