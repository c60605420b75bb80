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

constexpr char kSupported[] = "node-tensorrt supports TensorRT-RTX 1.5 and later 1.x.";

// The builds of this process. When it exits they must have ended before the libraries' static objects are
// destroyed, which they use.
class Builds {
 public:
  static Builds& instance() {
    static Builds& builds = *new Builds;
    return builds;
  }

  // Call after each opening: exit handlers run in reverse order, so that this one precedes the library's own.
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
      // Nothing more may run on this thread beside the exit handlers.
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
    // TensorRT is within a long step. The handlers left to run are those of libraries it uses.
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

std::shared_ptr<const Library> openFlavour(const std::string& path) {
  SharedLibrary core = SharedLibrary::open(path);
  // TensorRT does not check which headers its caller was compiled against: everything is decided here, before
  // the first object is created.
  Version version;
  constexpr std::array kParts = {"getInferLibMajorVersion", "getInferLibMinorVersion",
                                 "getInferLibPatchVersion"};
  for (size_t i = 0; i < kParts.size(); ++i) {
    auto* part = core.find<int32_t()>(kParts[i]);
    if (part == nullptr) {
      throw Error("ERR_LIBRARY_UNSUPPORTED", path + " is not a TensorRT library. " + kSupported);
    }
    version[i] = part();
  }
  const std::string found = toString(version);
  // TensorRT itself has counted from 10 since its interface changed last; only TensorRT-RTX is at 1.
  if (version[0] != 1) {
    throw Error("ERR_LIBRARY_UNSUPPORTED",
                path + " is TensorRT " + found + ", not TensorRT-RTX. " + kSupported);
  }
  // 1.5 broke the interface of 1.4; from then on each release only appended to it (headers 1.5 to 1.7).
  if (version[1] < 5) {
    throw Error("ERR_LIBRARY_UNSUPPORTED", path + " is TensorRT-RTX " + found + ". " + kSupported);
  }

  const std::string parserPath =
      (std::filesystem::path(path).parent_path() / "libtensorrt_onnxparser_rtx.so.1").string();
  if (!std::filesystem::exists(parserPath)) {
    throw Error("ERR_LIBRARY_NOT_FOUND",
                "TensorRT-RTX's ONNX parser is missing: " + parserPath + " belongs beside " + path + ".");
  }
  SharedLibrary parser = SharedLibrary::open(parserPath);
  // The interface's own version, in two decimal digits each: 0.1 in TensorRT-RTX 1.5, 0.2 in 1.6 and 1.7,
  // which appended to it (NvOnnxParser.h).
  const int parserInterface = (*parser.symbol<int()>("getNvOnnxParserVersion"))() / 100;
  const bool matches = version[1] == 5 ? parserInterface == 1 : parserInterface >= 2 && parserInterface < 100;
  if (!matches) {
    throw Error("ERR_LIBRARY_UNSUPPORTED",
                parserPath + ", whose interface is " + std::to_string(parserInterface / 100) + '.' +
                    std::to_string(parserInterface % 100) + ", does not belong to " + path +
                    ", which is TensorRT-RTX " + found + ": install both from one release.");
  }
  return rtx::createLibrary({std::move(core), std::move(parser), found});
}

}  // namespace

std::shared_ptr<const Library> Library::open(const std::string& path) {
  // The loaded libraries, for the life of the process. Not destroyed: threads may still use them at exit.
  static std::mutex& mutex = *new std::mutex;
  static auto& libraries = *new std::map<std::string, std::shared_ptr<const Library>>;
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::canonical(path, error);
  if (error) {
    throw Error("ERR_LIBRARY_NOT_FOUND", "Could not open " + path + ": " + error.message() + ".");
  }
  std::lock_guard lock(mutex);
  std::shared_ptr<const Library>& library = libraries[canonical.string()];
  if (!library) {
    library = openFlavour(path);
    Builds::instance().stopAtExit();
  }
  return library;
}

BuildResult Library::buildPlan(const BuildRequest& request, std::stop_token stop,
                               BuildObserver& observer) const {
  Builds::Entry entry;
  const std::stop_callback forward(stop, [&entry] { entry.stop().request_stop(); });
  return build(request, entry.stop().get_token(), observer);
}

}  // namespace node_tensorrt::tensorrt
