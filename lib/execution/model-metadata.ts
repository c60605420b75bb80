import { type DataType, dataTypeFromOnnx } from '../base/data-type.js';
import { invalidArgValue, shapeMismatch } from '../base/errors.js';
import { shapeText } from '../base/shapes.js';
import type { TensorLike } from '../base/tensor-like.js';
import type { NativeTensorInfo } from '../system/native/loaded-model.js';

/** A model's input or output that is a tensor. */
export interface TensorValueMetadata {
  readonly name: string;
  readonly isTensor: true;
  readonly type: DataType;
  /** A dynamic dimension is a symbolic name, '' where the exporter gave none. */
  readonly shape: readonly (number | string)[];
}

/** A model's output that is a sequence, a map or an optional value (scikit-learn's ZipMap, say): it can't be fetched. */
export interface NonTensorValueMetadata {
  readonly name: string;
  readonly isTensor: false;
}

export type ValueMetadata = TensorValueMetadata | NonTensorValueMetadata;

/** A model's input: a {@link ValueMetadata} that needs no look at `isTensor`, since models with other inputs are refused. */
export type InputMetadata =
  | TensorValueMetadata
  | (NonTensorValueMetadata & Pick<TensorValueMetadata, 'type' | 'shape'>);

export function toMetadata({ name, type, shape }: NativeTensorInfo): ValueMetadata {
  const dataType = dataTypeFromOnnx(type);
  return Object.freeze(
    dataType
      ? { name, isTensor: true, type: dataType, shape: Object.freeze(shape) }
      : { name, isTensor: false },
  );
}

/** Type, rank and static dimensions of `tensor` against the model's. */
export function checkAgainst(info: InputMetadata, tensor: TensorLike, path: string): void {
  if (tensor.type !== info.type) {
    throw invalidArgValue(`${path}.type`, `must be '${info.type}', as the model says, not '${tensor.type}'.`);
  }
  const { shape } = info;
  // A scalar, or a model that doesn't give the rank: ONNX Runtime's API tells neither from the other.
  if (shape.length === 0) return;
  if (tensor.dims.length !== shape.length) {
    throw shapeMismatch(
      `${path} has ${tensor.dims.length} dimensions, [${tensor.dims}]; the model says ${shape.length}, ${shapeText(shape)}.`,
    );
  }
  for (let i = 0; i < shape.length; i++) {
    if (typeof shape[i] === 'number' && shape[i] !== tensor.dims[i]) {
      throw shapeMismatch(
        `${path} has dims [${tensor.dims}]; dimension ${i} must be ${shape[i]}, as the model says ${shapeText(shape)}.`,
      );
    }
  }
}
