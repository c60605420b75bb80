// The messages of the ONNX standard (https://onnx.ai/onnx/repo-docs/IR.html), in camel case.
//
// A singular field that wasn't in the file is undefined. Whole numbers are `number` where they count, size or
// version something, and `bigint` where they are the model's own data (`AttributeProto.i`, `ints`, 64-bit tensors).

/** The part that every message has: fields that this package doesn't know, which are kept and written back. */
interface Extensible {
  unknownFields?: Uint8Array[];
}

/** A model: a graph with its operator sets. The properties are those of `ModelProto` in the ONNX standard. */
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

/** An operator set that a model uses: its domain and version. */
export interface OperatorSetIdProto extends Extensible {
  /** Absent or '' is the ONNX standard's own. */
  domain?: string;
  version: number;
}

/** A graph: nodes, weights (initializers), inputs and outputs. */
export interface GraphProto extends Extensible {
  /** The nodes, in topological order. */
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

/** A node: an operator with the names of its inputs and outputs, and its attributes. */
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

/** A node's attribute. `type` says which of the value's fields is set. */
export interface AttributeProto extends Extensible {
  name: string;
  /** Inside a function: the function's attribute that gives the value. */
  refAttrName?: string;
  docString?: string;
  /** One of {@link AttributeType}, which says which of the fields below holds the value. */
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

/** A sparse tensor: the values that are not zero, and their places. */
export interface SparseTensorProto extends Extensible {
  values?: TensorProto;
  indices?: TensorProto;
  dims: number[];
}

/** The name and type of a value. */
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

/** A tensor's dimensions. */
export interface TensorShapeProto extends Extensible {
  dim: Dimension[];
}

/** A size, a symbol, or neither (unknown). */
export interface Dimension extends Extensible {
  dimValue?: number;
  dimParam?: string;
  denotation?: string;
}

/** A key and its value, of metadata. */
export interface StringStringEntryProto extends Extensible {
  key: string;
  value: string;
}

/** Quantization parameters of a tensor, by the names of their tensors. */
export interface TensorAnnotation extends Extensible {
  tensorName?: string;
  quantParameterTensorNames: StringStringEntryProto[];
}

/** Graphs for training. This package keeps them, and does not run them. */
export interface TrainingInfoProto extends Extensible {
  initialization?: GraphProto;
  algorithm?: GraphProto;
  initializationBinding: StringStringEntryProto[];
  updateBinding: StringStringEntryProto[];
}

/** A function: an operator that a model defines by nodes. */
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
