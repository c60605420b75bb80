// The messages of the ONNX standard (https://onnx.ai/onnx/repo-docs/IR.html), in camel case.
//
// A singular field that wasn't in the file is undefined. Integers are `number` if they are counts, sizes or versions,
// and `bigint` if they are the model's own data (`AttributeProto.i`, `ints`, 64-bit tensors).

/** The part that all messages share: fields that this package doesn't know, which are kept and written back. */
interface Extensible {
  /** Encoded fields that this package doesn't know. */
  unknownFields?: Uint8Array[];
}

/** A model: a graph with its operator sets. The properties are those of `ModelProto` in the ONNX standard. */
export interface ModelProto extends Extensible {
  /** Version of the file format. Below 4, for example, initializers must also be listed as inputs. */
  irVersion: number;
  /** The operator sets that nodes use. */
  opsetImport: OperatorSetIdProto[];
  /** Name of the tool that wrote the model. */
  producerName?: string;
  /** Version of that tool. */
  producerVersion?: string;
  /** Namespace of the name. */
  domain?: string;
  /** The model's own version. */
  modelVersion?: bigint;
  /** Documentation for people. */
  docString?: string;
  /** The graph that the model runs. */
  graph: GraphProto;
  /** Metadata as keys and values. */
  metadataProps?: StringStringEntryProto[];
  /** Graphs that train the model. */
  trainingInfo?: TrainingInfoProto[];
  /** Functions local to the model, which nodes call like operators. */
  functions?: FunctionProto[];
}

/** An operator set that a model uses: its domain and version. */
export interface OperatorSetIdProto extends Extensible {
  /** The operators' domain. Absent or '' means the ONNX standard's. */
  domain?: string;
  /** Version of the operator set. */
  version: number;
}

/** A graph: nodes, weights (initializers), inputs and outputs. */
export interface GraphProto extends Extensible {
  /** The nodes, in topological order. */
  node: NodeProto[];
  /** The name. */
  name?: string;
  /** Weights and other constants, by name. */
  initializer: TensorProto[];
  /** Sparse constants. */
  sparseInitializer?: SparseTensorProto[];
  /** Documentation for people. */
  docString?: string;
  /** The inputs, in order. */
  input: ValueInfoProto[];
  /** The outputs, in order. */
  output: ValueInfoProto[];
  /** Types of values inside the graph, if the exporter recorded them. */
  valueInfo: ValueInfoProto[];
  /** Quantization parameters of tensors. */
  quantizationAnnotation?: TensorAnnotation[];
  /** Metadata as keys and values. */
  metadataProps?: StringStringEntryProto[];
}

/** A node: an operator with the names of its inputs and outputs, and its attributes. */
export interface NodeProto extends Extensible {
  /** Names of values; '' leaves out an optional input. */
  input: string[];
  /** Names of values; '' leaves out an optional output. */
  output: string[];
  /** The name. */
  name?: string;
  /** The operator's name, such as `MatMul`. */
  opType: string;
  /** The operator's domain. Absent or '' means the ONNX standard's. */
  domain?: string;
  /** Distinguishes functions with the same name and domain. */
  overload?: string;
  /** The attributes. */
  attribute: AttributeProto[];
  /** Documentation for people. */
  docString?: string;
  /** Metadata as keys and values. */
  metadataProps?: StringStringEntryProto[];
}

/** The kinds of attribute values: `AttributeProto.AttributeType` of the ONNX standard. */
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
  /** The name. */
  name: string;
  /** The function's attribute that gives the value, if the node is inside a function. */
  refAttrName?: string;
  /** Documentation for people. */
  docString?: string;
  /** One of {@link AttributeType}, which says which of the fields below holds the value. */
  type?: number;
  /** Value of a FLOAT. */
  f?: number;
  /** Value of an INT. */
  i?: bigint;
  /** Value of a STRING, as UTF-8 bytes. */
  s?: Uint8Array;
  /** Value of a TENSOR. */
  t?: TensorProto;
  /** Value of a GRAPH. */
  g?: GraphProto;
  /** Value of a SPARSE_TENSOR. */
  sparseTensor?: SparseTensorProto;
  /** Value of a TYPE_PROTO. */
  tp?: TypeProto;
  /** Value of FLOATS. */
  floats?: number[];
  /** Value of INTS. */
  ints?: bigint[];
  /** Value of STRINGS, as UTF-8 bytes. */
  strings?: Uint8Array[];
  /** Value of TENSORS. */
  tensors?: TensorProto[];
  /** Value of GRAPHS. */
  graphs?: GraphProto[];
  /** Value of SPARSE_TENSORS. */
  sparseTensors?: SparseTensorProto[];
  /** Value of TYPE_PROTOS. */
  typeProtos?: TypeProto[];
}

/**
 * A tensor with its elements, which are in exactly one of the data fields or in another file. Use `tensorElements` to
 * read them.
 */
