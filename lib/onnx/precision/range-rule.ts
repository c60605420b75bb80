import { smallestNormalFloat16 } from '../../base/float16.js';
import type { Ranges } from './ranges.js';

/**
 * A value that reached more than this, of FP16's 65504, stays in FP32. This is the default of ModelOpt's AutoCast
 * (modelopt/onnx/autocast, `data_max`). Values that were measured on some inputs may be 128 times as large on others.
 */
export const defaultMaxValue = 512;

/**
 * A value that never reached this stays in FP32 too: FP16's precision ends at 2⁻¹⁴, and a sixteenth of this would be
 * below that.
 */
const minValue = 16 * smallestNormalFloat16;

/**
 * A value whose elements all lie within this part of the largest stays in FP32: of its 11 bits, FP16 would spend four
 * on what they have in common. A large bias does that, and a later node may subtract it again.
 */
const minSpread = 16;

/** Returns the reason why the first of these values that FP16 doesn't suit stays in FP32, from its measured range. */
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
