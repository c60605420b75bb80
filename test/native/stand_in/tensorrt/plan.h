// A compiled model, as bytes: a header of fixed size, whose first four bytes are those of a real plan, then
// what was compiled, the ONNX model included.
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

// What an input may be between; for a shape tensor, its values. In the order of OptProfileSelector: min, opt,
// max.
using Range = std::array<Shape, 3>;
using ProfileRanges = std::map<std::string, Range>;

struct PlanHeader {
  char magic[4];        // "ptrt", TensorRT-RTX: "vtrt"
  uint32_t format;      // of this structure
  char flavour[8];      // "trt10", "trt11" or "rtx"
  int32_t version[3];   // that compiled it
  int32_t targets[8];   // compute capabilities (89 for sm_89), then zeros
  uint32_t refittable;  // 0 or 1
  uint64_t planBytes;   // of all, with the zeros that may come last
  uint64_t bodyBytes;   // that follow
  uint64_t checksum;    // of what follows: FNV-1a
};

// In `Plan::settings`: the plan says what its layers work on.
inline constexpr std::string_view kDetailed = ", detailed";

struct Plan {
  Version version;
  std::vector<int> targets;
  bool refittable = false;
  size_t size = 0;  // in bytes; a smaller one than it needs becomes that
  std::vector<ProfileRanges> profiles;
  std::string name;
  std::string settings;  // that it was compiled with, for tests to read
  std::string model;     // ONNX, its weights within it

  std::string write() const;

  // nullopt, with the reason in `problem`, for what is not a plan of this flavour.
  static std::optional<Plan> read(std::string_view bytes, std::string& problem);
};

// nullopt for less than a header, or that of something else.
std::optional<PlanHeader> readPlanHeader(std::string_view bytes);

}  // namespace stand_in
