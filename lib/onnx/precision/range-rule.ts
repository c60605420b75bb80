import { smallestNormalFloat16 } from '../../base/float16.js';
import type { Ranges } from './ranges.js';

/**
 * The largest magnitude that a value may have reached if it is to be FP16; FP16 itself ends at 65504. This is the
 * default of ModelOpt's AutoCast (modelopt/onnx/autocast, `data_max`). It leaves room for values that are 128 times as
 * large on other inputs as on the measured ones.
 */
export const defaultMaxValue = 512;

/**
 * A value that never reached this magnitude also stays in FP32. It is 16 times 2⁻¹⁴, below which FP16 loses precision.
 */
const minValue = 16 * smallestNormalFloat16;

/**
 * A value stays in FP32 if its largest magnitude is more than this many times the spread of its elements. FP16 would
 * spend four of its 11 bits on what the elements have in common. A large bias causes that, and a later node may
 * subtract it again.
 */
const minSpread = 16;

/**
 * Checks the measured ranges of values. Returns the reason why the first value that doesn't suit FP16 stays in FP32, or
 * undefined if all suit it.
 */
export function rangeRefusal(
  values: readonly string[],
  ranges: Ranges,
  maxValue = defaultMaxValue,
): string | undefined {
  for (const name of values) {
    const range = ranges.values.get(name);
    if (range === undefined) return `the range of "${name}" could not be measured`;
    const spread = range.most - range.least;
    const largest = Math.max(range.most, -range.least);
    if (!(largest <= maxValue)) return `"${name}" reached ${printed(largest)}, beyond ${maxValue}`;
    if (largest > 0 && largest < minValue) {
      return `"${name}" reached no more than ${printed(largest)}, where FP16 has few bits`;
    }
    if (spread > 0 && spread < largest / minSpread) {
      const { least, most } = range;
      return `"${name}" lies between ${printed(least)} and ${printed(most)}, of which FP16 tells little apart`;
    }
  }
  return undefined;
}

function printed(value: number): string {
  return String(Number(value.toPrecision(3)));
}
