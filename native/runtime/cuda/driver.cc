#include "runtime/cuda/driver.h"

#include <dlfcn.h>

#include <array>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "runtime/shared_library.h"

namespace node_tensorrt::cuda {
namespace {

// Constants from cuda.h, where CUresult, CUdevice and CUdevice_attribute are ints.
constexpr int kSuccess = 0;
constexpr int kComputeCapabilityMajor = 75;
constexpr int kComputeCapabilityMinor = 76;

// Returns the first word that is a version, such as "580.65.06".
std::string firstVersion(const std::string& text) {
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const bool digits = word.find_first_not_of("0123456789.") == std::string::npos;
    if (digits && word.front() != '.' && word.back() != '.' && word.find('.') != std::string::npos)
      return word;
  }
  return "";
}

// NVIDIA's management library, which nvidia-smi uses. If it is missing or fails, its functions return
// nothing.
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

  // `gpu.uuid` is what CUDA says: a part of a GPU (MIG) has its own.
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

// Returns the version that the kernel module gives, or else NVML's, which also works where that file doesn't
// exist (WSL).
std::string driverVersion(const DriverFiles& files, const Nvml& nvml) {
  std::ifstream module(files.kernelModule);
  std::string line;
  if (std::getline(module, line)) {
    if (std::string version = firstVersion(line); !version.empty()) return version;
  }
  return nvml.driverVersion();
}

// Formats 16 bytes as nvidia-smi does: GPU-8d12c5e9-….
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

constexpr char kNoDriver[] = "There is no NVIDIA driver here. ";

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
      report.error = kNoDriver + std::string(error.what());
      return report;
    }
    const Driver& driver = *opened;
    report.library = driver.file();
    int version = 0;
    driver.call(driver.driverGetVersion, &version);
    // 13010 for 13.1
    report.cudaVersion = std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10);
    driver.call(driver.init, 0u);
    int count = 0;
    driver.call(driver.deviceGetCount, &count);
    for (int ordinal = 0; ordinal < count; ++ordinal) {
      report.gpus.push_back(describe(driver, ordinal));
      if (!report.gpus.back().uuid.empty()) nvml.describe(report.gpus.back());
    }
    if (report.gpus.empty()) report.error = "The CUDA driver reports no GPU.";
  } catch (const Error& error) {
    report.gpus.clear();
    report.error = error.what();
  }
  return report;
}

Gpu describe(const Driver& driver, int ordinal) {
  Gpu gpu;
  int device = 0;
  std::array<char, 256> name = {};
  driver.call(driver.deviceGet, &device, ordinal);
  driver.call(driver.deviceGetName, name.data(), static_cast<int>(name.size() - 1), device);
  driver.call(driver.deviceGetAttribute, &gpu.major, kComputeCapabilityMajor, device);
  driver.call(driver.deviceGetAttribute, &gpu.minor, kComputeCapabilityMinor, device);
  driver.call(driver.deviceTotalMem, &gpu.memory, device);
  gpu.name = name.data();
  std::array<unsigned char, 16> uuid = {};
  if (driver.deviceGetUuid(uuid.data(), device) == kSuccess) gpu.uuid = uuidText(uuid);
  std::array<char, 32> bus = {};
  if (driver.deviceGetPciBusId(bus.data(), static_cast<int>(bus.size()), device) == kSuccess) {
    gpu.pciBusId = bus.data();
  }
  return gpu;
}

std::string Driver::file() const {
  Dl_info found = {};
  void* symbol = reinterpret_cast<void*>(library_.find<int(unsigned)>(init.name()));
  return symbol != nullptr && dladdr(symbol, &found) != 0 ? found.dli_fname : library_.path();
}

const Driver& Driver::instance() {
  static std::mutex& mutex = *new std::mutex;
  static const Driver* driver = nullptr;  // never closed, because TensorRT's threads may be using it
  std::lock_guard lock(mutex);
  if (driver == nullptr) {
    std::unique_ptr<Driver> opened;
    try {
      opened = std::make_unique<Driver>(DriverFiles().cuda);
    } catch (const Error& error) {
      throw Error("ERR_NO_GPU", kNoDriver + std::string(error.what()));
    }
    opened->call(opened->init, 0u);
    driver = opened.release();
  }
  return *driver;
}

void Driver::fail(const char* name, int status) const {
  const char* error = nullptr;
  if (getErrorName(status, &error) != 0 || error == nullptr) error = "unknown error";
  std::string message = "The CUDA driver's ";
  message.append(name).append(" failed with ").append(error);
  message += " (" + std::to_string(status) + ").";
  switch (status) {
    case 2:  // CUDA_ERROR_OUT_OF_MEMORY
      throw Error("ERR_OUT_OF_MEMORY", "The GPU does not have enough memory. " + message);
    case 3:    // CUDA_ERROR_NOT_INITIALIZED
    case 34:   // CUDA_ERROR_STUB_LIBRARY
    case 46:   // CUDA_ERROR_DEVICE_UNAVAILABLE
    case 100:  // CUDA_ERROR_NO_DEVICE
    case 101:  // CUDA_ERROR_INVALID_DEVICE
    case 802:  // CUDA_ERROR_SYSTEM_NOT_READY
    case 803:  // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
    case 804:  // CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
      throw Error("ERR_NO_GPU", message);
    case 214:  // CUDA_ERROR_ECC_UNCORRECTABLE
    case 700:  // CUDA_ERROR_ILLEGAL_ADDRESS
    case 702:  // CUDA_ERROR_LAUNCH_TIMEOUT
    case 709:  // CUDA_ERROR_CONTEXT_IS_DESTROYED
    case 710:  // CUDA_ERROR_ASSERT
    case 714:  // CUDA_ERROR_HARDWARE_STACK_ERROR
    case 715:  // CUDA_ERROR_ILLEGAL_INSTRUCTION
    case 716:  // CUDA_ERROR_MISALIGNED_ADDRESS
    case 717:  // CUDA_ERROR_INVALID_ADDRESS_SPACE
    case 718:  // CUDA_ERROR_INVALID_PC
    case 719:  // CUDA_ERROR_LAUNCH_FAILED
      // cuda.h: "This leaves the process in an inconsistent state … the process must be terminated and
      // relaunched".
      throw Error("ERR_EXECUTION_FAILED",
                  message + " The GPU is lost to this process: dispose of its sessions and start another.");
    default:
      throw Error("ERR_EXECUTION_FAILED", message);
  }
}

}  // namespace node_tensorrt::cuda
