import { invalidArgType } from './errors.js';

/**
 * Returns a generator of normally distributed numbers with mean 0 and standard deviation 1; the same seed gives the
 * same numbers. Uses the transformation of Box and Muller (1958) on Marsaglia's 32-bit xorshift (Journal of Statistical
 * Software 8(14), 2003).
 */
export function normalNumbers(seed: number): () => number {
  const uniform = uniformNumbers(seed);
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** Returns a generator of numbers between 0 and 1, both excluded; the same seed gives the same numbers. */
export function uniformNumbers(seed: number): () => number {
  // A xorshift's state must not be 0, and neighbouring seeds should not give similar sequences.
  let state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) - 0.5) / 2 ** 32;
  };
  for (let i = 0; i < 8; i++) next();
  return next;
}

/** @throws TypeError ERR_INVALID_ARG_TYPE */
export function checkSeed(seed: unknown, path: string): asserts seed is number {
  if (!Number.isSafeInteger(seed)) throw invalidArgType(path, 'a whole number', seed);
}
