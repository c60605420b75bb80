import { dataTypes } from '../../base/data-type.js';
import {
  beyondBfloat16,
  exceedsFloat16,
  maxFloat16,
  toBfloat16Bits,
  toFloat16Bits,
} from '../../base/float16.js';

/** A precision that models are cast to. */
export type LowPrecision = 'fp16' | 'bf16';

/** A floating-point type of 16 bits. */
export interface LowType {
  readonly precision: LowPrecision;
  readonly onnx: number;
  readonly name: 'float16' | 'bfloat16';
  /** The type's name in sentences: 'FP16' or 'BF16'. */
  readonly label: string;
  /** The suffix of names of values in this type. */
  readonly suffix: string;
  readonly bits: (values: Float32Array) => Uint16Array;
  /** True if a number would become infinite in this type. */
  readonly isExceededBy: (values: Float32Array) => boolean;
  /**
   * Text to append to a sentence about values beyond the type's largest number: ', 65504'. It is '' if the type has
   * float32's range.
   */
  readonly limit: string;
}

export const lowTypes: Readonly<Record<LowPrecision, LowType>> = {
  fp16: {
    precision: 'fp16',
    onnx: dataTypes.float16.onnx,
    name: 'float16',
    label: 'FP16',
    suffix: '__fp16',
    bits: toFloat16Bits,
    isExceededBy: exceedsFloat16,
    limit: `, ${maxFloat16}`,
  },
  bf16: {
    precision: 'bf16',
    onnx: dataTypes.bfloat16.onnx,
    name: 'bfloat16',
    label: 'BF16',
    suffix: '__bf16',
    bits: toBfloat16Bits,
    isExceededBy: beyondBfloat16,
    limit: '',
  },
};
