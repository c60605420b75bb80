import { isAbsolute, join, normalize } from 'node:path';
import { type DataType, dataTypeFromOnnx, dataTypes } from '../../base/data-type.js';
import { invalidArgValue, TensorRTError } from '../../base/errors.js';
import { rangeLength, readRangeWhole, sizeOfWeights } from '../../system/files/file-range.js';
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

/** Options of functions that read external data. */
export interface ExternalDataOptions {
  /** The folder of the `.onnx` file: external data is named relative to it. */
  directory?: string;
}

/** The place of a tensor's elements in another file. */
export interface ExternalData {
  /** Relative to the model's folder, without detours. */
  readonly location: string;
  /** The location, joined with the model's folder. */
  readonly path: string;
  /** The offset of the first element, in bytes. */
  readonly offset: number;
  /** The length in bytes; undefined for as many bytes as the type and the dimensions need. */
  readonly length: number | undefined;
}

const label = (tensor: TensorProto): string =>
  tensor.name ? `Tensor "${tensor.name}"` : 'A tensor without a name';

/** Dimensions in an error text, which a file with a million of them must not blow up. */
export function dimsText(dims: readonly number[]): string {
  return dims.length <= 32 ? `[${dims}]` : `[${dims.slice(0, 32)},…: ${dims.length} dimensions]`;
}

/**
 * Returns the element type of a tensor.
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
 * Returns the number of elements: the product of the dimensions, 1 for a scalar.
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

/** Returns true if a tensor's elements lie in another file. */
export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === 1;
}

/**
 * Returns the place of a tensor's elements outside the model, or undefined if they are inside.
 *
 * The location comes with the model, which may be anyone's, so it must stay in the model's folder. ONNX Runtime
 * requires the same. `sub/../weights.bin` does.
 *
 * @throws TensorRTError ERR_MODEL_INVALID for a location that is absolute, leaves the folder or is missing, and for an
 *   offset or length that isn't a number of bytes
 */
export function externalData(tensor: TensorProto, directory: string): ExternalData | undefined {
  if (!isExternal(tensor)) return undefined;
  const entries = new Map(tensor.externalData?.map((entry) => [entry.key, entry.value]));
  const location = entries.get('location');
  if (!location)
    throw new TensorRTError('ERR_MODEL_INVALID', `${label(tensor)} has external data without a location.`);
  const within = locationWithin(directory, location);
  if (within === undefined) {
    throw new TensorRTError(
      'ERR_MODEL_INVALID',
      `${label(tensor)} has external data at ${JSON.stringify(location)}, outside the model's folder.`,
    );
  }
  return {
    location: within,
    path: join(directory, within),
    offset: byteCount(tensor, 'offset', entries.get('offset')) ?? 0,
    length: byteCount(tensor, 'length', entries.get('length')),
  };
}

/** Absolute, here or on Windows, or with Windows' way up. */
const rooted = /^[\\/]|^[A-Za-z]:|(?:^|[\\/])\.\.\\|\\\.\.(?:[\\/]|$)/;

/** A location without detours, if it stays in the model's folder. */
function locationWithin(directory: string, location: string): string | undefined {
  if (location.includes('\0') || isAbsolute(location) || rooted.test(location)) return undefined;
  // The folder may be relative, to a working directory that need not exist.
  const folder = normalize(`${directory || '.'}/`);
  const file = join(directory, location);
  if (folder !== './' && !file.startsWith(folder)) return undefined;
  const within = folder === './' ? file : file.slice(folder.length);
  return /^(?:\.?\/?|\.\.(?:\/.*)?)$/s.test(within) ? undefined : within;
}

