#include "runtime/tensorrt/build_error.h"

#include "runtime/tensorrt/network_passes.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

// Explains TensorRT's more obscure messages.
std::string explain(const Messages& messages) {
  struct Explanation {
    const char* pattern;
    const char* text;
  };
  constexpr Explanation kExplanations[] = {
      {kNoFusedKernel,
       "An Attention of this type, shape or mask has no fused kernel: convert the model to FP16 or BF16."},
      {"Could not find any implementation for node",
       "No kernel does this part of the model at these shapes and types: raise options.workspace, narrow "
       "options.shapes, or keep its nodes in FP32."},
      {"No Myelin Error exists",
       "TensorRT's graph compiler gave up without a reason: often a type or shape that its kernels lack, or "
       "a profile that is too wide; narrow options.shapes or keep the nodes concerned in FP32."},
      {"_Map_base::at",
       "TensorRT's graph compiler could not relate dynamic dimensions: give inputs that share a dimension "
       "the same dimension name in the model."},
      {"violate shape constraints", "The model does not allow these shapes: give others in options.shapes."},
      {"CHECK(status == CUDA_SUCCESS)", "This combination of options needs a GPU at build time."},
      {"Unable to load library",
       "TensorRT opens this library by its name while it compiles: it belongs beside libnvinfer.so; "
       "elsewhere, name its folder in LD_LIBRARY_PATH before the process starts."},
      {"Error Code 35", "There is no usable NVIDIA driver on this machine."},
      {"ut of memory", "Lower options.workspace or the maximum shapes, or free memory."},
      {"OutOfMemory", "Lower options.workspace or the maximum shapes, or free memory."},
  };
  for (const Explanation& explanation : kExplanations) {
    if (messages.hasError({explanation.pattern})) return std::string(" ") + explanation.text;
  }
  return "";
}

}  // namespace

Error buildFailed(const std::string& what, const Messages& messages) {
  return Error("ERR_BUILD_FAILED", couldNot(what, messages).append(explain(messages)));
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
