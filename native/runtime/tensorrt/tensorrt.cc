#include "runtime/tensorrt/tensorrt.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "core/error.h"
#include "runtime/tensorrt/flavour.h"

namespace node_tensorrt::tensorrt {
namespace {

using Version = std::array<int, 3>;

std::string toString(const Version& version) {
  return std::to_string(version[0]) + '.' + std::to_string(version[1]) + '.' + std::to_string(version[2]);
}

constexpr char kSupported[] =
    "node-tensorrt supports TensorRT 10.11 and later 10.x, TensorRT 11, and TensorRT-RTX 1.5 and later 1.x.";

// All builds of this process. When it exits, they must end before the static objects of the libraries are
// destroyed, because builds use these.
class Builds {
 public:
  static Builds& instance() {
    static Builds& builds = *new Builds;
    return builds;
  }

  // Call this after each opening. Exit handlers run in reverse order, so this one runs before the library's.
  void stopAtExit() {
    ::on_exit([](int status, void*) { instance().end(status); }, nullptr);
  }

  class Entry {
   public:
    Entry() {
      Builds& builds = instance();
      std::lock_guard lock(builds.mutex_);
      builds.running_.insert(&stop_);
    }
    Entry(const Entry&) = delete;
    ~Entry() {
      Builds& builds = instance();
      std::unique_lock lock(builds.mutex_);
      builds.running_.erase(&stop_);
      builds.ended_.notify_all();
      // Nothing more may run on this thread while the exit handlers run.
      while (builds.exiting_) builds.never_.wait(lock);
    }

    std::stop_source& stop() { return stop_; }

   private:
    std::stop_source stop_;
  };

 private:
  void end(int status) {
    std::unique_lock lock(mutex_);
    if (running_.empty()) return;
    exiting_ = true;
    for (std::stop_source* stop : running_) stop->request_stop();
    if (ended_.wait_for(lock, kGrace, [this] { return running_.empty(); })) return;
    // TensorRT is in a long step. The remaining exit handlers belong to libraries that it uses, so skip them.
    std::fflush(nullptr);
    ::_exit(status);
  }

  static constexpr std::chrono::seconds kGrace{2};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::condition_variable never_;
  std::set<std::stop_source*> running_;
  bool exiting_ = false;
};

// Returns the version that `core` reports. TensorRT doesn't check which headers its caller was compiled with,
// so this decides everything, before the first object is created.
Version versionOf(const SharedLibrary& core) {
  constexpr std::array kParts = {"getInferLibMajorVersion", "getInferLibMinorVersion",
                                 "getInferLibPatchVersion"};
  Version version;
  for (size_t i = 0; i < kParts.size(); ++i) {
    auto* part = core.find<int32_t()>(kParts[i]);
    if (part == nullptr) {
      throw Error("ERR_LIBRARY_UNSUPPORTED", core.path() + " is not a TensorRT library. " + kSupported);
    }
    version[i] = part();
  }
  return version;
}

// Determines the flavour. Within a flavour, each release only appended to the interfaces of the previous one:
// TensorRT 10.9 to 10.16, 11.0 to 11.4, TensorRT-RTX 1.5 to 1.7 (headers).
// IOptimizationProfile::setShapeValuesV2 exists since 10.11. TensorRT-RTX 1.4 has a different interface.
Flavour flavourOf(const std::string& path, const Version& version) {
  const auto [major, minor, patch] = version;
  // TensorRT-RTX began with version 1 when TensorRT was at 10.
  const bool isRtx =
      major == 1 || std::filesystem::path(path).filename().string().starts_with("libtensorrt_rtx");
  if (isRtx && major == 1 && minor >= 5) return Flavour::kRtx;
  if (!isRtx && major == 10 && minor >= 11) return Flavour::kTrt10;
  if (!isRtx && major == 11) return Flavour::kTrt11;
  throw Error("ERR_LIBRARY_UNSUPPORTED",
              path + (isRtx ? " is TensorRT-RTX " : " is TensorRT ") + toString(version) + ". " + kSupported);
}

// Opens the ONNX parser that belongs to the core library `path`, from the same folder.
SharedLibrary openParser(const std::string& path, Flavour flavour, const Version& version) {
  const bool isRtx = flavour == Flavour::kRtx;
  const std::string product = isRtx ? "TensorRT-RTX" : "TensorRT";
  const std::string file =
      isRtx ? "libtensorrt_onnxparser_rtx.so.1" : "libnvonnxparser.so." + std::to_string(version[0]);
  const std::string parserPath = (std::filesystem::path(path).parent_path() / file).string();
  if (!std::filesystem::exists(parserPath)) {
    throw Error("ERR_LIBRARY_NOT_FOUND",
                product + "'s ONNX parser is missing: " + parserPath + " belongs beside " + path + ".");
  }
  SharedLibrary parser = SharedLibrary::open(parserPath);
  // The version of the parser's interface has two decimal digits per part (NvOnnxParser.h). It is 0.1 in
  // TensorRT 10, TensorRT 11.0 and TensorRT-RTX 1.5. It is 0.2, which appended to 0.1, in TensorRT 11.4 and
  // in TensorRT-RTX 1.6 and 1.7.
  const int interface = (*parser.symbol<int()>("getNvOnnxParserVersion"))() / 100;
  const int least = isRtx && version[1] > 5 ? 2 : 1;
  const int most = flavour == Flavour::kTrt10 || (isRtx && version[1] == 5) ? 1 : 99;
  if (interface < least || interface > most) {
    throw Error("ERR_LIBRARY_UNSUPPORTED",
                parserPath + ", whose interface is " + std::to_string(interface / 100) + '.' +
                    std::to_string(interface % 100) + ", does not belong to " + path + ", which is " +
                    product + ' ' + toString(version) + ": install both from one release.");
  }
  return parser;
}

// Tells TensorRT the folder of its libraries. While it compiles, it opens libraries by their bare names
// (libnvinfer_builder_resource…), and the loader can't find these if the core library was opened by its path.
// TensorRT 10 searches its own folder through its run path (readelf, 10.15.1). Later versions are told the
// folder if it contains those libraries; otherwise the loader's search is more likely to find them. Opening
// them beforehand wouldn't help, because their sonames differ from those names.
void tellFolder(const SharedLibrary& core) {
  const auto setPath = core.find<bool(const char*) noexcept>("setInternalLibraryPath");
  if (setPath == nullptr) return;
  const std::filesystem::path folder = std::filesystem::absolute(core.path()).parent_path();
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(folder, unreadable)) {
    if (!entry.path().filename().string().starts_with("libnvinfer_builder_resource")) continue;
    setPath(folder.c_str());
    return;
  }
}

std::shared_ptr<const Library> openLibrary(const std::string& path) {
  SharedLibrary core = SharedLibrary::open(path);
  const Version version = versionOf(core);
  const Flavour flavour = flavourOf(path, version);
  SharedLibrary parser = openParser(path, flavour, version);
  tellFolder(core);
  const std::string plugins = "libnvinfer_plugin.so." + std::to_string(version[0]);
  LibraryFiles files{
      std::move(core), std::move(parser), toString(version), capabilitiesOf(flavour, version[1]),
      flavour == Flavour::kRtx ? "" : (std::filesystem::path(path).parent_path() / plugins).string()};
  switch (flavour) {
    case Flavour::kTrt10:
      return trt10::createLibrary(std::move(files));
    case Flavour::kTrt11:
      return trt11::createLibrary(std::move(files));
    case Flavour::kRtx:
      return rtx::createLibrary(std::move(files));
  }
  return nullptr;
}

// Locked while a library is being opened.
std::mutex& openingMutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

}  // namespace

