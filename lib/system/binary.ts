import { existsSync } from 'node:fs';
import path from 'node:path';
import { invalidArgValue, TensorRTError } from '../base/errors.js';
import { kernelModuleVersion } from './nvidia-driver.js';
import { newestCuda, versionAtLeast } from './nvidia-support.js';

/** The CUDA major versions that binaries are published for. */
const variants = ['13', '12'] as const;

/** The package's folder. This file lies in `dist/system`. */
const root = path.join(__dirname, '../..');

/** The facts about this machine that decide whether a compiled addon loads. */
interface Platform {
  /** e.g. 'linux-x64'. */
  readonly system: string;
  /** The version of glibc; undefined with another C library. */
  readonly glibc: string | undefined;
  readonly node: string;
}

/**
 * Loads the compiled addon: the one that `NODE_TENSORRT_BINARY` (a file) or `NODE_TENSORRT_CUDA` (12 or 13) names; else
 * this checkout's build; else the published binary for the newest CUDA that the driver supports; else the other one.
 * @throws TensorRTError ERR_LIBRARY_NOT_FOUND, or ERR_LIBRARY_UNSUPPORTED if the platform is the reason. The message
 *   says what to do; `cause` is the failed attempt, or an AggregateError of them if there are several.
 * @throws RangeError ERR_INVALID_ARG_VALUE if `NODE_TENSORRT_CUDA` is neither 12 nor 13
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
  /** A path, or the variable that named the candidate; for the error. */
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
  // Only libcuda knows the driver's CUDA version exactly (`cuda-compat` may support a newer one than the kernel
  // module), but asking it takes an addon, and this code chooses the addon.
  const driver = kernelModuleVersion();
  const preferred = driver === undefined ? 13 : newestCuda(driver);
  const ordered = preferred === 12 ? [...variants].reverse() : variants;
  return [...(existsSync(local) ? [{ from: local, find: () => local }] : []), ...ordered.map(prebuilt)];
}

/** The binary that prebuildify made for a CUDA major version. node-gyp-build understands its tags. */
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
  // Without this, the report looks up the name of every network address.
  const { excludeNetwork } = report;
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } };
  report.excludeNetwork = excludeNetwork;
  return header;
}

/** Formats the error as sharp does: one sentence, possible solutions chosen by the cause, and every attempt. */
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

/** The reasons why the addon can't be loaded or built on this machine, each with a solution. */
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
