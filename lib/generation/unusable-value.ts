import { TensorRTError } from '../base/errors.js';

/** A value of a configuration that can't be used. It is an error only where it would be. */
export class UnusableValue {
  constructor(
    /** A sentence that names the file, the field and its value. */
    readonly problem: string,
  ) {}
}

/**
 * A configuration's value where it is about to be used.
 * @param instead the options that take its place, for the error's text
 * @throws TensorRTError ERR_MODEL_INVALID where it can't be used
 */
export function usable<Value>(value: Value | UnusableValue, instead?: string): Value {
  if (!(value instanceof UnusableValue)) return value;
  const remedy = instead === undefined ? 'Correct it.' : `Correct it, or give ${instead}.`;
  throw new TensorRTError('ERR_MODEL_INVALID', `${value.problem} ${remedy}`);
}
