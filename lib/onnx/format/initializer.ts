import { isAbsolute, join, normalize } from 'node:path';
import { type DataType, dataTypeFromOnnx, dataTypes } from '../../base/data-type.js';
import { invalidArgValue, TensorRTError } from '../../base/errors.js';
import { rangeLength, readRangeWhole, sizeOfWeights } from '../../system/files/file-range.js';
import type { GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto } from './model.js';

/** The elements of a tensor. float16 and bfloat16 are bit patterns in a Uint16Array, bool is 0 or 1 in a Uint8Array. */
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
  /** The folder of the `.onnx` file. The locations of external data are relative to it. */
  directory?: string;
}

/** The place of a tensor's elements in another file. */
export interface ExternalData {
  /** The file's path, relative to the model's folder and normalised. */
  readonly location: string;
  /** The location joined with the model's folder. */
  readonly path: string;
  /** The offset of the first element, in bytes. */
  readonly offset: number;
  /** The length in bytes; undefined if the model doesn't give it. Then it follows from the type and the dimensions. */
  readonly length: number | undefined;
}

const label = (tensor: TensorProto): string =>
  tensor.name ? `Tensor "${tensor.name}"` : 'A tensor without a name';

/** Formats dimensions for an error message. A file may have a million of them, so only the first are listed. */
export function dimsText(dims: readonly number[]): string {
  return dims.length <= 32 ? `[${dims}]` : `[${dims.slice(0, 32)},…: ${dims.length} dimensions]`;
}

/**
 * Returns the element type of a tensor.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED for types that this package doesn't handle (complex, float8, int4 …)
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

/** Returns true if a tensor's elements are in another file. */
export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === 1;
}

/**
 * Returns the place of a tensor's elements outside the model, or undefined if they are inside.
 *
 * The location comes with the model, which may be from anyone, so it must stay in the model's folder, as
 * `sub/../weights.bin` does. ONNX Runtime requires the same.
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

/** Matches a path that is absolute, here or on Windows, or that goes up with a backslash, as on Windows. */
const rooted = /^[\\/]|^[A-Za-z]:|(?:^|[\\/])\.\.\\|\\\.\.(?:[\\/]|$)/;

/** Returns the normalised location; undefined if it isn't a file in the model's folder. */
function locationWithin(directory: string, location: string): string | undefined {
  if (location.includes('\0') || isAbsolute(location) || rooted.test(location)) return undefined;
  // The folder may be relative to a working directory that no longer exists.
  const folder = normalize(`${directory || '.'}/`);
  const file = join(directory, location);
  if (folder !== './' && !file.startsWith(folder)) return undefined;
  const within = folder === './' ? file : file.slice(folder.length);
  return /^(?:\.?\/?|\.\.(?:\/.*)?)$/s.test(within) ? undefined : within;
}

/** Returns all tensors of a model whose elements are in other files, wherever in the model the tensors are. */
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
 * Returns the locations of all external data of a model in `directory`, relative to it, normalised and sorted.
 * Locations that {@link externalData} refuses are left out.
 */
export function externalLocations(model: ModelProto, directory: string): string[] {
  const locations = new Set<string>();
  for (const tensor of externalTensors(model)) {
    try {
      locations.add(externalData(tensor, directory)!.location);
    } catch {
      // Reading the tensor reports what is wrong with it.
    }
  }
  return [...locations].sort();
}

/**
 * Normalises the locations of a model's external data in place, because TensorRT's parser either refuses detours such
 * as `sub/..` or resolves them in another way. Returns whether any location changed.
 *
 * @throws the errors of {@link externalData}
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
 * Checks that the external data of a model exists and is complete, without reading it.
 *
 * @throws TensorRTError ERR_MODEL_NOT_FOUND if a file is missing; ERR_MODEL_INVALID if a file is too short or left over
 *   from a failed download, if the folder isn't known, and for locations that {@link externalData} refuses; ERR_IO
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
 * Returns a tensor's elements as little-endian bytes, row-major, whichever field stores them. Raw data is returned as a
 * view, and so is a typed field that needs no conversion. External data is read now, which blocks.
 *
 * @throws TensorRTError ERR_MODEL_INVALID if the elements are missing, too few or too many, if their file isn't in the
 *   model's folder, or if that folder isn't known; ERR_MODEL_NOT_FOUND if the file is missing; ERR_MODEL_UNSUPPORTED
 *   for strings and for types that this package doesn't handle
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

/**
 * Returns the bytes of the typed field that holds the elements, according to the comments on TensorProto in the ONNX
 * standard.
 */
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
      // Narrow types take one int32 per element. Numbers that don't fit wrap around, as in a C cast.
      stored = tensor.int32Data && new elementArrays[type](tensor.int32Data);
  }
  if (stored === undefined) {
    if (size === 0) return new Uint8Array(0);
    throw new TensorRTError('ERR_MODEL_INVALID', `${label(tensor)} has no data.`);
  }
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

/**
 * Returns a tensor's elements as a typed array: a view if the data's alignment allows it, and a copy otherwise.
 *
 * @throws the errors of {@link tensorBytes}
 */
export function tensorElements(tensor: TensorProto, options: ExternalDataOptions = {}): ElementArray {
  const bytes = tensorBytes(tensor, options);
  return viewAs(tensorDataType(tensor) as Exclude<DataType, 'string'>, bytes);
}

/** Returns bytes as elements of a type: a view if the alignment allows it, and a copy otherwise. */
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
 * Makes a tensor from elements. The tensor's raw data is a view of `data`, so nothing is copied.
 *
 * @param data a typed array of the type, or its little-endian bytes
 * @throws RangeError ERR_INVALID_ARG_VALUE if the data's length contradicts the dimensions
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
