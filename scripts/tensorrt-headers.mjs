// Puts TensorRT's headers (Apache-2.0) where CMakeLists.txt expects them: build/tensorrt-headers/<flavour>, for the
// flavours trt10 (TensorRT 10.16), trt11 (11.4) and rtx (TensorRT-RTX 1.7). They come from the crate trtx-sys, through
// cargo, and are checked against pinned SHA-256s. An installed SDK's include folder replaces them: TensorRT's (10 or
// 11, according to its version header) if TENSORRT_INCLUDE_DIR names one, TensorRT-RTX's if TENSORRT_RTX_INCLUDE_DIR
// does. Does nothing if the headers are already there.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

// cargo can't have two versions of one crate in the same project.
const crates = {
  '0.5.0': {
    file: 'trtx-sys-0.5.0.crate',
    sha256: '1efd9036abbd2775da5df4e49793ec8e656f026fb9c60dff7e95bda2d654e634',
  },
  '0.9.1': {
    file: 'trtx-sys-0.9.1+rtx1.7.crate',
    sha256: '5480ee056292951daa1bc74532162d6cb75190f091e45d7d97c0c356916ae171',
  },
};

// `oldest`: the first release of a flavour's SDK whose headers declare everything that native/runtime/tensorrt calls. A
// library may be older than the headers; functions that it lacks aren't called (Capabilities in tensorrt.h).
const flavours = [
  {
    name: 'trt10',
    product: 'TensorRT',
    variable: 'TENSORRT_INCLUDE_DIR',
    oldest: [10, 15],
    crate: '0.5.0',
    folder: 'TRT-Enterprise-10.16',
  },
  {
    name: 'trt11',
    product: 'TensorRT',
    variable: 'TENSORRT_INCLUDE_DIR',
    oldest: [11, 0],
    crate: '0.9.1',
    folder: 'TRT-Enterprise-11.4',
  },
  {
    name: 'rtx',
    product: 'TensorRT-RTX',
    variable: 'TENSORRT_RTX_INCLUDE_DIR',
    oldest: [1, 5],
    crate: '0.9.1',
    folder: 'TRT-RTX-1.7',
  },
];
const wanted = ['NvInfer.h', 'NvInferVersion.h', 'NvOnnxParser.h'];

// TensorRT's headers include cuda_runtime_api.h for these two names. CUDA itself is opened at run time.
const cudaStub = `#pragma once
typedef struct CUevent_st* cudaEvent_t;
typedef struct CUstream_st* cudaStream_t;
`;

function findCrate({ file }) {
  const cache = path.join(process.env.CARGO_HOME || path.join(homedir(), '.cargo'), 'registry', 'cache');
  const registries = existsSync(cache) ? readdirSync(cache) : [];
  return registries.map((registry) => path.join(cache, registry, file)).find((found) => existsSync(found));
}

function fetchCrate(version, variable) {
  const instead = `or set ${variable} to the include folder of an installed SDK`;
  // Run cargo in an empty folder, or it would read the manifest of the surrounding project.
  const empty = mkdtempSync(path.join(tmpdir(), 'node-tensorrt-'));
  try {
    // `cargo info` fetches this one crate, without its dependencies.
    const result = spawnSync('cargo', ['info', `trtx-sys@${version}`], { cwd: empty, encoding: 'utf8' });
    if (result.error) {
      throw new Error(
        `TensorRT's headers come from the crate trtx-sys, and cargo could not be started ` +
          `(${result.error.code}): install Rust's cargo 1.82 or newer, ${instead}.`,
      );
    }
    const file = findCrate(crates[version]);
    if (result.status !== 0 || !file) {
      const reason = result.stderr.trim().split('\n').slice(-3).join(' ');
      throw new Error(
        `cargo could not fetch trtx-sys ${version}, which holds TensorRT's headers (${reason}): ` +
          `use cargo 1.82 or newer with access to a crate registry, ${instead}.`,
      );
    }
    return file;
  } finally {
    rmSync(empty, { recursive: true });
  }
}

