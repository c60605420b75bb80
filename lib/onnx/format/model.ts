import { invalidArgType, TensorRTError } from '../../base/errors.js';
import { type Bytes, bytesOf, checkPath } from '../../base/options.js';
import { writeAtomically } from '../../system/files/atomic-file.js';
import { otherThanBinary } from '../../system/files/file-format.js';
import { readWhole } from '../../system/files/file-range.js';
import { decodeMessage } from './protobuf/decode.js';
import { encodeMessage } from './protobuf/encode.js';
import { type Field, type MessageType, messageType } from './protobuf/message-type.js';

// The messages of the ONNX standard (https://onnx.ai/onnx/repo-docs/IR.html), in camel case.
//
// A singular field that wasn't in the file is undefined. Whole numbers are `number` where they count, size or
// version something, and `bigint` where they are the model's own data (`AttributeProto.i`, `ints`, 64-bit tensors).

/** What every message can carry: fields this package doesn't know, kept as they were and written back. */
interface Extensible {
  unknownFields?: Uint8Array[];
}

export interface ModelProto extends Extensible {
  /** Version of the file format; decides, for example, whether initializers must be listed as inputs (below 4). */
  irVersion: number;
  opsetImport: OperatorSetIdProto[];
  producerName?: string;
  producerVersion?: string;
  domain?: string;
  modelVersion?: bigint;
  docString?: string;
  graph: GraphProto;
  metadataProps?: StringStringEntryProto[];
  trainingInfo?: TrainingInfoProto[];
  /** Functions local to the model, which nodes call like operators. */
  functions?: FunctionProto[];
}

export interface OperatorSetIdProto extends Extensible {
  /** Absent or '' is the ONNX standard's own. */
  domain?: string;
  version: number;
}

export interface GraphProto extends Extensible {
  /** In topological order. */
  node: NodeProto[];
  name?: string;
  initializer: TensorProto[];
  sparseInitializer?: SparseTensorProto[];
  docString?: string;
  input: ValueInfoProto[];
  output: ValueInfoProto[];
  /** Types of values inside the graph, where the exporter recorded them. */
  valueInfo: ValueInfoProto[];
  quantizationAnnotation?: TensorAnnotation[];
  metadataProps?: StringStringEntryProto[];
}

export interface NodeProto extends Extensible {
  /** Names of values; '' is an optional input left out. */
  input: string[];
  /** Names of values; '' is an optional output left out. */
  output: string[];
  name?: string;
  opType: string;
  /** Absent or '' is the ONNX standard's own. */
  domain?: string;
  overload?: string;
  attribute: AttributeProto[];
  docString?: string;
  metadataProps?: StringStringEntryProto[];
}

/** `AttributeProto.AttributeType`. */
export const AttributeType = {
  FLOAT: 1,
  INT: 2,
  STRING: 3,
  TENSOR: 4,
  GRAPH: 5,
  SPARSE_TENSOR: 11,
  TYPE_PROTO: 13,
  FLOATS: 6,
  INTS: 7,
  STRINGS: 8,
  TENSORS: 9,
  GRAPHS: 10,
  SPARSE_TENSORS: 12,
  TYPE_PROTOS: 14,
} as const;

export interface AttributeProto extends Extensible {
  name: string;
  /** Inside a function: the function's attribute that gives the value. */
  refAttrName?: string;
  docString?: string;
  /** One of {@link AttributeType}; says which of the fields below holds the value. */
  type?: number;
  f?: number;
  i?: bigint;
  s?: Uint8Array;
  t?: TensorProto;
  g?: GraphProto;
  sparseTensor?: SparseTensorProto;
  tp?: TypeProto;
  floats?: number[];
  ints?: bigint[];
  strings?: Uint8Array[];
  tensors?: TensorProto[];
  graphs?: GraphProto[];
  sparseTensors?: SparseTensorProto[];
  typeProtos?: TypeProto[];
}

