import { dataTypeFromOnnx } from '../../base/data-type.js';
import { TensorRTError } from '../../base/errors.js';
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from '../../base/float16.js';
import { type ExternalDataOptions, makeTensor, tensorElements } from './initializer.js';
import type { TensorProto } from './model.js';

/** The types that decoders compute in. */
export type FloatType = 'float32' | 'float16' | 'bfloat16';

/** Makes a tensor from float32 numbers, rounded to a type. */
export function floatTensor(
  name: string,
  type: FloatType,
  dims: readonly number[],
  values: Float32Array,
): TensorProto {
  if (type === 'float16') return makeTensor(name, type, dims, toFloat16Bits(values));
  if (type === 'bfloat16') return makeTensor(name, type, dims, toBfloat16Bits(values));
  return makeTensor(name, type, dims, values);
}

/**
 * Returns the numbers of a tensor of one of these types, as float32.
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED for other types, and the errors of `tensorBytes`
 */
export function floatElements(tensor: TensorProto, where: ExternalDataOptions): Float32Array {
  const elements = tensorElements(tensor, where);
  switch (dataTypeFromOnnx(tensor.dataType)) {
    case 'float32':
      return elements as Float32Array;
    case 'float16':
      return fromFloat16Bits(elements as Uint16Array);
    case 'bfloat16':
      return fromBfloat16Bits(elements as Uint16Array);
    default:
      throw new TensorRTError(
        'ERR_MODEL_UNSUPPORTED',
        `The weight "${tensor.name}" holds no floating-point numbers, which are needed there.`,
      );
  }
}
