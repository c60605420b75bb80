#include "runtime/tensorrt/parser_errors.h"

#include <string_view>
#include <utility>

#include "core/error.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

constexpr char kNoPlugin[] = "TensorRT has neither an operator nor a plugin of this name.";

// Assertions in the parser contain their text as `expression: text` or as `expression && "text"`.
std::string readableAssertion(std::string text) {
  constexpr std::string_view kPrefix = "Assertion failed: ";
  if (text.find("Failed to convert ONNX date type") != std::string::npos) {
    return "TensorRT has no equivalent of its element type.";
  }
  if (text == "false") return "TensorRT's ONNX parser does not implement this operator.";
  if (text.find("Plugin not found") != std::string::npos ||
      text.find("plugin registry") != std::string::npos || text.starts_with("failed to load ")) {
    return kNoPlugin;
  }
  if (const size_t quote = text.find("&& \""); quote != std::string::npos) {
    const size_t from = quote + 4;
    return text.substr(from, text.find('"', from) - from);
  }
  const size_t start = text.rfind(kPrefix);
  if (start == std::string::npos) return text;
  text.erase(0, start + kPrefix.size());
  const size_t colon = text.find(": ");
  return colon == std::string::npos ? text : text.substr(colon + 2);
}

// `lastNode` is the node that the parser began last, as "name [operator]", or empty.
ImportError importError(const std::string& lastNode, std::string reason) {
  const size_t bracket = lastNode.rfind(" [");
  if (bracket == std::string::npos) return {-1, "", "", std::move(reason)};
  const size_t op = bracket + 2;
  return {-1, lastNode.substr(0, bracket), lastNode.substr(op, lastNode.find(']', op) - op),
          std::move(reason)};
}

ImportError importError(const std::string& lastNode, const nvonnxparser::IParserError& error) {
  const auto orEmpty = [](const char* text) { return text != nullptr ? std::string(text) : std::string(); };
  std::string reason = ended(readableAssertion(readable(orEmpty(error.desc()))));
  if (error.node() >= 0) {
    return {error.node(), orEmpty(error.nodeName()), orEmpty(error.nodeOperator()), std::move(reason)};
  }
  if (orEmpty(error.func()) != "importInput") return importError(lastNode, std::move(reason));
  // Instead of a source file, the parser gives the input's name here.
  return {-1, "", "", "Input " + quoted(orEmpty(error.file())) + ": " + reason};
}

std::string describe(const ImportError& error) {
  std::string text;
  if (error.node >= 0 || !error.name.empty() || !error.op.empty()) {
    text = "Node " + (error.name.empty() ? std::to_string(error.node) : quoted(error.name));
    if (!error.op.empty()) text.append(" (").append(error.op).append(")");
    text += ": ";
  }
  return text + error.reason;
}

}  // namespace

std::string describe(const std::vector<ImportError>& errors) {
  std::vector<std::string> texts;
  for (const ImportError& error : errors) texts.push_back(describe(error));
  return joined(texts);
}

std::vector<ImportError> importErrors(const std::string& model, const nvonnxparser::IParser& parser,
                                      const Messages& messages) {
  std::vector<ImportError> errors;
  bool invalid = false;
  for (int i = 0; i < parser.getNbErrors(); ++i) {
    const nvonnxparser::IParserError& error = *parser.getError(i);
    if (error.code() == nvonnxparser::ErrorCode::kMEM_ALLOC_FAILED) {
      throw Error("ERR_OUT_OF_MEMORY", "There is not enough host memory to parse " + model + '.');
    }
    invalid |= error.code() == nvonnxparser::ErrorCode::kMODEL_DESERIALIZE_FAILED ||
               error.code() == nvonnxparser::ErrorCode::kINVALID_GRAPH;
    errors.push_back(importError(messages.node(), error));
  }
  for (const std::string& message : messages.errors()) {
    // Only the log says why external data couldn't be read.
    if (message.starts_with("WeightsContext.cpp")) {
      errors.push_back(importError("", ended(readable(message))));
    } else if (errors.empty()) {
      errors.push_back(importError(messages.node(), ended(readable(message))));
    }
  }
  if (errors.empty()) errors.push_back(importError(messages.node(), "It gave no reason."));
  if (invalid) {
    throw Error("ERR_MODEL_INVALID", "TensorRT could not read the model " + model + ". " + describe(errors));
  }
  return errors;
}

bool lacksPlugin(const ImportError& error) {
  return error.reason == kNoPlugin;
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
