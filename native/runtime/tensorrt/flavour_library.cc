// An open library of one flavour. Compiled once per flavour, with NODE_TENSORRT_FLAVOUR as its name: see
// flavour.h.
#include <optional>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/build_target.h"
#include "runtime/tensorrt/engine.h"
#include "runtime/tensorrt/flavour.h"
#include "runtime/tensorrt/messages.h"
#include "runtime/tensorrt/model_import.h"
#include "runtime/tensorrt/network_description.h"
#include "runtime/tensorrt/plan_builder.h"
#include "runtime/tensorrt/plugins.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

class FlavourLibrary final : public Library {
 public:
  explicit FlavourLibrary(LibraryFiles files)
      : files_(std::move(files)), plugins_(files_.plugins), importer_(files_, plugins_) {}

  Flavour flavour() const noexcept override { return kFlavour; }
  const Capabilities& capabilities() const noexcept override { return files_.capabilities; }
  const std::string& version() const noexcept override { return files_.version; }
  const std::string& path() const noexcept override { return files_.core.path(); }

  std::unique_ptr<Model> loadEngine(std::span<const uint8_t> plan, const EngineOptions& options,
                                    std::stop_token stop) const override {
    try {
      return NODE_TENSORRT_FLAVOUR::loadEngine(files_, plan, options, stop);
    } catch (const Error& error) {
      // "Cannot deserialize plugin since corresponding IPluginCreator not found in Plugin Registry"
      if (std::string_view(error.what()).find("Plugin Registry") == std::string_view::npos) throw;
      if (!plugins_.registerAll(stop)) throw Error(error.code(), error.what() + plugins_.whyLacking());
    }
    return NODE_TENSORRT_FLAVOUR::loadEngine(files_, plan, options, stop);
  }
  PlanDescription inspectPlan(std::span<const uint8_t> plan, const EngineOptions& options) const override {
    return NODE_TENSORRT_FLAVOUR::inspectPlan(files_, plan, options);
  }

 private:
  void build(const BuildRequest& request, std::stop_token stop, BuildObserver& observer) const override {
    NODE_TENSORRT_FLAVOUR::buildPlan(importer_, request, std::move(stop), observer);
  }
  ParseResult parse(const std::string& model, const std::string& modelPath, std::optional<int> device,
                    std::stop_token stop) const override {
    Messages messages;
    const Logger::Scope scope(messages);
    const UsedDevice used(device);
    ModelImport import = importer_.begin(messages);
    ParseResult result;
    result.errors = importer_.importModel(import, model, modelPath, messages, stop);
    if (result.errors.empty()) result.network = describe(*import.network);
    return result;
  }

  const LibraryFiles files_;
  mutable Plugins plugins_;
  const ModelImporter importer_;
};

}  // namespace

std::shared_ptr<const Library> createLibrary(LibraryFiles files) {
  return std::make_shared<FlavourLibrary>(std::move(files));
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
