// The CUDA driver, opened at run time: what it says of this machine's GPUs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace node_tensorrt::cuda {

struct Gpu {
  std::string name;
  int major = 0;  // compute capability: 8 and 9 for sm_89
  int minor = 0;
  // Bytes: all that NVML counts, as nvidia-smi shows it; what the driver leaves to programs where NVML is
  // silent.
  size_t memory = 0;
  std::string uuid;      // GPU-…, or MIG-… for a part of one; empty where the driver is too old to say
  std::string pciBusId;  // 0000:1b:00.0
};

// Without a usable driver, or without a GPU, `error` is a sentence that says why, and `gpus` is empty.
struct Report {
  std::string library;      // the file of libcuda that was opened; empty without one
  std::string driver;       // e.g. 580.65.06; empty where nothing tells
  std::string cudaVersion;  // the newest CUDA the driver supports, e.g. 13.0
  std::vector<Gpu> gpus;
  std::string error;
};

// Where the driver is looked for.
struct DriverFiles {
  std::string cuda = "libcuda.so.1";
  std::string nvml = "libnvidia-ml.so.1";
  std::string kernelModule = "/proc/driver/nvidia/version";
};

// Initialises CUDA in this process on the first call, which takes some hundred milliseconds where there is a
// GPU. Any thread.
Report probe(const DriverFiles& files = {});

}  // namespace node_tensorrt::cuda
