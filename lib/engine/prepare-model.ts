import { createHash } from 'node:crypto';
import path from 'node:path';
import type { DecoderGraph } from '../base/decoder-graph.js';
import { TensorRTError } from '../base/errors.js';
import type { DeclaredInput } from '../base/shapes.js';
import { type SparseLayer, sparseLayers } from '../masks/sparse-layers.js';
import { hashWeights } from '../onnx/format/hash-weights.js';
import { checkExternalData, externalData, isExternal } from '../onnx/format/initializer.js';
import type { GraphProto, ModelProto, TensorProto } from '../onnx/format/model.js';
import { parseModel, serializeModel } from '../onnx/format/model-file.js';
import { forgetOrigins, type MadeWeight, madeWeights } from '../onnx/format/weight-origin.js';
import { writeBeside } from '../onnx/format/write-beside.js';
import { declaredInputs } from '../onnx/graph/declared-values.js';
import { tripCounts } from '../onnx/passes/complete-loops.js';
import { castToBfloat16, castToFloat16 } from '../onnx/precision/cast-precision.js';
import type { CastBfloat16Report, CastFloat16Report } from '../onnx/precision/cast-report.js';
import type { Ranges } from '../onnx/precision/ranges.js';
import { writePieces } from '../system/files/atomic-file.js';
import { makeDirectories, makeDirectory, symlink } from '../system/files/promises.js';
import { absolutePath } from '../system/files/working-directory.js';
import { type LowerDecoderOptions, lowerDecoder } from './decoder/lower-decoder.js';
import { type Feeds, measureRanges } from './measure-ranges.js';
import { readModelFile } from './model-digest.js';
import { copyForThread, onModelThread, runOnModelThread } from './model-thread.js';
import {
  adaptToParser,
  refuseMisread,
  refuseWhatTensorRTCannotName,
  requireOutputs,
} from './tensorrt-parser.js';

/** How to prepare a model for TensorRT's parser. */
export interface PrepareRequest {
  /** A file with its external data beside it, or the bytes of a model without external data. */
  readonly model: string | Uint8Array;
  /** Cast it with `castToFloat16` or `castToBfloat16`; undefined: don't cast. */
  readonly precision: 'fp16' | 'bf16' | undefined;
  /** Inputs for measuring ranges, for 'fp16'; undefined: random ones. */
  readonly calibration: readonly Feeds[] | undefined;
  readonly keepFp32: readonly string[];
  /** True to list the layers that sparse kernels are for. Defaults to false. */
  readonly sparsity?: boolean;
  /** The library that will read it. ONNX Runtime doesn't follow symbolic links to external data. */
  readonly runtime: 'tensorrt' | 'onnxruntime';
  /** The memo of `digestModel`, which may know the file's hash. */
  readonly memo?: string | undefined;
  /** An existing folder for the files to write. */
  readonly directory: string;
  /** Weights above this many bytes in total are written beside the model, since an ONNX file is limited to 2 GiB. */
  readonly maxInlineBytes: number;
  /** How to lower the model, if it is a decoder with lifted attention. */
  readonly decoder?: DecoderLowering;
}

export type DecoderLowering = {
  readonly graph: DecoderGraph;
  /** The plan is to record each layer's inputs and outputs. */
  readonly detailed?: boolean | undefined;
} & Pick<LowerDecoderOptions, 'attention' | 'capacity' | 'length' | 'cache'>;

/** A model that TensorRT's parser can read. */
export interface PreparedModel {
  /** The ONNX file to parse. */
  readonly file: string;
  /** TensorRT finds external data relative to this path. */
  readonly modelPath: string;
  /** ONNX Runtime finds external data in this folder; undefined: the file's own. */
  readonly weights?: string | undefined;
  readonly inputs: readonly DeclaredInput[];
  /** SHA-256 of the given file, in hexadecimal. */
  readonly sha256: string;
  /** Hexadecimal SHA-256 of every initializer's name, type, dimensions and elements, in order of names. */
  readonly weightsSha256: string;
  readonly producer: string;
  /** With `sparsity`: the layers that sparse kernels are for. */
  readonly sparse?: readonly SparseLayer[];
  readonly cast?: CastFloat16Report | CastBfloat16Report;
  /** Constants of a rewritten model that replace weights of the given one. */
  readonly madeWeights?: readonly MadeWeight[];
  /** For a decoder: how to run the lowered graph. */
  readonly decoder?: DecoderGraph;
}

