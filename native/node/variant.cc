#include "node/variant.h"

#include <sstream>
#include <string>

namespace node_tensorrt {

Napi::Object variant(Napi::Env env) {
  Napi::Array flavours = Napi::Array::New(env);
  std::istringstream list(NODE_TENSORRT_FLAVOURS);  // set in CMakeLists.txt, e.g. trt10,rtx
  uint32_t count = 0;
  for (std::string flavour; std::getline(list, flavour, ',');) {
    flavours[count++] = Napi::String::New(env, flavour);
  }
  Napi::Object result = Napi::Object::New(env);
  result["cuda"] = Napi::Number::New(env, NODE_TENSORRT_CUDA);
  result["flavours"] = flavours;
  return result;
}

}  // namespace node_tensorrt
