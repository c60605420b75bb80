// A compiled model as bytes: a header of fixed size, whose first four bytes are those of a real plan, and a
// body with what was compiled, including the ONNX model.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model.h"
#include "trap.h"

namespace stand_in {

// The range of an input's shape or, for a shape tensor, of its values. In the order of OptProfileSelector:
// min, opt, max.
using Range = std::array<Shape, 3>;
using ProfileRanges = std::map<std::string, Range>;

struct PlanHeader {
  char magic[4];        // "ptrt", TensorRT-RTX: "vtrt"
  uint32_t format;      // version of this structure
  char flavour[8];      // "trt10", "trt11" or "rtx"
  int32_t version[3];   // version that compiled it
  int32_t targets[8];   // compute capabilities (89 for sm_89), then zeros
  uint32_t refittable;  // 0 or 1
  uint64_t planBytes;   // bytes of the whole plan, including zeros at the end
  uint64_t bodyBytes;   // bytes of the body
  uint64_t checksum;    // FNV-1a of the body
};

// Part of `Plan::settings` if the plan describes its layers in detail.
inline constexpr std::string_view kDetailed = ", detailed";

struct Plan {
  Version version;
  std::vector<int> targets;
  bool refittable = false;
  size_t size = 0;  // bytes; raised to what the plan needs
  std::vector<ProfileRanges> profiles;
  std::string name;
  std::string settings;  // what it was compiled with, for tests to read
  std::string model;     // ONNX, including its weights

  std::string write() const;

  // Returns nullopt, and the reason in `problem`, if the bytes aren't a plan of this flavour.
  static std::optional<Plan> read(std::string_view bytes, std::string& problem);
};

// Returns nullopt if the bytes are shorter than a header, or aren't one.
std::optional<PlanHeader> readPlanHeader(std::string_view bytes);

}  // namespace stand_in
