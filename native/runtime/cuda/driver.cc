#include "runtime/cuda/driver.h"

#include <array>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "core/error.h"
#include "runtime/shared_library.h"

namespace node_tensorrt::cuda {
namespace {

// From cuda.h: CUresult, CUdevice and CUdevice_attribute are ints there.
constexpr int kSuccess = 0;
constexpr int kComputeCapabilityMajor = 75;
constexpr int kComputeCapabilityMinor = 76;

// The first word that is a version: "580.65.06".
std::string firstVersion(const std::string& text) {
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const bool digits = word.find_first_not_of("0123456789.") == std::string::npos;
    if (digits && word.front() != '.' && word.back() != '.' && word.find('.') != std::string::npos)
      return word;
  }
  return "";
}

// The kernel module's own words, else NVML's, which also speaks where there is no such file (WSL).
std::string driverVersion(const DriverFiles& files) {
  std::ifstream module(files.kernelModule);
  std::string line;
  if (std::getline(module, line)) {
    if (std::string version = firstVersion(line); !version.empty()) return version;
  }
  try {
    const SharedLibrary nvml = SharedLibrary::open(files.nvml);
    if (nvml.symbol<int()>("nvmlInit_v2")() != 0) return "";
    std::array<char, 96> version = {};
    const int status =
        nvml.symbol<int(char*, unsigned)>("nvmlSystemGetDriverVersion")(version.data(), version.size());
    nvml.symbol<int()>("nvmlShutdown")();
    return status == 0 ? version.data() : "";
  } catch (const Error&) {
    return "";
  }
}

// Calls `name` in the driver; throws Error(ERR_NO_GPU) that names it and CUDA's error.
class Driver {
 public:
  explicit Driver(const std::string& path) : library_(SharedLibrary::open(path)) {}

  template <class... Parameters, class... Arguments>
  void call(const char* name, int (*)(Parameters...), Arguments... arguments) const {
    const int status = library_.symbol<int(Parameters...)>(name)(arguments...);
    if (status == kSuccess) return;
    const char* error = nullptr;
    auto* errorName = library_.find<int(int, const char**)>("cuGetErrorName");
    if (errorName == nullptr || errorName(status, &error) != kSuccess || error == nullptr)
      error = "unknown error";
    throw Error("ERR_NO_GPU", std::string("The CUDA driver's ") + name + " failed with " + error + " (" +
                                  std::to_string(status) + ").");
  }

 private:
  SharedLibrary library_;
};

template <class... Parameters>
using Function = int (*)(Parameters...);

}  // namespace

Report probe(const DriverFiles& files) {
  Report report;
  report.driver = driverVersion(files);
  try {
    std::optional<Driver> opened;
    try {
      opened.emplace(files.cuda);
    } catch (const Error& error) {
      report.error = std::string("There is no NVIDIA driver here. ") + error.what();
      return report;
    }
    const Driver& driver = *opened;
    driver.call("cuInit", Function<unsigned>{}, 0u);
    int version = 0;
    driver.call("cuDriverGetVersion", Function<int*>{}, &version);
    // 13010 for 13.1
    report.cudaVersion = std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10);
    int count = 0;
    driver.call("cuDeviceGetCount", Function<int*>{}, &count);
    for (int ordinal = 0; ordinal < count; ++ordinal) {
      Gpu gpu;
      int device = 0;
      std::array<char, 256> name = {};
      driver.call("cuDeviceGet", Function<int*, int>{}, &device, ordinal);
      driver.call("cuDeviceGetName", Function<char*, int, int>{}, name.data(),
                  static_cast<int>(name.size() - 1), device);
      driver.call("cuDeviceGetAttribute", Function<int*, int, int>{}, &gpu.major, kComputeCapabilityMajor,
                  device);
      driver.call("cuDeviceGetAttribute", Function<int*, int, int>{}, &gpu.minor, kComputeCapabilityMinor,
                  device);
      driver.call("cuDeviceTotalMem_v2", Function<size_t*, int>{}, &gpu.memory, device);
      gpu.name = name.data();
      report.gpus.push_back(std::move(gpu));
    }
    if (report.gpus.empty()) report.error = "The CUDA driver reports no GPU.";
  } catch (const Error& error) {
    report.gpus.clear();
    report.error = error.what();
  }
  return report;
}

}  // namespace node_tensorrt::cuda
