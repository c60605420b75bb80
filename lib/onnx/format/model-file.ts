import { invalidArgType, TensorRTError } from '../../base/errors.js';
import { type Bytes, bytesOf, checkPath } from '../../base/options.js';
import { writeAtomically } from '../../system/files/atomic-file.js';
import { otherThanBinary } from '../../system/files/file-format.js';
import { readWhole } from '../../system/files/file-range.js';
import type { ModelProto } from './model.js';
import { decodeMessage } from './protobuf/decode.js';
import { encodeMessage } from './protobuf/encode.js';
import { model } from './schema.js';

/**
 * Parses the bytes of an `.onnx` file. The tensors' raw data isn't copied: the model holds views of the bytes, which
 * must not change while the model is in use.
 *
 * @throws TensorRTError ERR_MODEL_INVALID if the bytes aren't an ONNX model; the message names the byte offset.
 *   TypeError ERR_INVALID_ARG_TYPE
 */
export function parseModel(source: Bytes): ModelProto {
  const bytes = bytesOf(source, 'bytes');
  if (!bytes) throw invalidArgType('bytes', 'a Uint8Array or an ArrayBuffer', source);
  if (bytes.length === 0)
    throw new TensorRTError('ERR_MODEL_INVALID', 'This is no ONNX model: it has no bytes.');
  try {
    const parsed = decodeMessage(model, bytes) as Partial<ModelProto>;
    if (parsed.irVersion === undefined || parsed.irVersion < 1) throw noModel('no ir_version');
    if (parsed.graph === undefined) throw noModel('no graph');
    // Before version 3 of the format, models didn't say which operator set they use. In that case it is version 1.
    if (!parsed.opsetImport?.length && parsed.irVersion >= 3) throw noModel('no opset_import');
    return parsed as ModelProto;
  } catch (error) {
    const isInvalid = error instanceof TensorRTError && error.code === 'ERR_MODEL_INVALID';
    const other = isInvalid ? otherThanBinary(bytes) : undefined;
    if (!other) throw error;
    throw new TensorRTError('ERR_MODEL_INVALID', `This is ${other}`, { cause: error });
  }
}

function noModel(lack: string): TensorRTError {
  return new TensorRTError('ERR_MODEL_INVALID', `This is no ONNX model: the file parses, but has ${lack}.`);
}

/**
 * Returns the bytes of an `.onnx` file. They share nothing with the model.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED above 2 GiB: such a model must keep its weights as external data
 */
export function serializeModel(value: ModelProto): Uint8Array {
  return encodeMessage(model, value);
}

/**
 * Reads an `.onnx` file. Weights in other files stay there: see `tensorBytes`.
 *
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO
 * @example
 * ```js
 * import { readModel, tensorElements, tensorSize } from 'node-tensorrt/onnx';
 *
 * const { graph, opsetImport } = await readModel('model.onnx');
 * console.log(opsetImport, graph.node.map(({ opType }) => opType));
 * for (const weight of graph.initializer) console.log(weight.name, tensorSize(weight), tensorElements(weight));
 * ```
 */
export async function readModel(path: string): Promise<ModelProto> {
  checkPath(path, 'path');
  return parsedFile(path, await readWhole(path, 'model'));
}

/** Parses the bytes of a file. Errors name the file. @throws as {@link parseModel} */
export function parsedFile(path: string, bytes: Uint8Array): ModelProto {
  try {
    return parseModel(bytes);
  } catch (error) {
    if (error instanceof TensorRTError && error.code === 'ERR_MODEL_INVALID') {
      throw new TensorRTError('ERR_MODEL_INVALID', `${path}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

/**
 * Writes an `.onnx` file. If writing fails, no partial file is left.
 *
 * @throws (rejects) TensorRTError ERR_IO; ERR_MODEL_UNSUPPORTED above 2 GiB
 */
export async function writeModel(value: ModelProto, path: string): Promise<void> {
  checkPath(path, 'path');
  await writeAtomically(path, [serializeModel(value)], 'model');
}
