// The CUDA driver, opened at run time: its functions, and what it says of this machine's GPUs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/shared_library.h"

// Types of cuda.h. TensorRT's cudaStream_t and cudaEvent_t are these pointers too.
struct CUctx_st;
struct CUstream_st;
struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;

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

// The places where the driver is looked for.
struct DriverFiles {
  std::string cuda = "libcuda.so.1";
  std::string nvml = "libnvidia-ml.so.1";
  std::string kernelModule = "/proc/driver/nvidia/version";
};

// Initialises CUDA in this process on the first call, which takes some hundred milliseconds where there is a
// GPU. Any thread.
Report probe(const DriverFiles& files = {});

using DevicePointer = unsigned long long;  // CUdeviceptr

// CUmemorytype
enum class MemoryKind : unsigned { kHost = 1, kDevice = 2 };

// One side of CUDA_MEMCPY2D, whose members these are, in its order.
struct PitchedMemory {
  size_t xInBytes = 0;
  size_t y = 0;
  MemoryKind kind = MemoryKind::kDevice;
  const void* host = nullptr;
  DevicePointer device = 0;
  void* array = nullptr;
  size_t pitch = 0;
};

// CUDA_MEMCPY2D: `height` blocks of `widthInBytes`, whose beginnings lie a pitch apart.
struct PitchedCopy {
  PitchedMemory from;
  PitchedMemory to;
  size_t widthInBytes = 0;
  size_t height = 0;
};

// One of the driver's functions. CUresult, CUdevice and enumerations are ints in its interface.
template <class... Parameters>
class Function {
 public:
  Function(const SharedLibrary& library, const char* name)
      : name_(name), address_(library.find<int(Parameters...)>(name)) {}

  const char* name() const noexcept { return name_; }
  // 0 is success; 34, CUDA_ERROR_STUB_LIBRARY, also says that this driver has no such function.
  int operator()(Parameters... arguments) const noexcept {
    return address_ != nullptr ? address_(arguments...) : 34;
  }

 private:
  const char* name_;
  int (*address_)(Parameters...);
};

// The functions that we call, by the names that cuda.h's macros give the newest of each.
class Driver {
  const SharedLibrary library_;

 public:
  // Opens `libcuda.so.1` and initialises CUDA, once per process; it stays loaded. Throws Error(ERR_NO_GPU).
  // Any thread.
  static const Driver& instance();

  // Throws Error(ERR_LIBRARY_NOT_FOUND).
  explicit Driver(const std::string& path) : library_(SharedLibrary::open(path)) {}

  // Calls `function`. A failure becomes an Error that names it and CUDA's error: ERR_OUT_OF_MEMORY,
  // ERR_NO_GPU or ERR_EXECUTION_FAILED.
  template <class... Parameters, class... Arguments>
  void call(const Function<Parameters...>& function, Arguments... arguments) const {
    if (const int status = function(arguments...); status != 0) fail(function.name(), status);
  }

  // The file behind the name that it was opened by.
  std::string file() const;

  // Throws as call() does.
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
  // cuda.h has an _v2 from CUDA 12.8 on, for events that were never recorded; every driver has this one.
  const Function<float*, CUevent_st*, CUevent_st*> eventElapsedTime{library_, "cuEventElapsedTime"};

  const Function<CUgraphExec_st**, CUgraph_st*, unsigned long long> graphInstantiate{
      library_, "cuGraphInstantiateWithFlags"};
  const Function<CUgraphExec_st*, CUstream_st*> graphLaunch{library_, "cuGraphLaunch"};
  const Function<CUgraph_st*> graphDestroy{library_, "cuGraphDestroy"};
  const Function<CUgraphExec_st*> graphExecDestroy{library_, "cuGraphExecDestroy"};
};

// The GPU with this ordinal. Throws as Driver::call.
Gpu describe(const Driver& driver, int ordinal);

}  // namespace node_tensorrt::cuda
