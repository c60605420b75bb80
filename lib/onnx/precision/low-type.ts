import { dataTypes } from '../../base/data-type.js';
import {
  beyondBfloat16,
  exceedsFloat16,
  maxFloat16,
  toBfloat16Bits,
  toFloat16Bits,
} from '../../base/float16.js';

/** What models are cast to. */
export type LowPrecision = 'fp16' | 'bf16';

/** A floating-point type of 16 bits. */
export interface LowType {
  readonly precision: LowPrecision;
  readonly onnx: number;
  readonly name: 'float16' | 'bfloat16';
  /** 'FP16' or 'BF16', in sentences. */
  readonly label: string;
  /** What names of values in it end with. */
  readonly suffix: string;
  readonly bits: (values: Float32Array) => Uint16Array;
  /** True if some number would become infinite. */
  readonly isExceededBy: (values: Float32Array) => boolean;
  /** ', 65504': the largest number, behind a sentence about what goes beyond it; '' where it is float32's. */
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
