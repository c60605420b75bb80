import { existsSync } from 'node:fs';
import path from 'node:path';
import { TensorRTError } from '../base/errors.js';
import { cudaHere, installedDirectory, installedNames, rtxFolder } from './installed-libraries.js';
import type { NativeTensorRT, TensorRTCapabilities } from './native/tensorrt.js';
import { native } from './native.js';
import { type Flavour, productOf, runsOn } from './nvidia-support.js';
import { sitePackages } from './python-packages.js';
import { closedTo, isFile } from './system-files.js';

/** The core libraries; their ONNX parsers lie beside them. */
export const coreLibraries: Record<Flavour, string> = {
  rtx: 'libtensorrt_rtx.so.1',
  trt11: 'libnvinfer.so.11',
  trt10: 'libnvinfer.so.10',
};
const flavours = Object.keys(coreLibraries) as Flavour[];

/** A TensorRT library on this machine. */
export interface TensorRTLibrary {
  readonly flavour: Flavour;
  /** `major.minor.patch`, if the library could be opened. */
  readonly version?: string;
  /** The library's features, if it could be opened. */
  readonly capabilities?: TensorRTCapabilities;
  /** The path of the core library. */
  readonly path: string;
  /** The source of the path: an option, a variable or a place. */
  readonly source: string;
  /** For an installation of `libs install`, the name that `libs remove` takes. */
  readonly name?: string;
  /** The reason why it can't be used. */
  readonly error?: string;
}

interface Place {
  readonly source: string;
  readonly directory: string;
  readonly name?: string;
}

/** The folders to search, in order. If one is named, it is the only one. */
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

/** The library files that exist in a place; a place may be a file itself. */
function filesIn({ directory }: Place): string[] {
  if (isFile(directory)) return [directory];
  return flavours.map((flavour) => path.join(directory, coreLibraries[flavour])).filter(existsSync);
}

/** The folders where pip installs NVIDIA's packages. */
async function pythonPlaces(): Promise<Place[]> {
  return (await sitePackages()).flatMap((folder) =>
    [rtxFolder, 'tensorrt_libs'].map((name) => ({
      source: 'Python site-packages',
      directory: path.join(folder, name),
    })),
  );
}

/** Finds every TensorRT library, and opens each to learn its version and features. */
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

/** The purpose that a library must serve. */
export interface LibraryRequest {
  /** A core library or its folder. */
  readonly libraryPath?: string | undefined;
  readonly runtime: 'auto' | 'tensorrt' | 'tensorrt-rtx';
  /** The compute capabilities to compile for, 89 for sm_89; none to parse only. */
  readonly targets: readonly number[];
  /** The compute capability of this machine's GPU; undefined without one. */
  readonly gpu: number | undefined;
  /** Native's `openTensorRT`, the default, or a function that remembers its answers. */
  readonly open?: (file: string) => Promise<NativeTensorRT>;
}

/**
 * The flavours to compile with, the preferred one first. TensorRT compiles only for this machine's GPU. TensorRT-RTX
 * compiles for any GPU on its list, so it comes first, except for sm_80, which its documentation doesn't name.
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
 * Finds the library to run a plan with: the first one of a suitable flavour, in the order of {@link findTensorRT}, so
 * that the same library would compile the plan again.
 * @throws (rejects) TensorRTError ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED; ERR_ENGINE_INCOMPATIBLE if only
 *   another flavour is found
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
      `The engine was compiled by ${name}, and only runs with that; found only ${others.join(', ')}. ${remedies[product]}`,
    );
  }
  if (failure) throw failure;
  throw new TensorRTError(
    'ERR_LIBRARY_NOT_FOUND',
    `${name}, which the engine was compiled by, was not found in ${tried.join(', ')}. ${remedies[product]}`,
  );
}

/**
 * Finds the library to compile with: `libraryPath` (a file or a folder), else `NODE_TENSORRT_TENSORRT_PATH`, else the
 * preferred flavour, searched for in installations of `libs install`, Python's site-packages, `LD_LIBRARY_PATH` and
 * system folders.
 * @throws (rejects) TensorRTError ERR_LIBRARY_NOT_FOUND, ERR_LIBRARY_UNSUPPORTED
 */
export async function findTensorRT(request: LibraryRequest): Promise<NativeTensorRT> {
  const named = request.libraryPath || process.env.NODE_TENSORRT_TENSORRT_PATH;
  const preferred = preferredFlavours(request);
  // If the user named a library, native can best explain why it can't do what is asked.
  const accepted = named && request.runtime === 'auto' ? new Set([...preferred, ...flavours]) : preferred;
  const [first, ...others] = accepted;
  let failure: unknown;
  const open = async (file: string, flavour: Flavour | undefined): Promise<NativeTensorRT | undefined> => {
    // A file with a nonstandard name shows its flavour only once it is open.
    if ((flavourOfName(file) ?? flavour) !== flavour) return undefined;
    try {
      const library = await (request.open ?? native().openTensorRT)(file);
      return library.flavour === flavour ? library : undefined;
    } catch (error) {
      // Try the next one. If several fail, report the first failure, since that is the one to fix.
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
