import { TensorRTError } from '../base/errors.js';

/** A configuration's value that can't be used. It becomes an error only when it is needed. */
export class UnusableValue {
  constructor(
    /** A sentence that names the file, the field and its value. */
    readonly problem: string,
  ) {}
}

/**
 * Returns a configuration's value that is about to be used.
 * @param instead the options that can take its place, for the error's text
 * @throws TensorRTError ERR_MODEL_INVALID if it can't be used
 */
export function usable<Value>(value: Value | UnusableValue, instead?: string): Value {
  if (!(value instanceof UnusableValue)) return value;
  const remedy = instead === undefined ? 'Correct it.' : `Correct it, or give ${instead}.`;
  throw new TensorRTError('ERR_MODEL_INVALID', `${value.problem} ${remedy}`);
}