Opening::Opening(const std::stop_token& stop) : lock_(openingMutex()) {
  throwIfStopped(stop);
}

void Opening::opened() const {
  Builds::instance().stopAtExit();
}

const char* toString(Flavour flavour) noexcept {
  switch (flavour) {
    case Flavour::kTrt10:
      return "trt10";
    case Flavour::kTrt11:
      return "trt11";
    case Flavour::kRtx:
      return "rtx";
  }
  return "";
}

Capabilities capabilitiesOf(Flavour flavour, int minor) noexcept {
  const bool isRtx = flavour == Flavour::kRtx;
  const auto since10 = [&](int first) { return flavour != Flavour::kTrt10 || minor >= first; };
  return {.aheadOfTime = isRtx,
          .timingCache = !isRtx,
          .kvCache = since10(15),
          .keyValueLengths = flavour != Flavour::kTrt10,
          .runtimeCache = isRtx,
          .engineValidity = isRtx,
          .streamCapturable = isRtx,
          .engineStatistics = since10(14)};
}

std::shared_ptr<const Library> Library::open(const std::string& path, const std::stop_token& stop) {
  // The loaded libraries. Never destroyed, because threads may still use them at exit.
  static auto& libraries = *new std::map<std::string, std::shared_ptr<const Library>>;
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::canonical(path, error);
  if (error) {
    throw Error("ERR_LIBRARY_NOT_FOUND", "Could not open " + path + ": " + error.message() + ".");
  }
  const Opening opening(stop);
  std::shared_ptr<const Library>& library = libraries[canonical.string()];
  if (!library) {
    library = openLibrary(path);
    opening.opened();
  }
  return library;
}

void Library::awaitOpening() {
  std::lock_guard lock(openingMutex());
}

void Library::buildPlan(const BuildRequest& request, std::stop_token stop, BuildObserver& observer) const {
  Builds::Entry entry;
  const std::stop_callback forward(stop, [&entry] { entry.stop().request_stop(); });
  build(request, entry.stop().get_token(), observer);
}

ParseResult Library::parseModel(const std::string& model, const std::string& modelPath,
                                std::optional<int> device, std::stop_token stop) const {
  Builds::Entry entry;
  const std::stop_callback forward(std::move(stop), [&entry] { entry.stop().request_stop(); });
  return parse(model, modelPath, device, entry.stop().get_token());
}

}  // namespace node_tensorrt::tensorrt
