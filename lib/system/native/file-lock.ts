/** flock(2) on a file that exists while the lock is held. */
export interface NativeFileLock {
  /** Returns false if the lock is held elsewhere, in this process or another. Throws ERR_IO. */
  tryAcquire(): boolean;
  /** Removes the file and releases the lock. Does nothing if the lock isn't held. */
  release(): void;
}
