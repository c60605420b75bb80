#include "plan.h"

#include <algorithm>
#include <cstring>

#include "protobuf.h"

namespace stand_in {
namespace {

constexpr bool kIsRtx = std::string_view(STAND_IN_FLAVOUR) == "rtx";
constexpr char kMagic[] = {kIsRtx ? 'v' : 'p', 't', 'r', 't'};
constexpr uint32_t kFormat = 1;

uint64_t checksum(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return hash;
}

// Field numbers. Body: 1 name, 2 model, 3 profiles, 4 settings. Profile: 1 tensor. Tensor: 1 name, 2 to 4
// ranges.
std::string writeShape(const Shape& shape) {
  return {reinterpret_cast<const char*>(shape.data()), shape.size() * sizeof(int64_t)};
}
Shape readShape(const std::string& bytes) {
  Shape shape(bytes.size() / sizeof(int64_t));
  std::memcpy(shape.data(), bytes.data(), shape.size() * sizeof(int64_t));
  return shape;
}

}  // namespace

std::string Plan::write() const {
  Message body;
  body.add(1, name);
  body.add(2, model);
  body.add(4, settings);
  for (const ProfileRanges& profile : profiles) {
    Message message;
    for (const auto& [input, range] : profile) {
      Message tensor;
      tensor.add(1, input);
      for (uint32_t i = 0; i < range.size(); ++i) tensor.add(2 + i, writeShape(range[i]));
      message.add(1, tensor.write());
    }
    body.add(3, message.write());
  }
  const std::string text = body.write();

  PlanHeader header = {};
  std::copy(std::begin(kMagic), std::end(kMagic), header.magic);
  header.format = kFormat;
  std::strncpy(header.flavour, STAND_IN_FLAVOUR, sizeof header.flavour - 1);
  header.version[0] = version.major;
  header.version[1] = version.minor;
  header.version[2] = version.patch;
  std::copy(targets.begin(), targets.end(), header.targets);
  header.refittable = refittable;
  header.planBytes = std::max(size, sizeof header + text.size());
  header.bodyBytes = text.size();
  header.checksum = checksum(text);
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) + text;
}

std::optional<PlanHeader> readPlanHeader(std::string_view bytes) {
  PlanHeader header;
  if (bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  const bool isOurs = std::memcmp(header.magic, kMagic, sizeof kMagic) == 0 && header.format == kFormat &&
                      std::strncmp(header.flavour, STAND_IN_FLAVOUR, sizeof header.flavour) == 0;
  return isOurs ? std::optional(header) : std::nullopt;
}

std::optional<Plan> Plan::read(std::string_view bytes, std::string& problem) {
  const std::optional<PlanHeader> header = readPlanHeader(bytes);
  if (!header) {
    problem =
        "Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)";
    return std::nullopt;
  }
  const std::string_view body = bytes.substr(sizeof *header);
  if (body.size() < header->bodyBytes || bytes.size() < header->planBytes) {
    problem = "Serialization (Serialization assertion mRead + size <= mSize failed.The engine is truncated)";
    return std::nullopt;
  }
  const std::string_view text = body.substr(0, header->bodyBytes);
  if (checksum(text) != header->checksum) {
    problem = "Serialization (Serialization assertion stdCrc == blobCrc failed.CRC does not match)";
    return std::nullopt;
  }
  Plan plan;
  plan.version = {header->version[0], header->version[1], header->version[2]};
  for (const int32_t target : header->targets) {
    if (target != 0) plan.targets.push_back(target);
  }
  plan.refittable = header->refittable != 0;
  plan.size = header->planBytes;
  const Message message(text);
  plan.name = message.text(1);
  plan.model = message.text(2);
  plan.settings = message.text(4);
  for (const Message& profile : message.messages(3)) {
    ProfileRanges ranges;
    for (const Message& tensor : profile.messages(1)) {
      Range& range = ranges[tensor.text(1)];
      for (uint32_t i = 0; i < range.size(); ++i) range[i] = readShape(tensor.text(2 + i));
    }
    plan.profiles.push_back(std::move(ranges));
  }
  return plan;
}

}  // namespace stand_in
