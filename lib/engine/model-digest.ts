import { createHash } from 'node:crypto';
import path from 'node:path';
import { externalLocations } from '../onnx/format/initializer.js';
import { parseModel } from '../onnx/format/model-file.js';
import { FileMemo, isUnchanged, statistics } from '../system/files/file-memo.js';
import { readRange, readWhole } from '../system/files/file-range.js';
import { absolutePath } from '../system/files/working-directory.js';
import { copyForThread, onModelThread, runOnModelThread } from './model-thread.js';

/** The hashes of a model's files, which identify it exactly. */
export interface ModelDigest {
  /** Hexadecimal SHA-256 of the ONNX file. */
  readonly sha256: string;
  /**
   * The SHA-256 of each file of external data, by its path relative to the model's folder; null if it can't be read.
   */
  readonly external: Readonly<Record<string, string | null>>;
}

/** The facts that are remembered about a file. */
interface FileHash {
  /** Hexadecimal SHA-256 of the whole file. */
  readonly sha256: string;
  /** For an ONNX file, the paths of its external data, relative to its folder. */
  readonly external?: readonly string[];
}

type HashMemo = FileMemo<FileHash>;

function readMemo(file: string): Promise<HashMemo> {
  return FileMemo.read(file, (value): value is FileHash => {
    const { sha256, external = [] } = (value ?? {}) as Partial<FileHash>;
    return typeof sha256 === 'string' && Array.isArray(external);
  });
}

interface DigestRequest {
  readonly model: string | Uint8Array;
  readonly memo: string;
}

/**
 * Hashes a model and its external data, on another thread, unless the memo knows the files. A file that isn't a valid
 * model, or whose external data is missing, gets a digest too: {@link prepareModel} refuses it.
 * @param memo the file of a {@link FileMemo}
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_IO, ERR_OUT_OF_MEMORY; the signal's reason
 */
export async function digestModel(
  model: string | Uint8Array,
  memo: string,
  signal?: AbortSignal,
): Promise<ModelDigest> {
  if (typeof model === 'string') {
    const remembered = await digestFiles(absolutePath(model), await readMemo(memo), recall);
    if (remembered) return remembered;
    return runOnModelThread(__filename, { model: absolutePath(model), memo }, [], signal);
  }
  const bytes = copyForThread(model);
  return runOnModelThread(__filename, { model: bytes, memo }, [bytes.buffer], signal);
}

/** Looks up or computes a file's hash; undefined if it isn't known yet. */
type Lookup = (file: string, isModel: boolean, memo: HashMemo) => Promise<FileHash | undefined>;

async function digestFiles(model: string, memo: HashMemo, lookUp: Lookup): Promise<ModelDigest | undefined> {
  const known = await lookUp(model, true, memo);
  if (!known) return undefined;
  const external: Record<string, string | null> = Object.create(null);
  for (const location of known.external ?? []) {
    const file = path.join(path.dirname(model), location);
    const stats = await statistics(file);
    const hash = stats?.isFile() ? await lookUp(file, false, memo) : { sha256: null };
    if (!hash) return undefined;
    external[location] = hash.sha256;
  }
  return { sha256: known.sha256, external };
}

async function recall(file: string, _: boolean, memo: HashMemo): Promise<FileHash | undefined> {
  const stats = await statistics(file);
  return stats && memo.get(stats);
}

// ---- on the other thread --------------------------------------------------------------------------------------------

async function digest({ model, memo: memoFile }: DigestRequest): Promise<ModelDigest> {
  // A model given as bytes has no folder, so it has no external data.
  if (typeof model !== 'string') return { sha256: sha256(model), external: {} };
  const memo = await readMemo(memoFile);
  const answer = await digestFiles(model, memo, hashFile);
  await memo.save();
  return answer!;
}

/**
 * Reads a model file and its hash, which isn't computed again if the memo knows the file.
 * @param memo as for {@link digestModel}
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_IO
 */
export async function readModelFile(
  file: string,
  memo?: string,
): Promise<{ bytes: Uint8Array; sha256: string }> {
  const before = memo === undefined ? undefined : await statistics(file);
  const known = before && (await readMemo(memo!)).get(before);
  if (known) {
    const bytes = await readWhole(file, 'model');
    if (isUnchanged(before, await statistics(file))) return { bytes, sha256: known.sha256 };
  }
  const hash = createHash('sha256');
  const bytes = await readWhole(file, 'model', (piece) => hash.update(piece));
  return { bytes, sha256: hash.digest('hex') };
}

async function hashFile(file: string, isModel: boolean, memo: HashMemo): Promise<FileHash> {
  const began = Date.now();
  const before = await statistics(file);
  const known = before && memo.get(before);
  if (known) return known;
  const hash = isModel ? await hashModelFile(file) : { sha256: hashLargeFile(file) };
  if (before && isUnchanged(before, await statistics(file))) memo.set(before, began, hash);
  return hash;
}

async function hashModelFile(file: string): Promise<FileHash> {
  const { bytes, sha256 } = await readModelFile(file);
  return { sha256, external: locations(bytes, path.dirname(file)) };
}

function locations(bytes: Uint8Array, directory: string): string[] {
  try {
    return externalLocations(parseModel(bytes), directory);
  } catch {
    return [];
  }
}

function hashLargeFile(file: string): string {
  const hash = createHash('sha256');
  const all = { offset: 0, length: undefined };
  readRange(file, 'external data', all, 2 ** 22, (piece) => hash.update(piece));
  return hash.digest('hex');
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

onModelThread(module, digest);
