// Puts the headers of TensorRT-RTX 1.7 (Apache-2.0) where CMakeLists.txt expects them: build/tensorrt-headers/rtx.
// They come from the crate trtx-sys, through cargo, and are checked against a pinned SHA-256; an installed SDK's
// include folder, named by TENSORRT_RTX_INCLUDE_DIR, takes their place. Does nothing when they are there already.
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
const crate = { name: 'trtx-sys', version: '0.9.1', file: 'trtx-sys-0.9.1+rtx1.7.crate' };
const sha256 = '5480ee056292951daa1bc74532162d6cb75190f091e45d7d97c0c356916ae171';
const wanted = ['NvInfer.h', 'NvInferVersion.h', 'NvOnnxParser.h'];

// TensorRT's headers include cuda_runtime_api.h for these two names; CUDA itself is opened at run time.
const cudaStub = `#pragma once
typedef struct CUevent_st* cudaEvent_t;
typedef struct CUstream_st* cudaStream_t;
`;

function findCrate() {
  const cache = path.join(process.env.CARGO_HOME || path.join(homedir(), '.cargo'), 'registry', 'cache');
  const registries = existsSync(cache) ? readdirSync(cache) : [];
  return registries
    .map((registry) => path.join(cache, registry, crate.file))
    .find((file) => existsSync(file));
}

function fetchCrate() {
  const instead = 'or set TENSORRT_RTX_INCLUDE_DIR to the include folder of an installed TensorRT-RTX SDK';
  // From an empty folder: cargo would otherwise read the manifest of the project it is started in.
  const empty = mkdtempSync(path.join(tmpdir(), 'node-tensorrt-'));
  try {
    // `cargo info` fetches this one crate, without its dependencies.
    const result = spawnSync('cargo', ['info', `${crate.name}@${crate.version}`], {
      cwd: empty,
      encoding: 'utf8',
    });
    if (result.error) {
      throw new Error(
        `The TensorRT-RTX headers come from the crate ${crate.name}, and cargo could not be started ` +
          `(${result.error.code}): install Rust's cargo 1.82 or newer, ${instead}.`,
      );
    }
    const file = findCrate();
    if (result.status !== 0 || !file) {
      const reason = result.stderr.trim().split('\n').slice(-3).join(' ');
      throw new Error(
        `cargo could not fetch ${crate.name} ${crate.version}, which holds the TensorRT-RTX headers (${reason}): ` +
          `use cargo 1.82 or newer with access to a crate registry, ${instead}.`,
      );
    }
    return file;
  } finally {
    rmSync(empty, { recursive: true });
  }
}

function extractCrate(file, to) {
  const found = createHash('sha256').update(readFileSync(file)).digest('hex');
  if (found !== sha256) {
    throw new Error(`${file} has the SHA-256 ${found}, not ${sha256}: remove it and build again.`);
  }
  const folder = `${path.basename(crate.file, '.crate')}/TensorRT-Headers/TRT-RTX-1.7`;
  const result = spawnSync('tar', ['-xzf', file, '-C', to, '--strip-components=3', folder], {
    encoding: 'utf8',
  });
  if (result.error || result.status !== 0) {
    throw new Error(`tar could not extract ${file}: ${result.error?.message ?? result.stderr.trim()}`);
  }
}

function copySdk(from, to) {
  for (const name of wanted) {
    if (!existsSync(path.join(from, name))) {
      throw new Error(`TENSORRT_RTX_INCLUDE_DIR is ${from}, where there is no ${name}.`);
    }
  }
  const version = readFileSync(path.join(from, 'NvInferVersion.h'), 'utf8');
  const [major, minor] = ['MAJOR', 'MINOR'].map((part) =>
    Number(version.match(new RegExp(`define TRT_${part}_RTX (\\d+)`))?.[1]),
  );
  if (major !== 1 || !(minor >= 5)) {
    throw new Error(
      `TENSORRT_RTX_INCLUDE_DIR is ${from}, whose headers are not those of TensorRT-RTX 1.5 or a later 1.x.`,
    );
  }
  for (const name of readdirSync(from)) {
    if (name.startsWith('Nv')) cpSync(path.join(from, name), path.join(to, name), { recursive: true });
  }
}

/** Throws an Error whose message is a sentence that says what to do. */
export function provideTensorRTHeaders() {
  const target = path.join(root, 'build/tensorrt-headers/rtx');
  const stamp = path.join(target, 'origin.txt');
  const sdk = process.env.TENSORRT_RTX_INCLUDE_DIR;
  // An SDK may be upgraded in place: its version file belongs to what the copy was made from.
  const sdkVersion = sdk && path.join(sdk, 'NvInferVersion.h');
  const origin = sdk
    ? `${sdk}\n${existsSync(sdkVersion) ? readFileSync(sdkVersion, 'utf8') : ''}`
    : `${crate.file}\n${sha256}\n`;
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === origin) return;

  mkdirSync(path.dirname(target), { recursive: true });
  const fresh = mkdtempSync(`${target}-`);
  try {
    if (sdk) copySdk(sdk, fresh);
    else extractCrate(findCrate() ?? fetchCrate(), fresh);
    writeFileSync(path.join(fresh, 'cuda_runtime_api.h'), cudaStub);
    writeFileSync(path.join(fresh, 'origin.txt'), origin);
    chmodSync(fresh, 0o755);
    // Complete or absent, whenever this is interrupted.
    rmSync(target, { recursive: true, force: true });
    renameSync(fresh, target);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}
