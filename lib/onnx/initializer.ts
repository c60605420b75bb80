import { isAbsolute, join, normalize, sep } from 'node:path';
import { type DataType, dataTypeFromOnnx, dataTypes } from '../data-type.js';
import { invalidArgValue, TensorRTError } from '../errors.js';
import { readRangeWhole } from './file-range.js';
import type { GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto } from './model.js';

/** Elements of a tensor; float16 and bfloat16 are bit patterns in a Uint16Array, bool is 0 or 1 in a Uint8Array. */
export type ElementArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

const elementArrays = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
} as const;

/** Where a model's external data lies. */
export interface ExternalDataOptions {
  /** The folder of the `.onnx` file: external data is named relative to it. */
  directory?: string;
}

/** Where the elements of a tensor lie in another file. */
export interface ExternalData {
  /** Joined with the model's folder. */
  readonly path: string;
  /** In bytes. */
  readonly offset: number;
  /** In bytes; undefined: as many as the type and the dimensions need. */
  readonly length: number | undefined;
}

const label = (tensor: TensorProto): string =>
  tensor.name ? `Tensor "${tensor.name}"` : 'A tensor without a name';

/** Dimensions in an error text, which a file with a million of them must not blow up. */
export function dimsText(dims: readonly number[]): string {
  return dims.length <= 32 ? `[${dims}]` : `[${dims.slice(0, 32)},…: ${dims.length} dimensions]`;
}

/**
 * The element type.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED for the ones this package doesn't handle (complex, float8, int4 …).
 */
export function tensorDataType(tensor: TensorProto): DataType {
  const type = dataTypeFromOnnx(tensor.dataType);
  if (type === undefined) {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `${label(tensor)} has ONNX element type ${tensor.dataType}, which node-tensorrt doesn't handle.`,
    );
  }
  return type;
}

/**
 * The number of elements: the product of the dimensions, 1 for a scalar.
 *
 * @throws TensorRTError ERR_MODEL_INVALID for a negative dimension or an impossible product.
 */
export function tensorSize(tensor: TensorProto): number {
  let size = 1;
  for (const dim of tensor.dims) size *= dim;
  if (!Number.isSafeInteger(size) || tensor.dims.some((d) => d < 0)) {
    throw new TensorRTError(
      'ERR_MODEL_INVALID',
      `${label(tensor)} has impossible dimensions ${dimsText(tensor.dims)}.`,
    );
  }
  return size;
}

/** Whether the elements lie in another file. */
export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === 1;
}

/**
 * Where a tensor's elements lie outside the model, or undefined if they are inside.
 *
 * The location comes with the model, which may be anyone's: it must stay in the model's folder.
 *
 * @throws TensorRTError ERR_MODEL_INVALID for a location that is absolute, leaves the folder or is missing, and for
 * an offset or length that isn't a number of bytes.
 */
export function externalData(tensor: TensorProto, directory: string): ExternalData | undefined {
  if (!isExternal(tensor)) return undefined;
  const entries = new Map(tensor.externalData?.map((entry) => [entry.key, entry.value]));
  const location = entries.get('location');
  if (!location)
    throw new TensorRTError('ERR_MODEL_INVALID', `${label(tensor)} has external data without a location.`);
  const normal = normalize(location);
  if (
    isAbsolute(location) ||
    /^[\\/]|^[A-Za-z]:/.test(location) ||
    location.includes('\0') ||
    location.split(/[\\/]/).includes('..') ||
    normal === '.' ||
    normal.startsWith(`..${sep}`)
  ) {
    throw new TensorRTError(
      'ERR_MODEL_INVALID',
      `${label(tensor)} has external data at ${JSON.stringify(location)}, outside the model's folder.`,
    );
  }
  return {
    path: join(directory, normal),
    offset: byteCount(tensor, 'offset', entries.get('offset')) ?? 0,
    length: byteCount(tensor, 'length', entries.get('length')),
  };
}

/**
 * The locations of all external data of a model, wherever its tensors are, in the order of names; without those that
 * {@link externalData} refuses.
 */
export function externalLocations({ graph, functions = [] }: ModelProto): string[] {
  const locations = new Set<string>();
  const addTensors = (tensors: readonly (TensorProto | undefined)[]) => {
    for (const tensor of tensors) {
      if (!tensor || !isExternal(tensor)) continue;
      try {
        locations.add(externalData(tensor, '')!.path);
      } catch {
        // Who reads the tensor says what is wrong with it.
      }
    }
  };
  const addSparse = (tensors: readonly SparseTensorProto[] = []) => {
    for (const { values, indices } of tensors) addTensors([values, indices]);
  };
  const addNodes = (nodes: readonly NodeProto[]) => {
    for (const { t, tensors = [], sparseTensor, sparseTensors, g, graphs = [] } of nodes.flatMap(
      (node) => node.attribute,
    )) {
      addTensors([t, ...tensors]);
      addSparse([...(sparseTensor ? [sparseTensor] : []), ...(sparseTensors ?? [])]);
      for (const subgraph of [...(g ? [g] : []), ...graphs]) addGraph(subgraph);
    }
  };
  const addGraph = ({ initializer, sparseInitializer, node }: GraphProto) => {
    addTensors(initializer);
    addSparse(sparseInitializer);
    addNodes(node);
  };
  addGraph(graph);
  for (const { node } of functions) addNodes(node);
  return [...locations].sort();
}