/**
 * Prepares a model on another thread, since parsing, hashing and casting gigabytes must not hold up the event loop.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO; the signal's
 *   reason; TypeError or RangeError if the calibration data doesn't fit the model
 */
export async function prepareModel(
  request: PrepareRequest,
  signal: AbortSignal | undefined,
): Promise<PreparedModel> {
  const { model } = request;
  if (typeof model === 'string') return runOnModelThread(__filename, request, [], signal);
  const bytes = copyForThread(model);
  return runOnModelThread(__filename, { ...request, model: bytes }, [bytes.buffer], signal);
}

// ---- on the other thread --------------------------------------------------------------------------------------------

async function prepare(request: PrepareRequest): Promise<PreparedModel> {
  const { model: source } = request;
  const isFile = typeof source === 'string';
  const { bytes, sha256 } = isFile
    ? await readModelFile(source, request.memo)
    : { bytes: source, sha256: createHash('sha256').update(source).digest('hex') };
  const directory = isFile ? path.dirname(absolutePath(source)) : undefined;
  const label = isFile ? source : 'The model';
  const where = directory === undefined ? {} : { directory };
  try {
    const model = parseModel(bytes);
    // A file with a lifted decoder was written by this package, so its record of where weights come from can be
    // trusted.
    if (!request.decoder) forgetOrigins(model.graph);
    refuseWhatTensorRTCannotName(model.graph);
    requireOutputs(model.graph);
    checkExternalData(model, where);
    const weightsSha256 = hashWeights(model.graph, where);
    const sparse = request.sparsity ? { sparse: sparseLayers(model, directory) } : {};
    const { isAdapted, isUnbounded } = adaptToParser(model, directory);
    const common = {
      inputs: withTurns(declaredInputs(model), model.graph),
      sha256,
      weightsSha256,
      producer: [model.producerName, model.producerVersion].filter(Boolean).join(' '),
      ...sparse,
    };
    if (request.decoder) {
      const { graph, ...lowering } = request.decoder;
      const { precision = 'fp32', keepFp32 } = request;
      const lowered = await lowerDecoder(model, graph, { ...where, ...lowering, precision, keepFp32 });
      return {
        ...common,
        ...(await writeMixed(lowered.model, request, directory)),
        inputs: declaredInputs(lowered.model),
        ...(lowered.cast ? { cast: lowered.cast } : {}),
        madeWeights: madeWeights(lowered.model.graph),
        decoder: lowered.graph,
      };
    }
    if (request.runtime === 'tensorrt') refuseMisread(model.graph);
    if (request.precision === undefined) {
      if (isFile && !isAdapted)
        return { ...common, file: absolutePath(source), modelPath: absolutePath(source) };
      const file = path.join(request.directory, 'model.onnx');
      await write(file, [isAdapted ? serializeModel(model) : bytes]);
      return { ...common, file, modelPath: isFile ? absolutePath(source) : file };
    }
    const options = { ...where, keepFp32: request.keepFp32 };
    const { model: mixed, report } =
      request.precision === 'bf16'
        ? castToBfloat16(model, options)
        : castToFloat16(model, { ...options, ranges: await ranges(model, request, where, isUnbounded) });
    const written = await writeMixed(mixed, request, directory);
    return { ...common, ...written, cast: report, madeWeights: madeWeights(mixed.graph) };
  } catch (error) {
    if (error instanceof TensorRTError && error.code === 'ERR_MODEL_INVALID') {
      throw new TensorRTError('ERR_MODEL_INVALID', `${label}: ${error.message}`);
    }
    throw error;
  }
}

