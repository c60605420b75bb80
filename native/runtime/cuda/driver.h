// The CUDA driver, opened at run time: its functions, and information about this machine's GPUs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/shared_library.h"

// These types have cuda.h's names. TensorRT's cudaStream_t and cudaEvent_t point to them too.
struct CUctx_st;
struct CUstream_st;
struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;

namespace node_tensorrt::cuda {

// What is known about a GPU.
struct Gpu {
  std::string name;
  int major = 0;  // compute capability: 8 and 9 for sm_89
  int minor = 0;
  // Bytes. If NVML tells, the GPU's whole memory, as nvidia-smi shows it; otherwise the memory that the
  // driver leaves to programs.
  size_t memory = 0;
  std::string uuid;      // GPU-…, or MIG-… for a part of a GPU; empty if the driver is too old
  std::string pciBusId;  // 0000:1b:00.0
};

// The driver and the GPUs of this machine. Without a usable driver or a GPU, `error` is a sentence that says
// why, and `gpus` is empty.
struct Report {
  std::string library;      // path of the libcuda that was opened; empty if none was
  std::string driver;       // e.g. 580.65.06; empty if unknown
  std::string cudaVersion;  // the newest CUDA the driver supports, e.g. 13.0
  std::vector<Gpu> gpus;
  std::string error;
};

// The files that are used to find the driver.
struct DriverFiles {
  std::string cuda = "libcuda.so.1";
  std::string nvml = "libnvidia-ml.so.1";
  std::string kernelModule = "/proc/driver/nvidia/version";
};

// Looks for the driver and its GPUs. The first call initializes CUDA in this process, which takes a few
// hundred milliseconds if there is a GPU. Any thread.
Report probe(const DriverFiles& files = {});

using DevicePointer = unsigned long long;  // CUdeviceptr

// CUmemorytype
enum class MemoryKind : unsigned { kHost = 1, kDevice = 2 };

// One side of a CUDA_MEMCPY2D. The members and their order are the same.
struct PitchedMemory {
  size_t xInBytes = 0;
  size_t y = 0;
  MemoryKind kind = MemoryKind::kDevice;
  const void* host = nullptr;
  DevicePointer device = 0;
  void* array = nullptr;
  size_t pitch = 0;
};

// A CUDA_MEMCPY2D: copies `height` blocks of `widthInBytes` each, whose beginnings are a pitch apart.
struct PitchedCopy {
  PitchedMemory from;
  PitchedMemory to;
  size_t widthInBytes = 0;
  size_t height = 0;
};

// A function of the driver. CUresult, CUdevice and enumerations are ints in its interface.
template <class... Parameters>
class Function {
 public:
  Function(const SharedLibrary& library, const char* name)
      : name_(name), address_(library.find<int(Parameters...)>(name)) {}

  const char* name() const noexcept { return name_; }
  // Returns 0 for success. Returns 34 (CUDA_ERROR_STUB_LIBRARY) also if this driver doesn't have the
  // function.
  int operator()(Parameters... arguments) const noexcept {
    return address_ != nullptr ? address_(arguments...) : 34;
  }

 private:
  const char* name_;
  int (*address_)(Parameters...);
};

// The functions that we call. Each uses the newest name that cuda.h's macros give it.
class Driver {
  const SharedLibrary library_;

 public:
  // Opens `libcuda.so.1` and initializes CUDA, once per process. The library stays loaded. Throws
  // Error(ERR_NO_GPU). Any thread.
  static const Driver& instance();

  // Opens this file as the driver, without initializing CUDA. Throws Error(ERR_LIBRARY_NOT_FOUND).
  explicit Driver(const std::string& path) : library_(SharedLibrary::open(path)) {}

  // Calls `function`. If it fails, throws an Error that names the function and CUDA's error:
  // ERR_OUT_OF_MEMORY, ERR_NO_GPU or ERR_EXECUTION_FAILED.
  template <class... Parameters, class... Arguments>
  void call(const Function<Parameters...>& function, Arguments... arguments) const {
    if (const int status = function(arguments...); status != 0) fail(function.name(), status);
  }

  // Path of the file that was opened.
  std::string file() const;

  // Throws the error that call() throws for this status.
  [[noreturn]] void fail(const char* name, int status) const;

  const Function<unsigned> init{library_, "cuInit"};
  const Function<int*> driverGetVersion{library_, "cuDriverGetVersion"};
  const Function<int, const char**> getErrorName{library_, "cuGetErrorName"};