function byteCount(tensor: TensorProto, key: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const count = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(count)) {
    throw new TensorRTError(
      'ERR_MODEL_INVALID',
      `${label(tensor)} has external data with ${key} ${JSON.stringify(value)}, which is no number of bytes.`,
    );
  }
  return count;
}

/**
 * A tensor's elements as little-endian bytes, row-major, whatever field they are stored in. Raw data is returned as
 * a view; typed fields and external data (read now, blocking) are copied.
 *
 * @throws TensorRTError ERR_MODEL_INVALID when the elements are missing, too few or too many, or their file is not
 * where it may be; ERR_MODEL_NOT_FOUND when that file is missing; ERR_MODEL_UNSUPPORTED for strings and for types
 * this package doesn't handle.
 */
export function tensorBytes(tensor: TensorProto, options: ExternalDataOptions = {}): Uint8Array {
  const type = tensorDataType(tensor);
  if (type === 'string') {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `${label(tensor)} holds strings, which have no byte form.`,
    );
  }
  const size = tensorSize(tensor);
  const byteLength = size * dataTypes[type].byteSize;
  let bytes: Uint8Array;
  if (isExternal(tensor)) {
    const where = externalData(tensor, options.directory ?? '.')!;
    if (options.directory === undefined) {
      throw new TensorRTError(
        'ERR_MODEL_INVALID',
        `${label(tensor)} has external data at ${where.path}, but the model's folder isn't known.`,
      );
    }
    if (where.length !== undefined && where.length !== byteLength)
      throw wrongLength(tensor, where.length, byteLength);
    bytes = readRangeWhole(where.path, label(tensor), { offset: where.offset, length: byteLength });
  } else {
    bytes = tensor.rawData ?? typedFieldBytes(tensor, type, size);
  }
  if (bytes.length !== byteLength) throw wrongLength(tensor, bytes.length, byteLength);
  return bytes;
}

function wrongLength(tensor: TensorProto, actual: number, expected: number): TensorRTError {
  return new TensorRTError(
    'ERR_MODEL_INVALID',
    `${label(tensor)} of dimensions ${dimsText(tensor.dims)} needs ${expected} bytes of data and has ${actual}.`,
  );
}

/** Which typed field holds which element type: the comments of TensorProto in the ONNX standard. */
function typedFieldBytes(tensor: TensorProto, type: Exclude<DataType, 'string'>, size: number): Uint8Array {
  let stored: ElementArray | undefined;
  switch (type) {
    case 'float32':
      stored = tensor.floatData;
      break;
    case 'float64':
      stored = tensor.doubleData;
      break;
    case 'int64':
      stored = tensor.int64Data;
      break;
    case 'uint64':
      stored = tensor.uint64Data;
      break;
    case 'uint32':
      stored = tensor.uint64Data && Uint32Array.from(tensor.uint64Data, Number);
      break;
    case 'int32':
      stored = tensor.int32Data;
      break;
    default:
      // Narrow types take one int32 an element; what doesn't fit wraps, as in a C cast.
      stored = tensor.int32Data && new elementArrays[type](tensor.int32Data);
  }
  if (stored === undefined) {
    if (size === 0) return new Uint8Array(0);
    throw new TensorRTError('ERR_MODEL_INVALID', `${label(tensor)} has no data.`);
  }
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

/**
 * A tensor's elements as a typed array: a view where the data's alignment allows, else a copy.
 * Errors as {@link tensorBytes}.
 */
export function tensorElements(tensor: TensorProto, options: ExternalDataOptions = {}): ElementArray {
  const bytes = tensorBytes(tensor, options);
  return viewAs(tensorDataType(tensor) as Exclude<DataType, 'string'>, bytes);
}

/** Bytes as elements of a type: a view where the alignment allows, else a copy. */
export function viewAs(type: Exclude<DataType, 'string'>, bytes: Uint8Array): ElementArray {
  const { byteSize } = dataTypes[type];
  // Not slice(): of a Buffer that would be a view.
  const aligned = bytes.byteOffset % byteSize === 0 ? bytes : new Uint8Array(bytes);
  return new elementArrays[type](
    aligned.buffer as ArrayBuffer,
    aligned.byteOffset,
    aligned.byteLength / byteSize,
  );
}

/**
 * A tensor from elements. The tensor's raw data is a view of `data`: nothing is copied.
 *
 * @param data typed array of the type, or its little-endian bytes.
 * @throws RangeError ERR_INVALID_ARG_VALUE when the data's length contradicts the dimensions.
 */
export function makeTensor(
  name: string,
  type: Exclude<DataType, 'string'>,
  dims: readonly number[],
  data: ElementArray,
): TensorProto {
  const tensor: TensorProto = { name, dataType: dataTypes[type].onnx, dims: [...dims] };
  const expected = tensorSize(tensor) * dataTypes[type].byteSize;
  if (data.byteLength !== expected) {
    throw invalidArgValue(
      'data',
      `of "${name}" has ${data.byteLength} bytes; [${dims}] ${type} needs ${expected}.`,
    );
  }
  tensor.rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return tensor;
}
