import { type Field, type MessageType, messageType } from './protobuf/message-type.js';

// The field numbers of the messages in `model.ts`, from the standard (onnx/onnx.proto).

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

export const model = messageType('ModelProto', [
  // The field isn't 'required' here, because `model-file.ts` has a better message for a file without it.
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
