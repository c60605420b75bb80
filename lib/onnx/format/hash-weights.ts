import { createHash, type Hash } from 'node:crypto';
import { dataTypeFromOnnx, dataTypes } from '../../base/data-type.js';
import { readRange } from '../../system/files/file-range.js';
import {
  type ExternalDataOptions,
  externalData,
  isExternal,
  tensorBytes,
  tensorSize,
} from './initializer.js';
import type { GraphProto, TensorProto } from './model.js';

/**
 * Returns the hexadecimal SHA-256 of the names, types, dimensions and elements of a graph's initializers, in the order
 * of their names. It reads every weight, including those in other files, so it notices weights that are missing or
 * misplaced. It blocks.
 * @throws the errors of {@link tensorBytes}
 */
export function hashWeights(graph: GraphProto, where: ExternalDataOptions): string {
  const hash = createHash('sha256');
  const tensors = [...graph.initializer].sort((a, b) => ((a.name ?? '') < (b.name ?? '') ? -1 : 1));
  for (const tensor of tensors) {
    hash.update(`${tensor.name}\0${tensor.dataType}\0${tensor.dims}\0`);
    hashElements(hash, tensor, where);
  }
  return hash.digest('hex');
}

function hashElements(hash: Hash, tensor: TensorProto, where: ExternalDataOptions): void {
  const known = dataTypeFromOnnx(tensor.dataType);
  if (isExternal(tensor) && where.directory !== undefined) {
    const { path: file, offset, length } = externalData(tensor, where.directory)!;
    const size = tensorSize(tensor);
    // For a type that this package doesn't know, the model gives the length.
    const bytes = known && known !== 'string' ? size * dataTypes[known].byteSize : length;
    readRange(file, `weight "${tensor.name}"`, { offset, length: bytes }, 1 << 20, (piece) =>
      hash.update(piece),
    );
  } else if (known === undefined || known === 'string') {
    // These are strings, and element types that this package doesn't know but TensorRT might.
    for (const text of tensor.stringData ?? []) hash.update(text);
    for (const data of [tensor.rawData, tensor.int32Data]) if (data) hash.update(data);
  } else {
    hash.update(tensorBytes(tensor, where));
  }
}