/** All tensors of a model that lie in other files, wherever it has them. */
export function externalTensors({ graph, functions = [] }: ModelProto): TensorProto[] {
  const found: TensorProto[] = [];
  const addTensors = (tensors: readonly (TensorProto | undefined)[]) => {
    for (const tensor of tensors) if (tensor && isExternal(tensor)) found.push(tensor);
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
  return found;
}

/**
 * The locations of all external data of a model in `directory`, relative to it and without detours, in the order of
 * names; without those that {@link externalData} refuses.
 */
export function externalLocations(model: ModelProto, directory: string): string[] {
  const locations = new Set<string>();
  for (const tensor of externalTensors(model)) {
    try {
      locations.add(externalData(tensor, directory)!.location);
    } catch {
      // Reading the tensor tells what is wrong with it.
    }
  }
  return [...locations].sort();
}

/**
 * Takes the detours out of the locations of a model's external data, in place, whose paths TensorRT's parser neither takes
 * nor walks as others do. Returns whether there were any.
 *
 * @throws what {@link externalData} throws
 */
export function straightenLocations(model: ModelProto, directory: string): boolean {
  let isChanged = false;
  for (const tensor of externalTensors(model)) {
    const { location } = externalData(tensor, directory)!;
    tensor.externalData = tensor.externalData!.map((entry) => {
      if (entry.key !== 'location' || entry.value === location) return entry;
      isChanged = true;
      return { ...entry, value: location };
    });
  }
  return isChanged;
}

/**
 * Checks, without reading it, that the external data of a model is there and whole.
 *
 * @throws TensorRTError ERR_MODEL_NOT_FOUND when a file is missing; ERR_MODEL_INVALID for one that is too short or what a
 * failed download left, without a folder, and for what {@link externalData} refuses; ERR_IO.
 */
export function checkExternalData(model: ModelProto, { directory }: ExternalDataOptions): void {
  const sizes = new Map<string, number>();
  for (const tensor of externalTensors(model)) {
    const { path, offset, length } = externalData(tensor, directory ?? '')!;
    if (directory === undefined) throw withoutFolder(tensor, path);
    const size = sizes.get(path) ?? sizeOfWeights(path, label(tensor));
    sizes.set(path, size);
    const type = dataTypeFromOnnx(tensor.dataType);
    const needed =
      type === undefined || type === 'string' ? length : tensorSize(tensor) * dataTypes[type].byteSize;
    if (length !== undefined && length !== needed) throw wrongLength(tensor, length, needed!);
    rangeLength(path, label(tensor), { offset, length: needed }, size);
  }
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
 * Returns a tensor's elements as little-endian bytes, row-major, whatever field they are stored in. Raw data is returned as
 * a view; typed fields and external data (read now, blocking) are copied.
 *
 * @throws TensorRTError ERR_MODEL_INVALID when the elements are missing, too few or too many, or their file is not
 * where it may be, or the folder isn't known; ERR_MODEL_NOT_FOUND when that file is missing; ERR_MODEL_UNSUPPORTED for strings and for types
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
    const where = externalData(tensor, options.directory ?? '')!;
    if (options.directory === undefined) throw withoutFolder(tensor, where.path);
    if (where.length !== undefined && where.length !== byteLength)
      throw wrongLength(tensor, where.length, byteLength);
    bytes = readRangeWhole(where.path, label(tensor), { offset: where.offset, length: byteLength });
  } else {
    bytes = tensor.rawData ?? typedFieldBytes(tensor, type, size);
  }
  if (bytes.length !== byteLength) throw wrongLength(tensor, bytes.length, byteLength);
  return bytes;
}

function withoutFolder(tensor: TensorProto, location: string): TensorRTError {
  return new TensorRTError(
    'ERR_MODEL_INVALID',
    `${label(tensor)} lies in the file ${location} beside the model, whose folder isn't known: give the model's path, not its bytes.`,
  );
}

function wrongLength(tensor: TensorProto, actual: number, expected: number): TensorRTError {
  return new TensorRTError(
    'ERR_MODEL_INVALID',
    `${label(tensor)} of dimensions ${dimsText(tensor.dims)} needs ${expected} bytes of data and has ${actual}.`,
  );
}

/** The typed field that holds each element type, from the comments of TensorProto in the ONNX standard. */
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
 * Returns a tensor's elements as a typed array: a view where the data's alignment allows, else a copy.
 * Throws the same errors as {@link tensorBytes}.
 */
export function tensorElements(tensor: TensorProto, options: ExternalDataOptions = {}): ElementArray {
  const bytes = tensorBytes(tensor, options);
  return viewAs(tensorDataType(tensor) as Exclude<DataType, 'string'>, bytes);
}

/** Bytes as elements of a type: a view where the alignment allows, else a copy. */
export function viewAs(type: Exclude<DataType, 'string'>, bytes: Uint8Array): ElementArray {
  const { byteSize } = dataTypes[type];
  // slice() isn't used, because for a Buffer it returns a view.
  const aligned = bytes.byteOffset % byteSize === 0 ? bytes : new Uint8Array(bytes);
  return new elementArrays[type](
    aligned.buffer as ArrayBuffer,
    aligned.byteOffset,
    aligned.byteLength / byteSize,
  );
}

/**
 * Makes a tensor from elements. The tensor's raw data is a view of `data`: nothing is copied.
 *
 * @param data typed array of the type, or its little-endian bytes.
 * @throws RangeError ERR_INVALID_ARG_VALUE when the data's length contradicts the dimensions.
 * @example
 * ```js
 * import { makeTensor, tensorElements } from 'node-tensorrt/onnx';
 *
 * const tensor = makeTensor('w', 'float32', [2, 2], new Float32Array([1, 2, 3, 4]));
 * console.log(tensorElements(tensor));
 * ```
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
