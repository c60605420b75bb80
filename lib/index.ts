export type { DataType } from './data-type.js';
export { type ErrorCode, TensorRTError } from './errors.js';
export {
  type Feeds,
  type Fetches,
  InferenceSession,
  type RunOptions,
  type SessionOptions,
  type ValueMetadata,
} from './session.js';
export { type Dims, Tensor, type TensorLike } from './tensor.js';