  const Function<int*> deviceGetCount{library_, "cuDeviceGetCount"};
  const Function<int*, int> deviceGet{library_, "cuDeviceGet"};
  const Function<char*, int, int> deviceGetName{library_, "cuDeviceGetName"};
  const Function<int*, int, int> deviceGetAttribute{library_, "cuDeviceGetAttribute"};
  const Function<size_t*, int> deviceTotalMem{library_, "cuDeviceTotalMem_v2"};
  const Function<unsigned char*, int> deviceGetUuid{library_, "cuDeviceGetUuid_v2"};
  const Function<char*, int, int> deviceGetPciBusId{library_, "cuDeviceGetPCIBusId"};

  const Function<CUctx_st**, int> devicePrimaryCtxRetain{library_, "cuDevicePrimaryCtxRetain"};
  const Function<CUctx_st*> ctxPushCurrent{library_, "cuCtxPushCurrent_v2"};
  const Function<CUctx_st**> ctxPopCurrent{library_, "cuCtxPopCurrent_v2"};
  const Function<int*> threadExchangeStreamCaptureMode{library_, "cuThreadExchangeStreamCaptureMode"};

  const Function<size_t*, size_t*> memGetInfo{library_, "cuMemGetInfo_v2"};
  const Function<DevicePointer*, size_t> memAlloc{library_, "cuMemAlloc_v2"};
  const Function<DevicePointer> memFree{library_, "cuMemFree_v2"};
  const Function<void**, size_t, unsigned> memHostAlloc{library_, "cuMemHostAlloc"};
  const Function<void*> memFreeHost{library_, "cuMemFreeHost"};
  const Function<DevicePointer, const void*, size_t, CUstream_st*> memcpyHtoDAsync{library_,
                                                                                   "cuMemcpyHtoDAsync_v2"};
  const Function<void*, DevicePointer, size_t, CUstream_st*> memcpyDtoHAsync{library_,
                                                                             "cuMemcpyDtoHAsync_v2"};
  const Function<DevicePointer, DevicePointer, size_t, CUstream_st*> memcpyDtoDAsync{library_,
                                                                                     "cuMemcpyDtoDAsync_v2"};
  const Function<const PitchedCopy*, CUstream_st*> memcpy2DAsync{library_, "cuMemcpy2DAsync_v2"};
  const Function<DevicePointer, unsigned char, size_t, CUstream_st*> memsetD8Async{library_,
                                                                                   "cuMemsetD8Async"};
  const Function<DevicePointer, size_t, unsigned char, size_t, size_t, CUstream_st*> memsetD2D8Async{
      library_, "cuMemsetD2D8Async"};

  const Function<CUstream_st**, unsigned> streamCreate{library_, "cuStreamCreate"};
  const Function<CUstream_st*> streamDestroy{library_, "cuStreamDestroy_v2"};
  const Function<CUstream_st*> streamSynchronize{library_, "cuStreamSynchronize"};
  const Function<CUstream_st*, int> streamBeginCapture{library_, "cuStreamBeginCapture_v2"};
  const Function<CUstream_st*, CUgraph_st**> streamEndCapture{library_, "cuStreamEndCapture"};

  const Function<CUevent_st**, unsigned> eventCreate{library_, "cuEventCreate"};
  const Function<CUevent_st*> eventDestroy{library_, "cuEventDestroy_v2"};
  const Function<CUevent_st*, CUstream_st*> eventRecord{library_, "cuEventRecord"};
  const Function<CUevent_st*> eventSynchronize{library_, "cuEventSynchronize"};
  // Since CUDA 12.8, cuda.h has a _v2 of this, which differs for events that were never recorded. Every
  // driver has this one.
  const Function<float*, CUevent_st*, CUevent_st*> eventElapsedTime{library_, "cuEventElapsedTime"};

  const Function<CUgraphExec_st**, CUgraph_st*, unsigned long long> graphInstantiate{
      library_, "cuGraphInstantiateWithFlags"};
  const Function<CUgraphExec_st*, CUstream_st*> graphLaunch{library_, "cuGraphLaunch"};
  const Function<CUgraph_st*> graphDestroy{library_, "cuGraphDestroy"};
  const Function<CUgraphExec_st*> graphExecDestroy{library_, "cuGraphExecDestroy"};
};

// Returns what is known about the GPU with this ordinal. Throws as Driver::call.
Gpu describe(const Driver& driver, int ordinal);

}  // namespace node_tensorrt::cuda
