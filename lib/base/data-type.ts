/** Element types of a tensor. `string` runs on the CPU only. */
export type DataType =
  | 'float32'
  | 'float16'
  | 'bfloat16'
  | 'float64'
  | 'int8'
  | 'uint8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'uint64'
  | 'bool'
  | 'string';

interface DataTypeInfo {
  /** The value of `TensorProto.DataType` in the ONNX standard (onnx/onnx.proto); the native side uses the same. */
  readonly onnx: number;
  /** Bytes of one element; 0 for `string`. */
  readonly byteSize: number;
}

/** Every conversion between type names, ONNX numbers and sizes uses this table. */
export const dataTypes: Readonly<Record<DataType, DataTypeInfo>> = {
  float32: { onnx: 1, byteSize: 4 },
  uint8: { onnx: 2, byteSize: 1 },
  int8: { onnx: 3, byteSize: 1 },
  uint16: { onnx: 4, byteSize: 2 },
  int16: { onnx: 5, byteSize: 2 },
  int32: { onnx: 6, byteSize: 4 },
  int64: { onnx: 7, byteSize: 8 },
  string: { onnx: 8, byteSize: 0 },
  bool: { onnx: 9, byteSize: 1 },
  float16: { onnx: 10, byteSize: 2 },
  float64: { onnx: 11, byteSize: 8 },
  uint32: { onnx: 12, byteSize: 4 },
  uint64: { onnx: 13, byteSize: 8 },
  bfloat16: { onnx: 16, byteSize: 2 },
};

const byOnnxNumber = new Map<number, DataType>(
  Object.entries(dataTypes).map(([name, info]) => [info.onnx, name as DataType]),
);

/** The type with ONNX number `n`; undefined for types that aren't supported here (complex, float8, int4 …). */
export function dataTypeFromOnnx(n: number): DataType | undefined {
  return byOnnxNumber.get(n);
}