/** A tensor's elements lie in exactly one of the data fields, or in a file: see `initializer.ts`. */
export interface TensorProto extends Extensible {
  dims: number[];
  /** ONNX's number of the element type: see `data-type.ts`. */
  dataType: number;
  segment?: { begin?: number; end?: number } & Extensible;
  floatData?: Float32Array;
  int32Data?: Int32Array;
  stringData?: Uint8Array[];
  int64Data?: BigInt64Array;
  name?: string;
  docString?: string;
  rawData?: Uint8Array;
  /** location, offset, length … of the elements in another file, if `dataLocation` is 1. */
  externalData?: StringStringEntryProto[];
  /** 1: the elements are in another file. */
  dataLocation?: number;
  doubleData?: Float64Array;
  uint64Data?: BigUint64Array;
  metadataProps?: StringStringEntryProto[];
}

export interface SparseTensorProto extends Extensible {
  values?: TensorProto;
  indices?: TensorProto;
  dims: number[];
}

export interface ValueInfoProto extends Extensible {
  name: string;
  type?: TypeProto;
  docString?: string;
  metadataProps?: StringStringEntryProto[];
}

/** At most one of the kinds is set. */
export interface TypeProto extends Extensible {
  tensorType?: { elemType?: number; shape?: TensorShapeProto } & Extensible;
  sequenceType?: { elemType?: TypeProto } & Extensible;
  mapType?: { keyType?: number; valueType?: TypeProto } & Extensible;
  optionalType?: { elemType?: TypeProto } & Extensible;
  sparseTensorType?: { elemType?: number; shape?: TensorShapeProto } & Extensible;
  opaqueType?: { domain?: string; name?: string } & Extensible;
  denotation?: string;
}

export interface TensorShapeProto extends Extensible {
  dim: Dimension[];
}

/** A size, a symbol, or neither (unknown). */
export interface Dimension extends Extensible {
  dimValue?: number;
  dimParam?: string;
  denotation?: string;
}

export interface StringStringEntryProto extends Extensible {
  key: string;
  value: string;
}

export interface TensorAnnotation extends Extensible {
  tensorName?: string;
  quantParameterTensorNames: StringStringEntryProto[];
}

export interface TrainingInfoProto extends Extensible {
  initialization?: GraphProto;
  algorithm?: GraphProto;
  initializationBinding: StringStringEntryProto[];
  updateBinding: StringStringEntryProto[];
}

export interface FunctionProto extends Extensible {
  name?: string;
  input: string[];
  output: string[];
  attribute: string[];
  attributeProto?: AttributeProto[];
  node: NodeProto[];
  docString?: string;
  opsetImport: OperatorSetIdProto[];
  domain?: string;
  overload?: string;
  valueInfo?: ValueInfoProto[];
  metadataProps?: StringStringEntryProto[];
}

// ---- field numbers of the standard (onnx/onnx.proto) ---------------------------------------------------------------

type Kind = Exclude<Field['kind'], 'message'>;

const field =
  (kind: Kind) =>
  (number: number, name: string, count: Field['count'] = 'one', oneof?: string): Field => ({
    number,
    name,
    kind,
    count,
    ...(oneof === undefined ? {} : { oneof }),
  });

const float = field('float');
const double = field('double');
const int32 = field('int32');
const int53 = field('int53');
const int64 = field('int64');
const uint64 = field('uint64');
const string = field('string');
const text = field('text');
const bytes = field('bytes');

const message = (
  number: number,
  name: string,
  type: () => MessageType,
  count: Field['count'] = 'one',
  oneof?: string,
): Field => ({
  number,
  name,
  kind: 'message',
  count,
  message: type,
  ...(oneof === undefined ? {} : { oneof }),
});

const stringStringEntry = messageType('StringStringEntryProto', [
  string(1, 'key', 'required'),
  string(2, 'value', 'required'),
]);

