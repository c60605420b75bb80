import type { BigIntStats } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { DecoderGraph } from '../../base/decoder-graph.js';
import { TensorRTError } from '../../base/errors.js';
import { version } from '../../base/version.js';
import { cacheBytesPerToken, type Decoder, recogniseDecoder } from '../../onnx/decoder/decoder.js';
import { rotaryPositions, withWholeCaches } from '../../onnx/decoder/lift-group-query-attention.js';
import { withNarrowCaches } from '../../onnx/decoder/narrow-caches.js';
import { checkExternalData, externalLocations } from '../../onnx/format/initializer.js';
import type { ModelProto } from '../../onnx/format/model.js';
import { readModel } from '../../onnx/format/model-file.js';
import { forgetOrigins } from '../../onnx/format/weight-origin.js';
import { writeBeside } from '../../onnx/format/write-beside.js';
import { WrittenModel } from '../../onnx/format/written-model.js';
import { intAttribute } from '../../onnx/graph/node-attribute.js';
import { FileMemo, identity, isUnchanged, statistics } from '../../system/files/file-memo.js';
import { makeDirectories } from '../../system/files/promises.js';
import { absolutePath } from '../../system/files/working-directory.js';
import { findOnnxRuntime } from '../../system/onnxruntime-library.js';
import { onModelThread, runOnModelThread } from '../model-thread.js';
import { type CheckVerdict, checkDecoder } from './check-decoder.js';
import { rewriteDecoder } from './rewrite-decoder.js';

export interface PrepareDecoderRequest {
  /** The file; its external data lies beside it. */
  readonly model: string;
  /** An existing folder for the files to write. It must exist as long as they are used. */
  readonly directory: string;
  /** The most tokens that a row will hold. */
  readonly maxLength: number;
  /** The file of a {@link FileMemo} that remembers the verdicts on rewritten graphs. */
  readonly memo: string;
}

/** The facts about a decoder that are known before it is loaded. */
export interface DecoderFacts {
  readonly layers: number;
  /** Key-value heads of the first layer. */
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocabulary: number | undefined;
  readonly cacheType: 'float32' | 'float16' | 'bfloat16';
  /** Bytes of the cache per token, over all layers. */
  readonly cacheBytesPerToken: number;
  /** The most tokens that a row can hold, if the graph fixes it by its cache or its rotary tables. */
  readonly capacity: number | undefined;
}

/** A decoder's graph that ONNX Runtime can load, and how to run it. */
export interface PreparedDecoder {
  /** The ONNX file to load: the given one, or one in the request's folder. */
  readonly file: string;
  /** The folder in which ONNX Runtime finds its external data; undefined: the file's own. */
  readonly weights?: string | undefined;
  readonly graph: DecoderGraph;
  /** A sentence: the reason why the cache is or isn't updated in place. */
  readonly why: string;
  readonly facts: DecoderFacts;
}

/**
 * Finds out how to run a decoder, and rewrites its graph to update the cache in place, where that is possible. Runs on
 * another thread.
 *
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED if it isn't a decoder
 *   that can be run, ERR_IO, ERR_OUT_OF_MEMORY; the signal's reason
 */
export async function prepareDecoder(
  request: PrepareDecoderRequest,
  signal?: AbortSignal,
): Promise<PreparedDecoder> {
  return runOnModelThread(__filename, request, [], signal);
}

// ---- on the other thread --------------------------------------------------------------------------------------------

