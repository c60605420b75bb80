import path from 'node:path';
import type { CudaMajor } from './nvidia-support.js';
import { fileVersion, namesIn, textOf } from './system-files.js';

/** The surroundings of a TensorRT library: its package's CUDA version, and the ONNX parser beside it. */
export interface TensorRTPackage {
  /** The CUDA major version that it is built for, if its package says so. */
  readonly cuda?: CudaMajor;
  /** The parser's version, if its file name has it. A library and its parser must be of the same release. */
  readonly parser?: string;
}

const parserOf = { libnvinfer: 'libnvonnxparser', libtensorrt_rtx: 'libtensorrt_onnxparser_rtx' } as const;

/** `root` is the root of the system's files. */
export function tensorrtPackage(library: string, root = '/'): TensorRTPackage {
  const [, stem, suffix] = /^(libnvinfer|libtensorrt_rtx)\.so\.(\d+)/.exec(path.basename(library)) ?? [];
  if (!stem) return {};
  const directory = path.dirname(library);
  const parser = fileVersion(path.join(directory, `${parserOf[stem as keyof typeof parserOf]}.so.${suffix}`));
  const cuda = pythonPackage(directory) ?? systemPackage(directory, `${stem}${suffix}`, root);
  return { ...(cuda ? { cuda } : {}), ...(parser ? { parser } : {}) };
}

/** Reads pip's folder beside the libraries: tensorrt_rtx_cu13_libs-1.7.1.116.dist-info. */
function pythonPackage(directory: string): CudaMajor | undefined {
  return namesIn(path.dirname(directory))
    .map((name) => /^tensorrt(?:_rtx)?_cu(12|13)_libs-.+\.dist-info$/.exec(name)?.[1])
    .map((major) => (major ? (Number(major) as CudaMajor) : undefined))
    .find((major) => major !== undefined);
}

/** Reads dpkg's version of libnvinfer10: 10.15.1.29-1+cuda13.1. */
function systemPackage(directory: string, name: string, root: string): CudaMajor | undefined {
  if (directory !== path.join(root, 'usr/lib/x86_64-linux-gnu')) return undefined;
  const status = textOf(path.join(root, 'var/lib/dpkg/status'));
  const entry = status.split('\n\n').find((text) => text.startsWith(`Package: ${name}\n`));
  const major = /^Version: .*\+cuda(12|13)\b/m.exec(entry ?? '')?.[1];
  return major ? (Number(major) as CudaMajor) : undefined;
}
