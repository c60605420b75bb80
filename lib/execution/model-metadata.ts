import { type DataType, dataTypeFromOnnx } from '../base/data-type.js';
import { invalidArgValue, shapeMismatch } from '../base/errors.js';
import { shapeText } from '../base/shapes.js';
import type { TensorLike } from '../base/tensor-like.js';
import type { NativeTensorInfo } from '../system/native/loaded-model.js';

/** A model's input or output that is a tensor. */
export interface TensorValueMetadata {
  /** Its name in feeds and outputs. */
  readonly name: string;
  /** True: this one can be fed or fetched. */
  readonly isTensor: true;
  /** The type of its elements. */
  readonly type: DataType;
  /** Its dimensions. A dynamic one is a symbolic name such as 'batch', or '' if the exporter gave none. */
  readonly shape: readonly (number | string)[];
}

/** A model's output that is a sequence, a map or an optional value, such as scikit-learn's ZipMap. It can't be fetched. */
export interface NonTensorValueMetadata {
  /** Its name in the model. */
  readonly name: string;
  /** False: a run doesn't return it. */
  readonly isTensor: false;
}

/** An input or output, as the model declares it. */
export type ValueMetadata = TensorValueMetadata | NonTensorValueMetadata;

/**
 * A model's input: a {@link ValueMetadata} whose type and shape can be read without looking at `isTensor`, because models
 * with other inputs are refused.
 */
export type InputMetadata =
  | TensorValueMetadata
  | (NonTensorValueMetadata & Pick<TensorValueMetadata, 'type' | 'shape'>);

/** The public, frozen form of what the addon says of an input or output. */
export function toMetadata({ name, type, shape }: NativeTensorInfo): ValueMetadata {
  const dataType = dataTypeFromOnnx(type);
  return Object.freeze(
    dataType
      ? { name, isTensor: true, type: dataType, shape: Object.freeze(shape) }
      : { name, isTensor: false },
  );
}

/**
 * Checks type, rank and static dimensions of a tensor against the model's.
 * @param path the tensor's name in errors
 * @throws RangeError ERR_INVALID_ARG_VALUE, ERR_SHAPE_MISMATCH
 */
export function checkAgainst(info: InputMetadata, tensor: TensorLike, path: string): void {
  if (tensor.type !== info.type) {
    throw invalidArgValue(`${path}.type`, `must be '${info.type}', as the model says, not '${tensor.type}'.`);
  }
  const { shape } = info;
  // This is a scalar, or a model that doesn't give the rank: ONNX Runtime's API doesn't tell them apart.
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