async function prepare(request: PrepareDecoderRequest): Promise<PreparedDecoder> {
  const { model: file, directory: target } = request;
  // The check's prompts and steps need room.
  const maxLength = Math.max(request.maxLength, shortestCheck + 3);
  const directory = path.dirname(absolutePath(file));
  const began = Date.now();
  const stats = await statistics(file);
  const parsed = await readModel(file);
  forgetOrigins(parsed.graph);
  checkExternalData(parsed, { directory });
  const external = externalLocations(parsed, directory).map((location) => path.join(directory, location));
  const seen = { began, stats, external: await stamps(external) };
  try {
    const model = withNarrowCaches(withWholeCaches(parsed));
    const decoder = recogniseDecoder(model);
    const facts = factsOf(decoder);
    const exported =
      model === parsed
        ? new WrittenModel(absolutePath(file), undefined)
        : await writeExported(model, target, directory);
    const asExported = { ...exported, graph: decoder.graph, facts };
    const rewritten = await rewriteDecoder(model, decoder, { directory, maxLength });
    if (rewritten.reason !== undefined) return { ...asExported, why: copies(rewritten.reason) };
    const written = await writeBeside(rewritten.model, target, { directory });
    const verdict = await remember(request, seen, () =>
      checkDecoder({
        original: { model: exported, decoder },
        rewritten: { model: written, graph: rewritten.graph },
        maxLength,
        promptLength: Math.max(shortestCheck, longestWindow(rewritten.model) + 3),
      }),
    );
    if (!verdict.agree) {
      const { difference, error } = verdict;
      const reason = error
        ? `rewritten, it can't be run (${error})`
        : `rewritten, it gives other logits on a short prompt (by ${difference} of the largest)`;
      return { ...asExported, why: copies(reason) };
    }
    const why =
      'The cache is updated in place by GroupQueryAttention, into which the attention was rewritten; on a short prompt ' +
      `its logits differ from the exported graph's by ${verdict.difference.toExponential(1)} of the largest.`;
    const capacity = facts.capacity ?? rotaryPositions(rewritten.model);
    return { ...written, graph: rewritten.graph, why, facts: { ...facts, capacity } };
  } catch (error) {
    if (error instanceof TensorRTError && error.code === 'ERR_MODEL_UNSUPPORTED') {
      throw new TensorRTError(error.code, `${file}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

async function writeExported(model: ModelProto, target: string, directory: string): Promise<WrittenModel> {
  const folder = path.join(target, 'exported');
  await makeDirectories(folder);
  return writeBeside(model, folder, { directory });
}

/**
 * Tokens of the prompt that the check reads. It must exceed the sliding window; a window longer than the second limit
 * isn't exceeded.
 */
const shortestCheck = 9;
const longestCheck = 512;

function longestWindow({ graph }: ModelProto): number {
  const windows = graph.node.map((node) => intAttribute(node, 'local_window_size', 0));
  return Math.max(0, ...windows.filter((window) => window <= longestCheck));
}

function copies(reason: string): string {
  return `The graph runs as it was exported, and copies its cache in each step: ${reason}.`;
}

/**
 * Returns the verdict of an earlier load with the same model, weights, package, ONNX Runtime and length, or computes
 * it.
 */
async function remember(
  { model, memo: file, maxLength }: PrepareDecoderRequest,
  { began, stats, external }: SeenFiles,
  check: () => Promise<CheckVerdict>,
): Promise<CheckVerdict> {
  const isVerdict = (value: unknown): value is Remembered =>
    typeof (value as Partial<Remembered> | null)?.agree === 'boolean';
  if (!stats) return check();
  // If the file was replaced after it was read, nothing is known about the new one.
  const isCurrent = async () =>
    isUnchanged(stats, await statistics(model)) &&
    isDeepStrictEqual(await stamps(external.map(([each]) => each)), external);
  if (!(await isCurrent())) return check();
  const memo = await FileMemo.read(file, isVerdict);
  const key = JSON.stringify([version, maxLength, ...(await stamps([findOnnxRuntime()])), ...external]);
  const known = memo.get(stats);
  if (known?.key === key) return known;
  const verdict = await check();
  // A graph that could not be run may be the machine's fault, and work the next time.
  if (verdict.error === undefined && (await isCurrent())) memo.set(stats, began, { ...verdict, key });
  await memo.save();
  return verdict;
}

/** A model's files, with their statistics before they were read. */
interface SeenFiles {
  /** Milliseconds since 1970. */
  readonly began: number;
  readonly stats: BigIntStats | undefined;
  readonly external: readonly FileStamp[];
}

type FileStamp = readonly [file: string, stamp: string | undefined];

function stamps(files: readonly string[]): Promise<FileStamp[]> {
  return Promise.all(
    files.map(async (file): Promise<FileStamp> => {
      const stats = await statistics(file);
      return [file, stats && identity(stats)];
    }),
  );
}

interface Remembered extends CheckVerdict {
  /** Everything that the verdict depends on besides the model's file. */
  readonly key: string;
}

function factsOf(decoder: Decoder): DecoderFacts {
  const { caches, layers, vocabulary } = decoder;
  const { kvHeads, headDim, type, capacity } = caches[0]!;
  const bytes = cacheBytesPerToken(decoder);
  return { layers, kvHeads, headDim, vocabulary, cacheType: type, cacheBytesPerToken: bytes, capacity };
}

onModelThread(module, prepare);
