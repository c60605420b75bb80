import { dataTypes } from '../base/data-type.js';

const floats = new Set<number>(
  (['float32', 'float16', 'bfloat16', 'float64'] as const).map((name) => dataTypes[name].onnx),
);

/** True for ONNX's numbers of floating-point types. */
export function isFloat(type: number | undefined): boolean {
  return type !== undefined && floats.has(type);
}
