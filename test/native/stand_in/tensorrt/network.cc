#include "network.h"

#include <algorithm>

namespace stand_in {

bool toDataType(int type, DataType& found) noexcept {
  switch (type) {
    case 1:
      return found = DataType::kFLOAT, true;
    case 2:
      return found = DataType::kUINT8, true;
    case 3:
      return found = DataType::kINT8, true;
    case 6:
      return found = DataType::kINT32, true;
    case 7:
      return found = DataType::kINT64, true;
    case 9:
      return found = DataType::kBOOL, true;
    case 10:
      return found = DataType::kHALF, true;
    case 16:
      return found = DataType::kBF16, true;
    default:
      return false;
  }
}

Dims toDims(const Shape& shape) noexcept {
  Dims dims = {};
  dims.nbDims = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

Shape toShape(const Dims& dims) {
  return dims.nbDims > 0 ? Shape(dims.d, dims.d + dims.nbDims) : Shape{};
}

DataType Tensor::getType() const noexcept {
  DataType type = DataType::kFLOAT;
  toDataType(info.type, type);
  return type;
}

char const* Tensor::getDimensionName(int32_t index) const noexcept {
  const std::string& symbol = info.symbols.at(static_cast<size_t>(index));
  return symbol.empty() ? nullptr : symbol.c_str();
}

bool Network::markWeightsRefittable(char const* weights) noexcept {
  if (!model) return false;
  const std::vector<std::string>& names = model->initializers();
  if (std::find(names.begin(), names.end(), weights) == names.end()) return false;
  refittable.insert(weights);
  return true;
}

Dims Profile::getDimensions(char const* input, OptProfileSelector select) const noexcept {
  const auto entry = ranges.find(input);
  if (entry == ranges.end()) return Dims{-1, {}};
  return toDims(entry->second[static_cast<size_t>(select)]);
}

int32_t Config::addOptimizationProfile(IOptimizationProfile const* profile) noexcept {
  profiles.push_back(static_cast<const Profile*>(profile)->ranges);
  return getNbOptimizationProfiles() - 1;
}

namespace {
constexpr std::string_view kTimingCacheHeader = "stand-in timing cache\n";
}

IHostMemory* TimingCache::serialize() const noexcept {
  std::string text(kTimingCacheHeader);
  for (const std::string& kernel : kernels) text.append(kernel).append("\n");
  return new Object<HostMemory, apiv::VHostMemory>(std::move(text));
}

TimingCache* TimingCache::read(std::string_view bytes) {
  std::set<std::string> kernels;
  if (!bytes.empty()) {
    if (!bytes.starts_with(kTimingCacheHeader)) return nullptr;
    bytes.remove_prefix(kTimingCacheHeader.size());
    while (!bytes.empty()) {
      const size_t end = bytes.find('\n');
      if (end == std::string_view::npos) return nullptr;
      kernels.emplace(bytes.substr(0, end));
      bytes.remove_prefix(end + 1);
    }
  }
  return new Object<TimingCache, apiv::VTimingCache>(std::move(kernels));
}

bool TimingCache::combine(ITimingCache const& other, bool) noexcept {
  const std::set<std::string>& added = static_cast<const TimingCache&>(other).kernels;
  kernels.insert(added.begin(), added.end());
  return true;
}

}  // namespace stand_in
