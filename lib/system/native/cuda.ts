export interface NativeGpu {
  name: string;
  /** `[8, 9]` for sm_89. */
  computeCapability: [number, number];
  /** Bytes, as nvidia-smi counts them. */
  memory: number;
  /** 'GPU-…', 'MIG-…'; '' if the driver is too old to give one. */
  uuid: string;
  /** e.g. '0000:1b:00.0'. */
  pciBusId: string;
}

/** The facts that libcuda.so.1 and NVML report; '' for those that neither reports. */
export type NativeCuda = {
  /** The file of libcuda that was opened. */
  library: string;
  /** The driver's version, e.g. '580.65.06'. */
  driver: string;
  /** The newest CUDA that it supports, e.g. '13.0'. */
  cudaVersion: string;
} & (
  | { gpus: [NativeGpu, ...NativeGpu[]]; error?: undefined }
  | { /** The reason why there is no usable GPU. */ error: string; gpus: [] }
);
