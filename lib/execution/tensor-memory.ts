import type { TensorLike } from '../base/tensor-like.js';
import type { DeviceTensor, HostBuffer } from '../system/native/tensor.js';

/** The native memory of tensors made by `Tensor.allocate`. */
export const hostBuffers = new WeakMap<object, HostBuffer>();

/** The native memory behind `tensor`, if `Tensor.allocate` made it and it isn't disposed. */
export function hostBufferOf(tensor: TensorLike): HostBuffer | undefined {
  return hostBuffers.get(tensor);
}

/** The GPU memory of tensors on a GPU. */
export const deviceTensors = new WeakMap<object, DeviceTensor>();

/** The GPU memory behind `tensor`, if it is on a GPU, even if it is disposed. */
export function deviceTensorOf(tensor: TensorLike): DeviceTensor | undefined {
  return deviceTensors.get(tensor);
}
