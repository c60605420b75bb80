#include "runtime/tensorrt/messages.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

// Removes a leading "ModelImporter.cpp:1071: " from `line`, and an " In validate at /_src/…/network.cpp:3424"
// within it.
std::string withoutSource(std::string line) {
  constexpr std::string_view kSuffix = ".cpp:";
  const size_t colon = line.find(": ");
  const size_t file = line.find(kSuffix);
  if (file != std::string::npos && colon != std::string::npos && file < colon &&
      line.find_first_not_of("0123456789", file + kSuffix.size()) == colon) {
    line.erase(0, colon + 2);
  }
  const size_t place = line.find(" at /_src/");
  const size_t in = line.rfind(" In ", place);
  if (place != std::string::npos && in != std::string::npos) {
    line.erase(in, line.find_first_of(" )", place + 4) - in);
  }
  return line;
}

}  // namespace

std::string readable(std::string_view text) {
  std::string lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? "" : text.substr(end + 1);
    // Every error on a machine without a GPU contains this.
    if (line.empty() || line.find("catchCudaError") != std::string_view::npos) continue;
    if (!lines.empty()) lines += ' ';
    lines += withoutSource(std::string(line));
  }
  return lines;
}

std::string ended(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  if (!text.empty() && text.back() != '.' && text.back() != '!') text += '.';
  return text;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  const size_t listed = std::min<size_t>(texts.size(), kListed);
  for (size_t i = 0; i < listed; ++i) all.append(i > 0 ? " " : "").append(ended(texts[i]));
  if (texts.size() > listed) all += " (" + std::to_string(texts.size() - listed) + " more.)";
  return all;
}

std::string couldNot(const std::string& what, const Messages& messages) {
  std::vector<std::string> reasons;
  for (const std::string& error : messages.errors()) reasons.push_back(readable(error));
  std::erase(reasons, "");
  return std::string("TensorRT could not ")
      .append(what)
      .append(". ")
      .append(reasons.empty() ? "It gave no reason." : joined(reasons));
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