const metadataProps = (number: number): Field =>
  message(number, 'metadataProps', () => stringStringEntry, 'rare');

const operatorSetId = messageType('OperatorSetIdProto', [
  string(1, 'domain'),
  int53(2, 'version', 'required'),
]);

const dimension = messageType('TensorShapeProto.Dimension', [
  int53(1, 'dimValue', 'one', 'value'),
  string(2, 'dimParam', 'one', 'value'),
  string(3, 'denotation'),
]);

const tensorShape = messageType('TensorShapeProto', [message(1, 'dim', () => dimension, 'list')]);

const tensorTypeFields = [int32(1, 'elemType'), message(2, 'shape', () => tensorShape)];
const tensorType = messageType('TypeProto.Tensor', tensorTypeFields);
const sparseTensorType = messageType('TypeProto.SparseTensor', tensorTypeFields);
const sequenceType = messageType('TypeProto.Sequence', [message(1, 'elemType', () => type)]);
const mapType = messageType('TypeProto.Map', [int32(1, 'keyType'), message(2, 'valueType', () => type)]);
const optionalType = messageType('TypeProto.Optional', [message(1, 'elemType', () => type)]);
const opaqueType = messageType('TypeProto.Opaque', [string(1, 'domain'), string(2, 'name')]);

const type: MessageType = messageType('TypeProto', [
  message(1, 'tensorType', () => tensorType, 'one', 'value'),
  message(4, 'sequenceType', () => sequenceType, 'one', 'value'),
  message(5, 'mapType', () => mapType, 'one', 'value'),
  message(9, 'optionalType', () => optionalType, 'one', 'value'),
  message(8, 'sparseTensorType', () => sparseTensorType, 'one', 'value'),
  message(7, 'opaqueType', () => opaqueType, 'one', 'value'),
  string(6, 'denotation'),
]);

const valueInfo = messageType('ValueInfoProto', [
  string(1, 'name', 'required'),
  message(2, 'type', () => type),
  text(3, 'docString'),
  metadataProps(4),
]);

const segment = messageType('TensorProto.Segment', [int53(1, 'begin'), int53(2, 'end')]);

const tensor = messageType('TensorProto', [
  int53(1, 'dims', 'list'),
  int32(2, 'dataType', 'required'),
  message(3, 'segment', () => segment),
  float(4, 'floatData', 'packed'),
  int32(5, 'int32Data', 'packed'),
  bytes(6, 'stringData', 'rare'),
  int64(7, 'int64Data', 'packed'),
  string(8, 'name'),
  text(12, 'docString'),
  bytes(9, 'rawData'),
  message(13, 'externalData', () => stringStringEntry, 'rare'),
  int32(14, 'dataLocation'),
  double(10, 'doubleData', 'packed'),
  uint64(11, 'uint64Data', 'packed'),
  metadataProps(16),
]);

const sparseTensor = messageType('SparseTensorProto', [
  message(1, 'values', () => tensor),
  message(2, 'indices', () => tensor),
  int53(3, 'dims', 'list'),
]);

const attribute: MessageType = messageType('AttributeProto', [
  string(1, 'name', 'required'),
  string(21, 'refAttrName'),
  text(13, 'docString'),
  int32(20, 'type'),
  float(2, 'f'),
  int64(3, 'i'),
  bytes(4, 's'),
  message(5, 't', () => tensor),
  message(6, 'g', () => graph),
  message(22, 'sparseTensor', () => sparseTensor),
  message(14, 'tp', () => type),
  float(7, 'floats', 'rare'),
  int64(8, 'ints', 'rare'),
  bytes(9, 'strings', 'rare'),
  message(10, 'tensors', () => tensor, 'rare'),
  message(11, 'graphs', () => graph, 'rare'),
  message(23, 'sparseTensors', () => sparseTensor, 'rare'),
  message(15, 'typeProtos', () => type, 'rare'),
]);

