import path from 'node:path';
import { createHash } from '../base/crypto.js';
import { dataTypeFromOnnx, dataTypes } from '../base/data-type.js';
import { describe, invalidArgValue, TensorRTError } from '../base/errors.js';
import {
  checkExternalData,
  dimsText,
  externalLocations,
  externalTensors,
  isExternal,
  tensorBytes,
} from '../onnx/format/initializer.js';
import type { ModelProto, TensorProto } from '../onnx/format/model.js';
import { parsedFile, writeModel } from '../onnx/format/model-file.js';
import { type Piece, writeAtomically } from '../system/files/atomic-file.js';
import { readWhole } from '../system/files/file-range.js';
import { realpath } from '../system/files/promises.js';
import { absolutePath } from '../system/files/working-directory.js';
import type { NativeBytes } from '../system/native/bytes.js';
import { native } from '../system/native.js';
import type { MaskSetContents } from './mask-set-contents.js';
import { readPruneModelOptions } from './prune-model-options.js';
import { shrinkNeurons, type Taken } from './shrink-neurons.js';
import { nativeMaskOf, type SparseMask } from './sparse-mask.js';
import { externalBytes, withExternalBytes, withWeightBytes } from './weight-bytes.js';

/**
 * Prunes a model. Resolves with the SHA-256 of the given file, in hexadecimal.
 * @throws (rejects) as `pruneModel`
 */
export async function writePruned(
  model: string,
  masks: MaskSetContents,
  out: string,
  options: unknown,
): Promise<string> {
  const { onProgress, shrink, signal } = readPruneModelOptions(options);
  signal?.throwIfAborted();
  const hash = createHash('sha256');
  const source = parsedFile(model, await readWhole(model, 'model', (piece) => hash.update(piece)));
  const sha256 = hash.digest('hex');
  const directory = path.dirname(absolutePath(model));
  checkExternalData(source, { directory });
  const data = `${path.basename(out)}.data`;
  await checkTarget(model, source, directory, out, data);
  const masked = await maskedWeights(source, masks, directory, signal);

  let done = 0;
  const report = (tensor: TensorProto) => {
    signal?.throwIfAborted();
    if (masked.has(tensor)) onProgress?.({ weight: tensor.name!, done: done++, total: masked.size });
  };
  // The parsed model is this function's own, so its tensors are changed in place.
  const taken: TakenSlices = shrink ? shrinkNeurons(source, masked) : new Map();
  for (const tensor of new Set([...masked.keys(), ...taken.keys()])) {
    if (isExternal(tensor)) continue;
    report(tensor);
    await changeInline(tensor, masked.get(tensor), taken.get(tensor));
  }
  const pieces = moveExternal(source, { masked, taken }, directory, data, report);
  if (pieces.length > 0)
    await writeAtomically(path.join(path.dirname(absolutePath(out)), data), pieces, 'weights');
  await writeModel(source, out);
  return sha256;
}

/** Where runtimes map files, tensors should begin at multiples of a cache line. */
const alignment = 64;

type Masked = ReadonlyMap<TensorProto, SparseMask>;
type TakenSlices = ReadonlyMap<TensorProto, Taken>;

/**
 * Names a new file as the place of all external data. Returns the pieces of that file, which are read, and masked, when
 * they are written.
 */
function moveExternal(
  model: ModelProto,
  { masked, taken }: { masked: Masked; taken: TakenSlices },
  directory: string,
  location: string,
  report: (tensor: TensorProto) => void,
): Piece[] {
  const pieces: Piece[] = [];
  let end = 0;
  for (const tensor of externalTensors(model)) {
    const original = { ...tensor };
    const mask = masked.get(tensor);
    const slices = taken.get(tensor);
    const givenBytes = externalBytes(tensor, directory);
    if (slices) tensor.dims = takenDims(tensor.dims, slices);
    const byteLength = slices ? externalBytes(tensor, directory) : givenBytes;
    const offset = Math.ceil(end / alignment) * alignment;
    pieces.push(new Uint8Array(offset - end), {
      writeTo: (descriptor) => {
        report(tensor);
        return withExternalBytes(original, givenBytes, directory, async (bytes) => {
          if (slices) {
            const elements = await takeFrom(original, bytes, mask, slices);
            await new (native().NativeBytes)(elements).writeTo(descriptor);
          } else if (mask) {
            await nativeMaskOf(mask).writeApplied(bytes, elementBytes(original), descriptor);
          } else {
            await bytes.writeTo(descriptor);
          }
        });
      },
    });
    tensor.externalData = Object.entries({ location, offset, length: byteLength }).map(([key, value]) => ({
      key,
      value: String(value),
    }));
    end = offset + byteLength;
  }
  return pieces;
}

