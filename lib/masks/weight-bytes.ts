import { constants } from 'node:fs';
import { type DataType, dataTypeFromOnnx, dataTypes } from '../base/data-type.js';
import { externalData, isExternal, tensorBytes, tensorSize } from '../onnx/format/initializer.js';
import type { TensorProto } from '../onnx/format/model.js';
import { sizeOfWeights } from '../system/files/file-range.js';
import { withDescriptor } from '../system/files/promises.js';
import type { NativeBytes } from '../system/native/bytes.js';
import { native } from '../system/native.js';

/**
 * Gives a weight's elements to `use`: those in another file are read there, piece by piece, and never all in memory.
 * @param directory the model's folder
 * @throws (rejects) the errors of `externalData` and `tensorBytes`; TensorRTError ERR_IO; whatever `use` throws
 */
export function withWeightBytes<Result>(
  tensor: TensorProto,
  type: Exclude<DataType, 'string'>,
  directory: string,
  use: (bytes: NativeBytes) => Promise<Result>,
): Promise<Result> {
  if (isExternal(tensor)) return withExternalBytes(tensor, bytesOf(tensor, type), directory, use);
  return using(new (native().NativeBytes)(tensorBytes(tensor)), use);
}

/** As {@link withWeightBytes}, for a tensor of any type whose elements lie in another file. */
export function withExternalBytes<Result>(
  tensor: TensorProto,
  byteLength: number,
  directory: string,
  use: (bytes: NativeBytes) => Promise<Result>,
): Promise<Result> {
  const { path, offset } = externalData(tensor, directory)!;
  return withDescriptor(path, constants.O_RDONLY | constants.O_NONBLOCK, (descriptor) =>
    using(new (native().NativeBytes)(path, descriptor, offset, byteLength), use),
  );
}

/** How many bytes a tensor's elements in another file have. */
export function externalBytes(tensor: TensorProto, directory: string): number {
  const type = dataTypeFromOnnx(tensor.dataType);
  const { path, offset, length } = externalData(tensor, directory)!;
  // A type that this package doesn't know has the length that the model gives, or the rest of the file.
  if (type === undefined || type === 'string')
    return length ?? sizeOfWeights(path, tensor.name ?? '') - offset;
  return bytesOf(tensor, type);
}

const bytesOf = (tensor: TensorProto, type: Exclude<DataType, 'string'>) =>
  tensorSize(tensor) * dataTypes[type].byteSize;

async function using<Result>(
  bytes: NativeBytes,
  use: (bytes: NativeBytes) => Promise<Result>,
): Promise<Result> {
  try {
    return await use(bytes);
  } finally {
    bytes.release();
  }
}