const node = messageType('NodeProto', [
  string(1, 'input', 'list'),
  string(2, 'output', 'list'),
  string(3, 'name'),
  string(4, 'opType', 'required'),
  string(7, 'domain'),
  string(8, 'overload'),
  message(5, 'attribute', () => attribute, 'list'),
  text(6, 'docString'),
  metadataProps(9),
]);

const tensorAnnotation = messageType('TensorAnnotation', [
  string(1, 'tensorName'),
  message(2, 'quantParameterTensorNames', () => stringStringEntry, 'list'),
]);

const graph: MessageType = messageType('GraphProto', [
  message(1, 'node', () => node, 'list'),
  string(2, 'name'),
  message(5, 'initializer', () => tensor, 'list'),
  message(15, 'sparseInitializer', () => sparseTensor, 'rare'),
  text(10, 'docString'),
  message(11, 'input', () => valueInfo, 'list'),
  message(12, 'output', () => valueInfo, 'list'),
  message(13, 'valueInfo', () => valueInfo, 'list'),
  message(14, 'quantizationAnnotation', () => tensorAnnotation, 'rare'),
  metadataProps(16),
]);

const trainingInfo = messageType('TrainingInfoProto', [
  message(1, 'initialization', () => graph),
  message(2, 'algorithm', () => graph),
  message(3, 'initializationBinding', () => stringStringEntry, 'list'),
  message(4, 'updateBinding', () => stringStringEntry, 'list'),
]);

const functionType = messageType('FunctionProto', [
  string(1, 'name'),
  string(4, 'input', 'list'),
  string(5, 'output', 'list'),
  string(6, 'attribute', 'list'),
  message(11, 'attributeProto', () => attribute, 'rare'),
  message(7, 'node', () => node, 'list'),
  text(8, 'docString'),
  message(9, 'opsetImport', () => operatorSetId, 'list'),
  string(10, 'domain'),
  string(13, 'overload'),
  message(12, 'valueInfo', () => valueInfo, 'rare'),
  metadataProps(14),
]);

const model = messageType('ModelProto', [
  // Not 'required' for the codec: a file without it gets a better sentence below.
  int53(1, 'irVersion'),
  message(8, 'opsetImport', () => operatorSetId, 'list'),
  string(2, 'producerName'),
  string(3, 'producerVersion'),
  string(4, 'domain'),
  int64(5, 'modelVersion'),
  text(6, 'docString'),
  message(7, 'graph', () => graph),
  metadataProps(14),
  message(20, 'trainingInfo', () => trainingInfo, 'rare'),
  message(25, 'functions', () => functionType, 'rare'),
]);

// ---- bytes and files -------------------------------------------------------------------------------------------------

/**
 * Parses the bytes of an `.onnx` file. Tensors' raw data stays where it is: the model holds views of the bytes, which
 * must not change while the model lives.
 *
 * @throws TensorRTError ERR_MODEL_INVALID when the bytes are no ONNX model; the message names the byte offset.
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
    // Before format version 3 models didn't say which operator set they use: it is version 1.
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
 * The bytes of an `.onnx` file. The result shares nothing with the model.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED above 2 GiB: such a model must keep its weights as external data.
 */
export function serializeModel(value: ModelProto): Uint8Array {
  return encodeMessage(model, value);
}

/**
 * Reads an `.onnx` file. Weights kept in other files stay there: see `tensorBytes`.
 *
 * @throws TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, or ERR_IO with the cause.
 */
export async function readModel(path: string): Promise<ModelProto> {
  checkPath(path, 'path');
  const bytes = await readWhole(path, 'model');
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
 * Writes an `.onnx` file, which appears whole or not at all.
 *
 * @throws TensorRTError ERR_IO with the cause, ERR_MODEL_UNSUPPORTED above 2 GiB.
 */
export async function writeModel(value: ModelProto, path: string): Promise<void> {
  checkPath(path, 'path');
  await writeAtomically(path, [serializeModel(value)], 'model');
}
