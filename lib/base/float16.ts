/** The largest finite float16: (2 − 2⁻¹⁰) · 2¹⁵ (IEEE 754-2008, binary16). */
export const maxFloat16 = 65504;

/** The smallest float16 with all bits of precision, 2⁻¹⁴. */
export const smallestNormalFloat16 = 2 ** -14;

/** The bits of {@link maxFloat16} as a float32. */
const maxFloat16Bits = 0x477f_e000;

/**
 * Converts float32 to float16 bit patterns, rounding to nearest, ties to even. Subnormals are kept, values that are too
 * large become infinity, and a NaN stays a NaN.
 */
export function toFloat16Bits(source: Float32Array, target = new Uint16Array(source.length)): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i]!;
    const magnitude = b & 0x7fff_ffff;
    let half: number;
    if (magnitude >= 0x3880_0000 && magnitude < 0x4780_0000) {
      // Normal in both formats: move the exponent's bias from 127 to 15, and let the rounding carry into it.
      half = (magnitude - 0x3800_0000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13;
    } else half = rareFloat16(magnitude);
    target[i] = ((b >>> 16) & 0x8000) | half;
  }
  return target;
}

function rareFloat16(magnitude: number): number {
  if (magnitude > 0x7f80_0000) return 0x7e00;
  if (magnitude >= 0x4780_0000) return 0x7c00;
  // A float16 subnormal is a multiple of 2^-24, and everything below half of that rounds to 0. (Float32's subnormals
  // are far below.)
  const shift = 126 - (magnitude >>> 23);
  if (shift > 24) return 0;
  const mantissa = (magnitude & 0x7f_ffff) | 0x80_0000;
  const half = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const tie = 1 << (shift - 1);
  return rest > tie || (rest === tie && (half & 1) === 1) ? half + 1 : half;
}

/** The value of a float16 bit pattern. */
function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

let float16Values: Float32Array | undefined;

/** Converts float16 bit patterns to float32, exactly. */
export function fromFloat16Bits(source: Uint16Array): Float32Array {
  float16Values ??= Float32Array.from({ length: 0x1_0000 }, (_, i) => fromFloat16(i));
  const table = float16Values;
  const target = new Float32Array(source.length);
  for (let i = 0; i < source.length; i++) target[i] = table[source[i]!]!;
  return target;
}

/** Converts bfloat16 bit patterns (the upper half of a float32) to float32, exactly. */
export function fromBfloat16Bits(source: Uint16Array): Float32Array {
  const target = new Uint32Array(source.length);
  for (let i = 0; i < source.length; i++) target[i] = source[i]! << 16;
  return new Float32Array(target.buffer);
}

/** True if any value is beyond float16's largest or isn't finite. */
export function exceedsFloat16(values: Float32Array): boolean {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  // One comparison per element is enough: infinities and NaNs have the largest magnitudes of all.
  for (let i = 0; i < bits.length; i++) if ((bits[i]! & 0x7fff_ffff) > maxFloat16Bits) return true;
  return false;
}

/** Converts float32 to bfloat16 bit patterns, rounding to nearest, ties to even; a NaN stays a NaN. */
export function toBfloat16Bits(source: Float32Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  const target = new Uint16Array(source.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i]!;
    // Rounding would turn a NaN that has only low bits set into infinity.
    const isNotANumber = (b & 0x7fff_ffff) > 0x7f80_0000;
    target[i] = isNotANumber ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return target;
}

/** True if any value would round to infinity in bfloat16 or isn't finite. */
export function beyondBfloat16(values: Float32Array): boolean {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) if ((bits[i]! & 0x7fff_ffff) >= 0x7f7f_8000) return true;
  return false;
}