function extractCrate(file, sha256, folder, to) {
  const found = createHash('sha256').update(readFileSync(file)).digest('hex');
  if (found !== sha256) {
    throw new Error(`${file} has the SHA-256 ${found}, not ${sha256}: remove it and build again.`);
  }
  const member = `${path.basename(file, '.crate')}/TensorRT-Headers/${folder}`;
  const result = spawnSync('tar', ['-xzf', file, '-C', to, '--strip-components=3', member], {
    encoding: 'utf8',
  });
  if (result.error || result.status !== 0) {
    throw new Error(`tar could not extract ${file}: ${result.error?.message ?? result.stderr.trim()}`);
  }
}

/** The product and its major and minor version, according to an SDK's headers. */
function sdkVersion(folder, variable) {
  for (const name of wanted) {
    if (!existsSync(path.join(folder, name))) {
      throw new Error(`${variable} is ${folder}, which doesn't contain ${name}.`);
    }
  }
  const text = readFileSync(path.join(folder, 'NvInferVersion.h'), 'utf8');
  const number = (part, edition) =>
    Number(text.match(new RegExp(`define (?:TRT_${part}_${edition}|NV_TENSORRT_${part}) (\\d+)`))?.[1]);
  const edition = text.includes('TRT_MAJOR_RTX') ? 'RTX' : 'ENTERPRISE';
  return {
    product: edition === 'RTX' ? 'TensorRT-RTX' : 'TensorRT',
    major: number('MAJOR', edition),
    minor: number('MINOR', edition),
  };
}

/** The SDK folder that replaces the crate's headers for a flavour; undefined if none is named. */
function sdkFolder(flavour) {
  const { product, variable } = flavour;
  const folder = process.env[variable];
  if (!folder) return undefined;
  const found = sdkVersion(folder, variable);
  const serves = ({ product, oldest: [major, minor] }) =>
    found.product === product && found.major === major && found.minor >= minor;
  if (serves(flavour)) return folder;
  const served = flavours.filter((other) => other.variable === variable);
  if (served.some(serves)) return undefined;
  const versions = served.map(({ oldest: [major, minor] }) => `${major}.${minor} or a later ${major}.x`);
  throw new Error(
    `${variable} is ${folder}, which holds the headers of ${found.product} ${found.major}.${found.minor}, ` +
      `not those of ${product} ${versions.join(', nor ')}.`,
  );
}

function copySdk(from, to) {
  for (const name of readdirSync(from)) {
    if (/^(Nv.*|impl)$/.test(name)) cpSync(path.join(from, name), path.join(to, name), { recursive: true });
  }
}

function provide(flavour) {
  const target = path.join(root, 'build/tensorrt-headers', flavour.name);
  const stamp = path.join(target, 'origin.txt');
  const crate = crates[flavour.crate];
  const sdk = sdkFolder(flavour);
  // An SDK may be upgraded in place, so its version header is part of the copy's origin.
  const origin = sdk
    ? `${sdk}\n${readFileSync(path.join(sdk, 'NvInferVersion.h'), 'utf8')}`
    : `${crate.file}\n${crate.sha256}\n${flavour.folder}\n`;
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === origin) return;

  mkdirSync(path.dirname(target), { recursive: true });
  const fresh = mkdtempSync(`${target}-`);
  try {
    if (sdk) {
      copySdk(sdk, fresh);
    } else {
      const file = findCrate(crate) ?? fetchCrate(flavour.crate, flavour.variable);
      extractCrate(file, crate.sha256, flavour.folder, fresh);
    }
    writeFileSync(path.join(fresh, 'cuda_runtime_api.h'), cudaStub);
    writeFileSync(path.join(fresh, 'origin.txt'), origin);
    chmodSync(fresh, 0o755);
    // Leaves the folder either complete or absent if it is interrupted.
    rmSync(target, { recursive: true, force: true });
    renameSync(fresh, target);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

/** Throws an Error whose message says what to do. */
export function provideTensorRTHeaders() {
  for (const flavour of flavours) provide(flavour);
}
