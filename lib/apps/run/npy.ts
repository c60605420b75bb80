import { type DataType, dataTypes } from '../../base/data-type.js';
import { TensorRTError } from '../../base/errors.js';
import { Tensor } from '../../execution/tensor.js';
import { typedArray } from '../../execution/tensor-elements.js';

// NumPy's file format for arrays: numpy/lib/format.py, versions 1.0 to 3.0. Little-endian and row-major only.

/** NumPy's type strings. NumPy doesn't have bfloat16, so it is written as ml_dtypes does: as two opaque bytes. */
const typeStrings: Partial<Record<DataType, string>> = {
  float32: '<f4',
  float16: '<f2',
  float64: '<f8',
  bfloat16: '<V2',
  int8: '|i1',
  uint8: '|u1',
  int16: '<i2',
  uint16: '<u2',
  int32: '<i4',
  uint32: '<u4',
  int64: '<i8',
  uint64: '<u8',
  bool: '|b1',
};
const magic = Buffer.from('\x93NUMPY', 'latin1');
const headerAlignment = 64;

/**
 * Parses a `.npy` file.
 * @param file names the file in errors
 * @throws TensorRTError ERR_IO for anything but a little-endian, row-major array of a type known here
 */
export function parseNpy(bytes: Uint8Array, file: string): Tensor {
  const invalid = (problem: string) => new TensorRTError('ERR_IO', `${file} ${problem}`);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < 12 || !buffer.subarray(0, 6).equals(magic)) throw invalid('is not a .npy file.');
  const wide = buffer[6]! >= 2;
  const start = wide ? 12 : 10;
  const headerLength = wide ? buffer.readUInt32LE(8) : buffer.readUInt16LE(8);
  const header = buffer.subarray(start, start + headerLength).toString('latin1');
  const descr = /'descr':\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order':\s*(True|False)/.exec(header)?.[1];
  const shape = /'shape':\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (descr === undefined || order === undefined || shape === undefined) {
    throw invalid("has a header that doesn't describe a plain array.");
  }
  const type = (Object.keys(typeStrings) as DataType[]).find(
    (name) => typeStrings[name]!.slice(1) === descr.slice(1),
  );
  if (!type || type === 'string') throw invalid(`has element type '${descr}', which is not supported.`);
  if (descr.startsWith('>')) throw invalid(`is big-endian ('${descr}'): save it as '${typeStrings[type]}'.`);
  const dims = shape
    .split(',')
    .filter((size) => size.trim())
    .map(Number);
  if (order === 'True' && dims.length > 1) {
    throw invalid('is in Fortran order: save it with numpy.ascontiguousarray().');
  }
  const data = buffer.subarray(start + headerLength);
  const expected = dims.reduce((product, size) => product * size, 1) * dataTypes[type].byteSize;
  if (data.length !== expected) {
    throw invalid(
      `holds ${data.length} bytes of data, but its shape (${dims.join(', ')}) needs ${expected}.`,
    );
  }
  return new Tensor(type, typedArray(type, new Uint8Array(data).buffer), dims);
}

/**
 * Writes a tensor as a `.npy` file.
 * @throws TensorRTError ERR_IO for strings
 */
export function serializeNpy(tensor: Tensor): Uint8Array {
  const descr = typeStrings[tensor.type];
  if (!descr)
    throw new TensorRTError('ERR_IO', `A tensor of type ${tensor.type} can't be written as a .npy file.`);
  const shape = `(${tensor.dims.join(', ')}${tensor.dims.length === 1 ? ',' : ''})`;
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`;
  const length = Math.ceil((magic.length + 4 + text.length + 1) / headerAlignment) * headerAlignment;
  const header = Buffer.alloc(length, ' ');
  magic.copy(header);
  header.writeUInt16LE(1, 6); // version 1.0
  header.writeUInt16LE(length - 10, 8);
  header.write(text, 10, 'latin1');
  header[length - 1] = 0x0a;
  const { buffer, byteOffset, byteLength } = tensor.data as ArrayBufferView;
  return Buffer.concat([header, new Uint8Array(buffer, byteOffset, byteLength)]);
}