/** The default range of a loop's trip count: the same as a sequence's length. */
const turns = [0, 128, 512] as const;

function withTurns(inputs: readonly DeclaredInput[], graph: GraphProto): DeclaredInput[] {
  const counts = tripCounts(graph);
  return inputs.map((input) => (counts.has(input.name) ? { ...input, turns } : input));
}

/** Measures the ranges of the model's values on the CPU; returns the reason if the CPU can't run the model. */
async function ranges(
  model: ModelProto,
  { calibration }: PrepareRequest,
  where: { directory?: string },
  isUnbounded: boolean,
): Promise<Ranges> {
  if (isUnbounded && !calibration) {
    const reason = 'a loop without a trip count might never end on random inputs: give options.calibration';
    return { report: { source: 'none', reason }, values: new Map() };
  }
  try {
    return await measureRanges(model, { ...where, ...(calibration ? { calibration } : {}) });
  } catch (error) {
    // Not the model's fault: the user's data doesn't fit it, or the disk is full.
    if (!(error instanceof TensorRTError) || error.code === 'ERR_IO') throw error;
    const reason = `the model could not be run on the CPU (${error.code}): ${error.message}`;
    return { report: { source: 'none', reason }, values: new Map() };
  }
}

/** Writes the mixed-precision model, with its weights beside it if they are too large for one file. */
async function writeMixed(
  model: ModelProto,
  request: PrepareRequest,
  directory: string | undefined,
): Promise<Pick<PreparedModel, 'file' | 'modelPath' | 'weights'>> {
  const { directory: target, model: source } = request;
  const inline = model.graph.initializer.reduce((sum, tensor) => sum + (tensor.rawData?.length ?? 0), 0);
  const fits = inline <= request.maxInlineBytes;
  const mixed = fits ? model : await moveWeights(model, target, directory);
  if (request.runtime === 'onnxruntime') {
    const folder = path.join(target, 'for-onnxruntime');
    await makeDirectory(folder);
    const { file, weights } = await writeBeside(mixed, folder, { directory: fits ? directory : target });
    return { file, modelPath: file, weights };
  }
  const file = path.join(target, 'model.onnx');
  await write(file, [serializeModel(mixed)]);
  return { file, modelPath: fits && typeof source === 'string' ? absolutePath(source) : file };
}

/**
 * Moves the model's weights to a file in `target`. That folder must then hold all external data: this file, and links
 * to the existing files.
 */
async function moveWeights(
  model: ModelProto,
  target: string,
  directory: string | undefined,
): Promise<ModelProto> {
  const weights = 'node-tensorrt-weights.bin';
  const pieces: Uint8Array[] = [];
  let offset = 0;
  const initializer: TensorProto[] = [];
  const links = new Set<string>();
  for (const tensor of model.graph.initializer) {
    if (isExternal(tensor)) links.add(externalData(tensor, directory!)!.location);
    const { rawData, ...rest } = tensor;
    if (!rawData || rawData.length < 1024) {
      initializer.push(tensor);
      continue;
    }
    const entries = { location: weights, offset: String(offset), length: String(rawData.length) };
    const externalEntries = Object.entries(entries).map(([key, value]) => ({ key, value }));
    initializer.push({ ...rest, dataLocation: 1, externalData: externalEntries });
    pieces.push(rawData);
    offset += rawData.length;
  }
  for (const name of links) {
    const link = path.join(target, name);
    await makeDirectories(path.dirname(link));
    await symlink(path.join(directory!, name), link);
  }
  await write(path.join(target, weights), pieces);
  return { ...model, graph: { ...model.graph, initializer } };
}

async function write(file: string, pieces: readonly Uint8Array[]): Promise<void> {
  try {
    await writePieces(file, 'wx', pieces);
  } catch (cause) {
    throw new TensorRTError(
      'ERR_IO',
      `Could not write ${file}, which the build needs: ${(cause as Error).message}. Set TMPDIR to another folder.`,
      { cause },
    );
  }
}

onModelThread(module, prepare);
