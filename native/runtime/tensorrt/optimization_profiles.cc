#include "runtime/tensorrt/optimization_profiles.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "runtime/tensorrt/network_description.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

void requireShape(const std::string& option, const Shape& shape, const Shape& network,
                  const nvinfer1::ITensor& input) {
  if (shape.size() != network.size()) {
    throw Error("ERR_INVALID_ARG_VALUE", option + " is " + toString(shape) + ", but the input " +
                                             describeInput(input) + " has " + std::to_string(network.size()) +
                                             " dimensions.");
  }
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0 || (network[i] >= 0 && shape[i] != network[i])) {
      throw Error(
          "ERR_INVALID_ARG_VALUE",
          option + " is " + toString(shape) + ", which does not fit the input " + describeInput(input) + '.');
    }
  }
}

void addProfile(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                const nvinfer1::INetworkDefinition& network, const Profile& profile,
                const std::string& option) {
  nvinfer1::IOptimizationProfile* target = builder.createOptimizationProfile();
  if (target == nullptr)
    throw Error("ERR_BUILD_FAILED", "TensorRT could not create an optimization profile.");
  std::map<std::string_view, const ShapeRange*> ranges;
  for (const ShapeRange& range : profile) ranges.emplace(range.input, &range);
  std::string lacking;

  for (int32_t i = 0; i < network.getNbInputs(); ++i) {
    const nvinfer1::ITensor& input = *network.getInput(i);
    const char* name = input.getName();
    const Shape shape = toShape(input.getDimensions());
    const bool dynamic = std::find(shape.begin(), shape.end(), -1) != shape.end();
    const bool isShape = input.isShapeTensor();
    const auto entry = ranges.find(name);
    if (entry == ranges.end()) {
      if (dynamic || isShape) {
        lacking += (lacking.empty() ? "" : ", ") + describeInput(input) + (isShape ? " (its values)" : "");
      }
      continue;
    }
    const ShapeRange& range = *entry->second;
    ranges.erase(entry);
    const std::string path = option + '.' + name;
    // A shape tensor's range limits its values, one per element.
    const size_t elements = shape.empty() ? 1 : static_cast<size_t>(shape[0]);
    if (isShape && (shape.size() > 1 || dynamic)) {
      throw Error("ERR_MODEL_UNSUPPORTED", "The input " + describeInput(input) +
                                               " holds shapes, which only a static vector or scalar can do.");
    }
    using nvinfer1::OptProfileSelector;
    const std::array<std::pair<OptProfileSelector, const Shape*>, 3> selected = {
        {{OptProfileSelector::kMIN, &range.min},
         {OptProfileSelector::kOPT, &range.opt},
         {OptProfileSelector::kMAX, &range.max}}};
    constexpr std::array kNames = {".min", ".opt", ".max"};
    for (size_t s = 0; s < selected.size(); ++s) {
      const Shape& values = *selected[s].second;
      if (isShape && values.size() != elements) {
        throw Error("ERR_INVALID_ARG_VALUE", path + kNames[s] + " has " + std::to_string(values.size()) +
                                                 " values, but the input " + describeInput(input) + " has " +
                                                 std::to_string(elements) + " elements.");
      }
      if (!isShape) requireShape(path + kNames[s], values, shape, input);
    }
    for (size_t d = 0; d < range.min.size(); ++d) {
      if (range.min[d] > range.opt[d] || range.opt[d] > range.max[d]) {
        throw Error("ERR_INVALID_ARG_VALUE",
                    path + " is not in the order min, opt, max: " + toString(range.min) + ", " +
                        toString(range.opt) + ", " + toString(range.max) + '.');
      }
    }
    for (const auto& [selector, values] : selected) {
      const bool accepted = isShape ? target->setShapeValuesV2(name, selector, values->data(),
                                                               static_cast<int32_t>(values->size()))
                                    : target->setDimensions(name, selector, toDims(*values));
      if (!accepted) {
        throw Error("ERR_INVALID_ARG_VALUE",
                    path + " was refused by TensorRT for the input " + describeInput(input) + '.');
      }
    }
  }
  if (!lacking.empty()) {
    throw Error(
        "ERR_INVALID_ARG_VALUE",
        option + " lacks dynamic inputs: give the minimum, optimum and maximum shape of " + lacking + '.');
  }
  if (!ranges.empty()) {
    throw Error("ERR_INVALID_ARG_VALUE",
                option + " names " + quoted(ranges.begin()->first) + ", which is not an input of the model.");
  }
  if (config.addOptimizationProfile(target) < 0) {
    throw Error("ERR_INVALID_ARG_VALUE", option + " was refused by TensorRT.");
  }
}

}  // namespace

void setProfiles(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                 const nvinfer1::INetworkDefinition& network, const std::vector<Profile>& profiles) {
  // Without dynamic inputs TensorRT needs no profile. With one, setting an empty profile fails with an error
  // that names the input.
  const size_t count = std::max<size_t>(profiles.size(), 1);
  for (size_t i = 0; i < count; ++i) {
    const std::string option =
        profiles.size() > 1 ? "options.shapes[" + std::to_string(i) + ']' : std::string("options.shapes");
    addProfile(builder, config, network, i < profiles.size() ? profiles[i] : Profile{}, option);
  }
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
