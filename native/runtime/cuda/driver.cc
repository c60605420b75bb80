#include "runtime/cuda/driver.h"

#include <dlfcn.h>

#include <array>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
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

// NVIDIA's management library, whose words are nvidia-smi's. Silent where it is missing or fails.
class Nvml {
 public:
  explicit Nvml(const std::string& path) {
    try {
      library_.emplace(SharedLibrary::open(path));
      running_ = library_->symbol<int()>("nvmlInit_v2")() == kSuccess;
    } catch (const Error&) {
    }
  }
  ~Nvml() {
    if (auto* shutdown = find<int()>("nvmlShutdown")) shutdown();
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  std::string driverVersion() const {
    std::array<char, 96> version = {};
    auto* ask = find<int(char*, unsigned)>("nvmlSystemGetDriverVersion");
    return ask != nullptr && ask(version.data(), version.size()) == kSuccess ? version.data() : "";
  }

  // `gpu.uuid` is what CUDA says. A part of a GPU (MIG) has one of its own.
  void describe(Gpu& gpu) const {
    struct {
      unsigned long long total, free, used;
    } memory = {};
    auto* handle = find<int(const char*, void**)>("nvmlDeviceGetHandleByUUID");
    auto* ask = find<int(void*, void*)>("nvmlDeviceGetMemoryInfo");
    if (handle == nullptr || ask == nullptr) return;
    for (const char* kind : {"GPU-", "MIG-"}) {
      const std::string uuid = kind + gpu.uuid.substr(4);
      void* device = nullptr;
      if (handle(uuid.c_str(), &device) != kSuccess) continue;
      gpu.uuid = uuid;
      if (ask(device, &memory) == kSuccess) gpu.memory = memory.total;
      return;
    }
  }

 private:
  template <class F>
  F* find(const char* name) const {
    return running_ ? library_->find<F>(name) : nullptr;
  }

  std::optional<SharedLibrary> library_;
  bool running_ = false;
};

// The kernel module's own words, else NVML's, which also speaks where there is no such file (WSL).
std::string driverVersion(const DriverFiles& files, const Nvml& nvml) {
  std::ifstream module(files.kernelModule);
  std::string line;
  if (std::getline(module, line)) {
    if (std::string version = firstVersion(line); !version.empty()) return version;
  }
  return nvml.driverVersion();
}

// 16 bytes as nvidia-smi writes them: GPU-8d12c5e9-….
std::string uuidText(const std::array<unsigned char, 16>& bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text = "GPU-";
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
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

  template <class F>
  F* find(const char* name) const {
    return library_.find<F>(name);
  }

  // The file behind the name that it was opened by.
  std::string file() const {
    Dl_info found = {};
    void* symbol = reinterpret_cast<void*>(library_.find<int(unsigned)>("cuInit"));
    return symbol != nullptr && dladdr(symbol, &found) != 0 ? found.dli_fname : library_.path();
  }

 private:
  SharedLibrary library_;
};

template <class... Parameters>
using Function = int (*)(Parameters...);

}  // namespace

Report probe(const DriverFiles& files) {
  Report report;
  const Nvml nvml(files.nvml);
  report.driver = driverVersion(files, nvml);
  try {
    std::optional<Driver> opened;
    try {
      opened.emplace(files.cuda);
    } catch (const Error& error) {
      report.error = std::string("There is no NVIDIA driver here. ") + error.what();
      return report;
    }
    const Driver& driver = *opened;
    report.library = driver.file();
    int version = 0;
    driver.call("cuDriverGetVersion", Function<int*>{}, &version);
    // 13010 for 13.1
    report.cudaVersion = std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10);
    driver.call("cuInit", Function<unsigned>{}, 0u);
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
      std::array<unsigned char, 16> uuid = {};
      if (auto* ask = driver.find<int(void*, int)>("cuDeviceGetUuid_v2");
          ask && ask(uuid.data(), device) == kSuccess) {
        gpu.uuid = uuidText(uuid);
        nvml.describe(gpu);
      }
      std::array<char, 32> bus = {};
      if (auto* ask = driver.find<int(char*, int, int)>("cuDeviceGetPCIBusId");
          ask && ask(bus.data(), static_cast<int>(bus.size()), device) == kSuccess) {
        gpu.pciBusId = bus.data();
      }
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
