/**
 * The stable codes of errors. Errors about arguments are a `TypeError` or `RangeError` that carries the code; all others
 * are a {@link TensorRTError}. An aborted operation rejects with its signal's reason instead. docs/errors.md says what to
 * do about each.
 */
export type ErrorCode =
  | 'ERR_LIBRARY_NOT_FOUND'
  | 'ERR_LIBRARY_UNSUPPORTED'
  | 'ERR_NO_GPU'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_BUFFER_TOO_LARGE'
  | 'ERR_MODEL_NOT_FOUND'
  | 'ERR_MODEL_INVALID'
  | 'ERR_MODEL_UNSUPPORTED'
  | 'ERR_BUILD_FAILED'
  | 'ERR_ENGINE_CORRUPT'
  | 'ERR_ENGINE_INCOMPATIBLE'
  | 'ERR_INVALID_ARG_TYPE'
  | 'ERR_INVALID_ARG_VALUE'
  | 'ERR_SHAPE_MISMATCH'
  | 'ERR_CACHE_FULL'
  | 'ERR_QUEUE_FULL'
  | 'ERR_IO'
  | 'ERR_DOWNLOAD_FAILED'
  | 'ERR_STATE_MISMATCH'
  | 'ERR_MASK_MISMATCH'
  | 'ERR_DISPOSED'
  | 'ERR_EXECUTION_FAILED';

/**
 * The error of an operation that failed. Its message says what to do, and its `cause` is the underlying error.
 *
 * @example
 * ```js
 * import { InferenceSession } from 'node-tensorrt';
 *
 * try {
 *   await InferenceSession.create('missing.onnx');
 * } catch (error) {
 *   console.log(error.code, error.message); // ERR_MODEL_NOT_FOUND …
 * }
 * ```
 */
export class TensorRTError extends Error {
  /** 'TensorRTError'. */
  override readonly name = 'TensorRTError';
  /** The kind of failure. */
  readonly code: ErrorCode;

  /** Makes an error from its code and message. */
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Makes the error for a value of the wrong kind.
 * @param path the argument as the caller wrote it, such as `options.shapes.input_ids.max`
 */
export function invalidArgType(path: string, expected: string, actual: unknown): TypeError {
  return Object.assign(new TypeError(`${path} must be ${expected}, not ${describe(actual)}.`), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
}

/** Makes the error for a value of the right kind that is out of its range. */
export function invalidArgValue(path: string, problem: string, options?: { cause?: unknown }): RangeError {
  return Object.assign(new RangeError(`${path} ${problem}`, options), { code: 'ERR_INVALID_ARG_VALUE' });
}

/** Makes the error for dimensions that contradict the model, the data or a profile. */
export function shapeMismatch(message: string): RangeError {
  return Object.assign(new RangeError(message), { code: 'ERR_SHAPE_MISMATCH' });
}

/** Describes a value in an error's text: `null`, `an array`, `an object`, `a Foo`, `"text"`, `42` or `42n`. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === 'object') {
    const name = value.constructor?.name ?? 'Object';
    return name === 'Object' ? 'an object' : `${/^[AEIO]/.test(name) ? 'an' : 'a'} ${name}`;
  }
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'bigint') return `${value}n`;
  return String(value);
}