const takenDims = (dims: readonly number[], { axis, positions }: Taken) =>
  dims.map((dim, d) => (d === axis ? positions.length : dim));

/** The elements of a weight's slices that stay, masked. */
async function takeFrom(
  tensor: TensorProto,
  bytes: NativeBytes,
  mask: SparseMask | undefined,
  { axis, positions }: Taken,
): Promise<Uint8Array> {
  const { dims } = tensor;
  const elements = { bytes, dims, elementBytes: elementBytes(tensor), axis, positions };
  const result = await native().takeSlices({ ...elements, ...(mask ? { mask: nativeMaskOf(mask) } : {}) });
  return new Uint8Array(result);
}

/** Masks a weight that lies in the model's own file, and leaves slices out. */
async function changeInline(
  tensor: TensorProto,
  mask: SparseMask | undefined,
  slices: Taken | undefined,
): Promise<void> {
  const bytes = tensorBytes(tensor);
  if (slices) {
    tensor.rawData = await takeFrom(tensor, new (native().NativeBytes)(bytes), mask, slices);
    tensor.dims = takenDims(tensor.dims, slices);
  } else {
    tensor.rawData = await maskBytes(tensor, bytes, mask!);
  }
  delete tensor.floatData;
  delete tensor.int32Data;
}

async function maskBytes(tensor: TensorProto, bytes: Uint8Array, mask: SparseMask): Promise<Uint8Array> {
  const buffer = new (native().HostBuffer)(bytes.length);
  const { arrayBuffer } = buffer;
  if (arrayBuffer) {
    new Uint8Array(arrayBuffer).set(bytes);
    await nativeMaskOf(mask).applyOnThread(buffer, elementBytes(tensor), true);
  }
  // A host without ArrayBuffers over native memory masks on this thread.
  return new Uint8Array(arrayBuffer ?? nativeMaskOf(mask).apply(bytes, elementBytes(tensor), false)!);
}

const elementBytes = (tensor: TensorProto) => dataTypes[dataTypeFromOnnx(tensor.dataType)!].byteSize;

/**
 * Finds the weights of masks, and checks that they are those that the masks were made for.
 * @throws (rejects) TensorRTError ERR_MASK_MISMATCH
 */
async function maskedWeights(
  { graph }: ModelProto,
  { entries }: MaskSetContents,
  directory: string,
  signal: AbortSignal | undefined,
): Promise<Masked> {
  const initializers = new Map(graph.initializer.map((tensor) => [tensor.name, tensor]));
  const masked = new Map<TensorProto, SparseMask>();
  for (const [name, { mask, weight }] of entries) {
    signal?.throwIfAborted();
    const mismatch = (problem: string) =>
      new TensorRTError('ERR_MASK_MISMATCH', `The mask of "${name}" is for another model: ${problem}.`);
    const tensor = initializers.get(name);
    if (!tensor) throw mismatch('this one has no weight of that name');
    if (String(tensor.dims) !== String(mask.dims)) {
      throw mismatch(
        `its dimensions are ${dimsText(mask.dims)}, and the weight's are ${dimsText(tensor.dims)}`,
      );
    }
    const type = dataTypeFromOnnx(tensor.dataType);
    if (type === undefined || type === 'string') {
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `The weight "${name}" can't be masked: its type is ${type ?? `ONNX's number ${tensor.dataType}`}.`,
      );
    }
    if (weight && weight.type !== type)
      throw mismatch(`it was made for ${weight.type}, and the weight is ${type}`);
    if (weight) {
      const sha256 = await withWeightBytes(tensor, type, directory, (bytes) =>
        bytes.sha256(new Uint8Array(0)),
      );
      if (Buffer.from(sha256).toString('hex') !== weight.sha256) {
        throw mismatch("the weight's elements aren't those that it was made for");
      }
    }
    masked.set(tensor, mask);
  }
  return masked;
}

/** @throws (rejects) RangeError ERR_INVALID_ARG_VALUE if writing would destroy what is read */
async function checkTarget(model: string, source: ModelProto, directory: string, out: string, data: string) {
  const real = (file: string) => realpath(file).catch(() => absolutePath(file));
  if ((await real(out)) === (await real(model))) {
    throw invalidArgValue('out', `is the model itself, ${describe(model)}: name another file.`);
  }
  const target = await real(path.join(path.dirname(absolutePath(out)), data));
  for (const location of externalLocations(source, directory)) {
    if ((await real(path.join(directory, location))) !== target) continue;
    throw invalidArgValue('out', `would overwrite the model's weights in ${location}: name another file.`);
  }
}