export interface TensorProto extends Extensible {
  /** Size of each dimension; empty for a scalar. */
  dims: number[];
  /** ONNX's number for the element type (`TensorProto.DataType`), such as 1 for float32. */
  dataType: number;
  /** The part of a larger tensor that this one holds. */
  segment?: { begin?: number; end?: number } & Extensible;
  /** Elements of float32. */
  floatData?: Float32Array;
  /** Elements of int32 and of narrower types, one per entry. */
  int32Data?: Int32Array;
  /** Elements of strings, as UTF-8 bytes. */
  stringData?: Uint8Array[];
  /** Elements of int64. */
  int64Data?: BigInt64Array;
  /** The name. */
  name?: string;
  /** Documentation for people. */
  docString?: string;
  /** Elements as little-endian bytes, row-major. */
  rawData?: Uint8Array;
  /** The location, offset, length … of the elements in another file, if `dataLocation` is 1. */
  externalData?: StringStringEntryProto[];
  /** 1 if the elements are in another file. */
  dataLocation?: number;
  /** Elements of float64. */
  doubleData?: Float64Array;
  /** Elements of uint64 and uint32. */
  uint64Data?: BigUint64Array;
  /** Metadata as keys and values. */
  metadataProps?: StringStringEntryProto[];
}

/** A sparse tensor: the values that aren't zero, and their positions. */
export interface SparseTensorProto extends Extensible {
  /** The nonzero values. */
  values?: TensorProto;
  /** Positions of the values. */
  indices?: TensorProto;
  /** Size of each dimension; empty for a scalar. */
  dims: number[];
}

/** The name and type of a value. */
export interface ValueInfoProto extends Extensible {
  /** The name. */
  name: string;
  /** The type. */
  type?: TypeProto;
  /** Documentation for people. */
  docString?: string;
  /** Metadata as keys and values. */
  metadataProps?: StringStringEntryProto[];
}

/** The type of a value. At most one of the kinds is set. */
export interface TypeProto extends Extensible {
  /** A tensor's element type and shape. */
  tensorType?: { elemType?: number; shape?: TensorShapeProto } & Extensible;
  /** A sequence's element type. */
  sequenceType?: { elemType?: TypeProto } & Extensible;
  /** A map's key and value types. */
  mapType?: { keyType?: number; valueType?: TypeProto } & Extensible;
  /** The type of an optional value. */
  optionalType?: { elemType?: TypeProto } & Extensible;
  /** A sparse tensor's element type and shape. */
  sparseTensorType?: { elemType?: number; shape?: TensorShapeProto } & Extensible;
  /** A type that ONNX doesn't define. */
  opaqueType?: { domain?: string; name?: string } & Extensible;
  /** The value's meaning, in ONNX's standard terms. */
  denotation?: string;
}

/** A tensor's dimensions. */
export interface TensorShapeProto extends Extensible {
  /** The dimensions, outermost first. */
  dim: Dimension[];
}

/** One dimension of a shape: a size, a symbol, or neither if unknown. */
export interface Dimension extends Extensible {
  /** A fixed size. */
  dimValue?: number;
  /** The name of a symbolic size, such as `batch`. */
  dimParam?: string;
  /** The value's meaning, in ONNX's standard terms. */
  denotation?: string;
}

/** A key and its value in metadata. */
export interface StringStringEntryProto extends Extensible {
  /** The key. */
  key: string;
  /** The value. */
  value: string;
}

/** Quantization parameters of a tensor, by the names of their tensors. */
export interface TensorAnnotation extends Extensible {
  /** The tensor that is annotated. */
  tensorName?: string;
  /** Roles, such as `SCALE_TENSOR`, and the names of the tensors that fill them. */
  quantParameterTensorNames: StringStringEntryProto[];
}

/** Graphs for training. This package keeps them but doesn't run them. */
export interface TrainingInfoProto extends Extensible {
  /** The graph that initializes training. */
  initialization?: GraphProto;
  /** The graph of one training step. */
  algorithm?: GraphProto;
  /** Initializers and the outputs of the initialization that set them. */
  initializationBinding: StringStringEntryProto[];
  /** Initializers and the outputs of a step that update them. */
  updateBinding: StringStringEntryProto[];
}

/** A function: an operator that a model defines by nodes. */
export interface FunctionProto extends Extensible {
  /** The name. */
  name?: string;
  /** The inputs, in order. */
  input: string[];
  /** The outputs, in order. */
  output: string[];
  /** The attributes. */
  attribute: string[];
  /** Attributes with default values. */
  attributeProto?: AttributeProto[];
  /** The nodes, in topological order. */
  node: NodeProto[];
  /** Documentation for people. */
  docString?: string;
  /** The operator sets that nodes use. */
  opsetImport: OperatorSetIdProto[];
  /** Namespace of the name. */
  domain?: string;
  /** Distinguishes functions with the same name and domain. */
  overload?: string;
  /** Types of values inside the graph. */
  valueInfo?: ValueInfoProto[];
  /** Metadata as keys and values. */
  metadataProps?: StringStringEntryProto[];
}
