/** Native memory behind an ArrayBuffer; runs use it without a copy. */
export interface HostBuffer {
  /** undefined if the host doesn't allow an ArrayBuffer over native memory. */
  readonly arrayBuffer: ArrayBuffer | undefined;
}

/** A tensor in a GPU's memory: an opaque handle. */
export interface DeviceTensor {
  readonly deviceTensor: unique symbol;
}

export type NativeInput = ArrayBufferView | HostBuffer | DeviceTensor | readonly string[];

/** `[type, dims, data]`; without data if the run wrote into a HostBuffer of the caller. */
export type NativeOutput = [
  type: number,
  dims: number[],
  data: ArrayBuffer | DeviceTensor | string[] | undefined,
];
