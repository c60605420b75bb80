#include "runtime/tensorrt/plugins.h"

#include <unistd.h>

#include <utility>

#include "runtime/shared_library.h"
#include "runtime/tensorrt/flavour.h"
#include "runtime/tensorrt/messages.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

Plugins::Plugins(std::string path) : path_(std::move(path)) {}

bool Plugins::registerAll(const std::stop_token& stop) {
  const Opening opening(stop);
  if (registered_ || ::access(path_.c_str(), F_OK) != 0) return registered_;
  const SharedLibrary plugins = SharedLibrary::open(path_);
  nvinfer1::ILogger* logger = &Logger::instance();
  registered_ = (*plugins.symbol<bool(void*, const char*)>("initLibNvInferPlugins"))(logger, "");
  opening.opened();
  return registered_;
}

std::string Plugins::whyLacking() const {
  if (path_.empty()) return " TensorRT-RTX has no plugins, which TensorRT has.";
  if (registered_) return "";
  const bool isThere = ::access(path_.c_str(), F_OK) == 0;
  return " The library of TensorRT's own plugins, " + path_ +
         (isThere ? ", could not be initialised." : ", is not there.");
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
