import { castToBfloat16, castToFloat16 } from '../onnx/precision/cast-precision.js';
import type { LowPrecision } from '../onnx/precision/low-type.js';
import { ComparedModel } from './compared-model.js';

/** A model's cast to 16 bits, without measured ranges: they would keep what overflows in FP32 by themselves. */
export function castOf(
  model: ComparedModel,
  precision: LowPrecision,
  keepFp32: readonly string[],
): ComparedModel {
  const options = { ...model.where, keepFp32 };
  const cast = precision === 'fp16' ? castToFloat16 : castToBfloat16;
  return new ComparedModel('b', cast(model.given, options).model, model.where);
}
