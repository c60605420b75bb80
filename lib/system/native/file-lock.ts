/** flock(2) on a file that exists while it is held. */
export interface NativeFileLock {
  /** False while another holds it, in this process too. Throws ERR_IO. */
  tryAcquire(): boolean;
  /** Removes the file. Nothing where it is not held. */
  release(): void;
}
