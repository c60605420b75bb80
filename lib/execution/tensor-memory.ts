import type { TensorLike } from '../base/tensor-like.js';
import type { DeviceTensor, HostBuffer } from '../system/native/tensor.js';

/** Native memory of tensors made by `Tensor.allocate`. */
export const hostBuffers = new WeakMap<object, HostBuffer>();

/** The native memory behind `tensor`, when it was allocated by `Tensor.allocate` and not disposed. */
export function hostBufferOf(tensor: TensorLike): HostBuffer | undefined {
  return hostBuffers.get(tensor);
}

/** The GPU memory of tensors that lie there. */
export const deviceTensors = new WeakMap<object, DeviceTensor>();

/** The GPU memory behind `tensor`, where it lies on a GPU; disposed or not. */
export function deviceTensorOf(tensor: TensorLike): DeviceTensor | undefined {
  return deviceTensors.get(tensor);
}
