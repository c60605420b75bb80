import { existsSync, readFileSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { fileVersion, namesIn, textOf } from './system-files.js';

/** A CUDA toolkit: a folder with its compiler and headers. */
export interface CudaToolkit {
  readonly path: string;
  /** e.g. '13.0.0', or '13.0' for a part of a toolkit. */
  readonly version: string;
}

/** CUDA's compiler, as `nvcc --version` describes it: 'release 13.0, V13.0.48'. */
export interface CudaCompiler {
  readonly path: string;
  readonly release: string;
  readonly version: string;
}

/** A CUDA runtime library, libcudart.so. Other programs link against it; this package doesn't. */
export interface CudaRuntime {
  readonly path: string;
  /** As exact as the library's name or package gives it: '13.0.48', or '13'. */
  readonly version: string;
}

export interface CudaInstallation {
  /** The nvcc that a shell would start, or else the first toolkit's; null if there is none. */
  readonly nvcc: CudaCompiler | null;
  readonly toolkits: readonly CudaToolkit[];
  readonly runtimes: readonly CudaRuntime[];
}

/** The places to search. */
export interface CudaSearch {
  /** The root of the system's files. Defaults to '/'. */
  readonly root?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Python's site-packages folders. */
  readonly sitePackages?: readonly string[];
}

/**
 * Finds the CUDA toolkits, compiler and runtimes on this machine from their files: `CUDA_HOME`, `CUDA_PATH`, the nvcc
 * on `PATH`, /usr/local/cuda*, distributions' folders, Python's packages, `LD_LIBRARY_PATH`.
 */
export function findCuda({ root = '/', env = process.env, sitePackages = [] }: CudaSearch): CudaInstallation {
  const at = (file: string) => path.join(root, file);
  const onPath = folders(env.PATH).find((folder) => existsSync(path.join(folder, 'nvcc')));
  const local = namesIn(at('usr/local')).filter((name) => /^cuda(-|$)/.test(name));
  const inPython = sitePackages.flatMap((folder) =>
    namesIn(path.join(folder, 'nvidia'))
      .filter((name) => /^cu\d+$/.test(name))
      .map((name) => path.join(folder, 'nvidia', name)),
  );
  const places = distinct([
    ...[env.CUDA_HOME, env.CUDA_PATH].filter((folder) => folder).map(String),
    // If it is a link to a toolkit's nvcc, add that toolkit.
    ...(onPath ? [path.dirname(path.dirname(realpathSync(path.join(onPath, 'nvcc'))))] : []),
    ...local.map((name) => at(path.join('usr/local', name))),
    at('opt/cuda'),
    at('usr'),
    ...inPython,
  ]);
  const compilers = distinct([...(onPath ? [path.dirname(onPath)] : []), ...places]).map(compilerIn);
  const toolkits = places.flatMap((place) => {
    const version = toolkitVersion(place);
    return version ? [{ path: place, version }] : [];
  });
  const libraries = distinct([
    ...places.flatMap((place) =>
      ['lib64', 'lib', 'targets/x86_64-linux/lib'].map((lib) => path.join(place, lib)),
    ),
    ...folders(env.LD_LIBRARY_PATH),
    ...['usr/lib/x86_64-linux-gnu', 'usr/local/lib'].map(at),
    ...sitePackages.map((folder) => path.join(folder, 'nvidia/cuda_runtime/lib')),
  ]);
  return {
    nvcc: compilers.find((compiler) => compiler !== undefined) ?? null,
    toolkits,
    runtimes: libraries.flatMap(runtimesIn),
  };
}

function compilerIn(place: string): CudaCompiler | undefined {
  // Debian's and Ubuntu's /usr/bin/nvcc is a script that starts the second of these files.
  for (const file of ['bin/nvcc', 'lib/nvidia-cuda-toolkit/bin/nvcc'].map((name) => path.join(place, name))) {
    // nvcc's binary contains the line that it prints.
    const said = /release (\d+\.\d+), V(\d+(?:\.\d+)+)/.exec(
      lineOf(file, 'Cuda compilation tools, release '),
    );
    if (said) return { path: file, release: said[1]!, version: said[2]! };
  }
  return undefined;
}

function toolkitVersion(place: string): string | undefined {
  const json = textOf(path.join(place, 'version.json'));
  if (json) {
    try {
      return (JSON.parse(json) as { cuda?: { version?: string } }).cuda?.version;
    } catch {
      // The file is damaged; the header may still have the version.
    }
  }
  // CUDA before 11.1 has version.txt; Debian keeps one in /usr/lib/cuda.
  for (const file of ['version.txt', 'lib/cuda/version.txt']) {
    const version = /^CUDA Version (\S+)/.exec(textOf(path.join(place, file)))?.[1];
    if (version) return version;
  }
  for (const file of ['include/cuda.h', 'targets/x86_64-linux/include/cuda.h']) {
    const number = Number(/^#define CUDA_VERSION (\d+)/m.exec(textOf(path.join(place, file)))?.[1]);
    if (number) return `${Math.floor(number / 1000)}.${(number % 1000) / 10}`;
  }
  return undefined;
}

function runtimesIn(folder: string): CudaRuntime[] {
  return namesIn(folder)
    .filter((name) => /^libcudart\.so\.\d+(\.\d+)?$/.test(name))
    .map((name) => path.join(folder, name))
    .map((file) => ({
      path: file,
      version: fileVersion(file) ?? packageVersion(file) ?? file.split('.so.')[1]!,
    }));
}

/** pip's libraries are named after the major version only; the package beside them has the full one. */
function packageVersion(file: string): string | undefined {
  const major = file.split('.so.')[1];
  const site = file.split('/nvidia/')[0]!;
  return namesIn(site)
    .map((name) => /^nvidia_cuda_runtime(?:_cu\d+)?-(.+)\.dist-info$/.exec(name)?.[1])
    .find((version) => version?.split('.')[0] === major);
}

/** Up to 100 characters of a file, from the first occurrence of `beginning` on; '' if it doesn't occur. */
function lineOf(file: string, beginning: string): string {
  let contents: Buffer;
  try {
    contents = readFileSync(file);
  } catch {
    return '';
  }
  const start = contents.indexOf(beginning);
  return start < 0 ? '' : contents.toString('latin1', start, start + 100);
}

function folders(list: string | undefined): string[] {
  return (list ?? '').split(':').filter((folder) => folder !== '');
}

/** Drops folders that don't exist and paths that lead to a folder already listed. */
function distinct(candidates: readonly string[]): string[] {
  const seen = new Set<string>();
  return candidates.filter((candidate) => {
    try {
      const real = realpathSync(candidate);
      return seen.has(real) ? false : seen.add(real);
    } catch {
      return false;
    }
  });
}
