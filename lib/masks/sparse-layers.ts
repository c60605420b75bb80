import { dataTypes } from '../base/data-type.js';
import { tensorBytes } from '../onnx/format/initializer.js';
import type { ModelProto } from '../onnx/format/model.js';
import { label } from '../onnx/graph/operators.js';
import { native } from '../system/native.js';
import { isTwoFour } from './mask-set-contents.js';
import { productWeights } from './prunable-weights.js';
import { toSparseMask } from './sparse-mask.js';

/** A weight for which TensorRT may use a sparse kernel. */
export interface SparseLayer {
  /** Its name. */
  readonly weight: string;
  /** The nodes that multiply by it. */
  readonly nodes: readonly string[];
}

/**
 * Lists the weights of convolutions and matrix products that have at most 2 of every 4 elements along the axis that
 * TensorRT's sparse kernels need. One weight is in memory at a time.
 * @param directory the model's folder; undefined for a model without external data
 * @throws the errors of `tensorBytes`
 */
export function sparseLayers({ graph }: ModelProto, directory: string | undefined): SparseLayer[] {
  return productWeights(graph).flatMap(({ tensor, name, type, products }) => {
    if (type !== 'float32' && type !== 'float16' && type !== 'bfloat16') return [];
    const axes = new Set(products.map(({ axis }) => axis));
    const { dims } = tensor;
    if (axes.size === 0 || ![...axes].every((axis) => dims[axis]! % 4 === 0)) return [];
    const bytes = tensorBytes(tensor, directory === undefined ? {} : { directory });
    const mask = toSparseMask(native().maskOfNonZero(bytes, dataTypes[type].onnx, dims), dims);
    if (![...axes].every((axis) => isTwoFour(mask, axis))) return [];
    return [{ weight: name, nodes: products.map(({ node }) => node.name || label(node)) }];
  });
}
