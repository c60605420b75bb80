import { existsSync } from 'node:fs';
import path from 'node:path';
import { invalidArgValue, TensorRTError } from '../base/errors.js';
import { kernelModuleVersion } from './nvidia-driver.js';
import { newestCuda, versionAtLeast } from './nvidia-support.js';

/** The CUDA major versions that a binary is published for. */
const variants = ['13', '12'] as const;

/** The package's folder: this file is in its `dist`. */
const root = path.join(__dirname, '../..');

/** The facts about this machine that decide whether the addon loads. */
interface Platform {
  /** e.g. 'linux-x64'. */
  readonly system: string;
  /** The C library's version; undefined where it is another than glibc. */
  readonly glibc: string | undefined;
  readonly node: string;
}

/**
 * Loads the compiled addon: what `NODE_TENSORRT_BINARY` (a file) or `NODE_TENSORRT_CUDA` (12 or 13) names, else this
 * checkout's build, else the published binary for the newest CUDA that the driver here allows, else the other one.
 * @throws TensorRTError ERR_LIBRARY_NOT_FOUND, or ERR_LIBRARY_UNSUPPORTED where the platform is the reason, with what
 * to do about it; every failed attempt is its `cause`, in an AggregateError if there are several
 * @throws RangeError ERR_INVALID_ARG_VALUE for a `NODE_TENSORRT_CUDA` that is neither
 */
export function loadBinary(): { exports: unknown; path: string } {
  const failures: { from: string; error: Error }[] = [];
  for (const { from, find } of candidates()) {
    try {
      const file = find();
      return { exports: require(file), path: file };
    } catch (error) {
      failures.push({ from, error: error as Error });
    }
  }
  throw loadError(failures);
}

interface Candidate {
  /** The candidate's name in errors: a path, or the variable that named it. */
  readonly from: string;
  find(): string;
}

function candidates(): Candidate[] {
  const file = process.env.NODE_TENSORRT_BINARY;
  if (file) {
    return [{ from: 'NODE_TENSORRT_BINARY', find: () => existing(path.resolve(file)) }];
  }
  const cuda = process.env.NODE_TENSORRT_CUDA;
  if (cuda) {
    const variant = variants.find((name) => name === cuda);
    if (!variant)
      throw invalidArgValue('NODE_TENSORRT_CUDA', `must be 12 or 13, not ${JSON.stringify(cuda)}.`);
    return [prebuilt(variant)];
  }
  const local = path.join(root, 'build', 'addon', 'Release', 'node_tensorrt.node');
  // Asking libcuda, which may support a newer CUDA than the module (`cuda-compat`), takes an addon: this chooses one.
  const driver = kernelModuleVersion();
  const preferred = driver === undefined ? 13 : newestCuda(driver);
  const ordered = preferred === 12 ? [...variants].reverse() : variants;
  return [...(existsSync(local) ? [{ from: local, find: () => local }] : []), ...ordered.map(prebuilt)];
}

/** The binary that prebuildify made for a CUDA major version: its tags are understood by node-gyp-build. */
function prebuilt(variant: string): Candidate {
  const directory = path.join(root, 'prebuilds', `cuda${variant}`);
  const find = () => (require('node-gyp-build') as { path(directory: string): string }).path(directory);
  return { from: directory, find };
}

function existing(file: string): string {
  if (!existsSync(file)) throw new Error(`${file} does not exist`);
  return file;
}

function currentPlatform(): Platform {
  const { glibcVersionRuntime } = reportHeader();
  return {
    system: `${process.platform}-${process.arch}`,
    glibc: glibcVersionRuntime,
    node: process.versions.node,
  };
}

function reportHeader(): { glibcVersionRuntime?: string } {
  const report = process.report as typeof process.report & { excludeNetwork?: boolean };
  // Without this the report asks for the name of every network address.
  const { excludeNetwork } = report;
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } };
  report.excludeNetwork = excludeNetwork;
  return header;
}

/** Makes an error as sharp does: one sentence, solutions that fit the cause, and every attempt. */
function loadError(failures: readonly { from: string; error: Error }[]): TensorRTError {
  const unsupported = platformProblems();
  const solutions = unsupported.length > 0 ? unsupported : otherSolutions(failures);
  const lines = [
    `Could not load the native addon of node-tensorrt on ${currentPlatform().system}.`,
    'Possible solutions:',
    ...solutions.map((solution) => `- ${solution}`),
    'What was tried:',
    ...failures.map(({ from, error }) => `- ${from}: ${error.message.trim().split('\n')[0]}`),
  ];
  const errors = failures.map(({ error }) => error);
  return new TensorRTError(
    unsupported.length > 0 ? 'ERR_LIBRARY_UNSUPPORTED' : 'ERR_LIBRARY_NOT_FOUND',
    lines.join('\n'),
    { cause: errors.length === 1 ? errors[0] : new AggregateError(errors) },
  );
}

/** Lists what must change on this machine before the addon can be loaded or built. */
export function platformProblems(): string[] {
  const { system, glibc, node } = currentPlatform();
  const { engines, config } = require('../../package.json') as {
    engines: { node: string };
    config: { glibc: string };
  };
  const nodeFloor = engines.node.replace('>=', '');
  const glibcFloor = config.glibc.replace('>=', '');
  const problems: string[] = [];
  if (system !== 'linux-x64') {
    problems.push(
      `Use a supported platform. Found ${system}; requires linux-x64. Elsewhere, run node-tensorrt on a Linux ` +
        'machine or in a linux/amd64 container.',
    );
  } else if (glibc === undefined) {
    problems.push(
      `Use a system with glibc. Found another C library (musl, as on Alpine); requires glibc ${glibcFloor} or newer, ` +
        "as NVIDIA's libraries do. In a container, use an image such as node:20-bookworm-slim.",
    );
  } else if (!versionAtLeast(glibc, glibcFloor)) {
    problems.push(
      `Use a newer system. Found glibc ${glibc}; requires glibc ${glibcFloor} or newer (Debian 12, Ubuntu 22.04, ` +
        'RHEL 9).',
    );
  }
  if (!versionAtLeast(node, nodeFloor)) {
    problems.push(`Update Node.js. Found ${node}; requires ${nodeFloor} or newer.`);
  }
  return problems;
}

function otherSolutions(failures: readonly { error: Error }[]): string[] {
  if (failures.some(({ error }) => (error as NodeJS.ErrnoException).code === 'ERR_DLOPEN_DISABLED')) {
    return ['Start Node.js without --no-addons, which forbids native addons.'];
  }
  if (process.env.NODE_TENSORRT_BINARY) return ['Correct NODE_TENSORRT_BINARY, or unset it.'];
  if (existsSync(path.join(root, 'CMakeLists.txt'))) {
    return [
      process.env.NODE_TENSORRT_CUDA
        ? 'In this checkout, `npm run prebuild` compiles it; or unset NODE_TENSORRT_CUDA and run `npm run build`.'
        : 'In this checkout, `npm run build` compiles it.',
    ];
  }
  return [
    'Install node-tensorrt again: the folder prebuilds/ of the package must hold its binaries.',
    'Keep node-tensorrt out of bundles: name it among your bundler\'s "external" modules.',
  ];
}
