// Tests the stand-in TensorRT itself through TensorRT's public headers, once per flavour: it computes what
// ONNX Runtime does, refuses what the real one refuses, and traps slots that the played version lacks.
#include <NvOnnxParser.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "core/host_memory.h"
#include "runtime/onnxruntime/onnxruntime.h"
#include "stand_in/cuda/cuda.h"

struct CUctx_st;
struct CUgraph_st;
struct CUgraphExec_st;
using CUdeviceptr = unsigned long long;
extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(CUctx_st**, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuCtxSetCurrent(CUctx_st*);
int cuMemAlloc_v2(CUdeviceptr*, size_t);
int cuMemFree_v2(CUdeviceptr);
int cuMemcpyHtoDAsync_v2(CUdeviceptr, const void*, size_t, CUstream_st*);
int cuMemcpyDtoHAsync_v2(void*, CUdeviceptr, size_t, CUstream_st*);
int cuMemsetD8Async(CUdeviceptr, unsigned char, size_t, CUstream_st*);
int cuStreamCreate(CUstream_st**, unsigned);
int cuStreamDestroy_v2(CUstream_st*);
int cuStreamSynchronize(CUstream_st*);
int cuStreamQuery(CUstream_st*);
int cuStreamBeginCapture_v2(CUstream_st*, int);
int cuStreamEndCapture(CUstream_st*, CUgraph_st**);
int cuGraphInstantiateWithFlags(CUgraphExec_st**, CUgraph_st*, unsigned long long);
int cuGraphLaunch(CUgraphExec_st*, CUstream_st*);
int cuGraphExecDestroy(CUgraphExec_st*);
int cuGraphDestroy(CUgraph_st*);
const char* standInTensorRT() noexcept;
}

namespace {

using namespace nvinfer1;

struct Log : ILogger {
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kERROR) errors.append(text).append("\n");
  }
  std::string errors;
};

std::string fixture(const std::string& name) {
  return std::string(NODE_TENSORRT_FIXTURES) + "/session/" + name;
}

struct Built {
  std::unique_ptr<IHostMemory> plan;
  std::string errors;  // the parser's
};

struct Options {
  bool profile = true;
  int target = 89;  // TensorRT-RTX only
  BuilderFlag flag = BuilderFlag::kTF32;
};

Built build(Log& log, const std::string& model, const Options& options = {}) {
  Built built;
#if NV_TENSORRT_MAJOR == 11
  setInternalLibraryPath(NODE_TENSORRT_STAND_IN "/trt11");
#endif
  const std::unique_ptr<IBuilder> builder(createInferBuilder(log));
  if (!builder) return built;
  NetworkDefinitionCreationFlags flags = 0;
#if NV_TENSORRT_MAJOR == 10
  flags = 1u << static_cast<int>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#endif
  const std::unique_ptr<INetworkDefinition> network(builder->createNetworkV2(flags));
  const std::unique_ptr<IBuilderConfig> config(builder->createBuilderConfig());
  const std::unique_ptr<nvonnxparser::IParser> parser(nvonnxparser::createParser(*network, log));
  if (!parser->parseFromFile(model.c_str(), 0)) {
    for (int i = 0; i < parser->getNbErrors(); ++i)
      built.errors.append(parser->getError(i)->desc()).append("\n");
    return built;
  }
  config->setFlag(options.flag);
#if NV_TENSORRT_MAJOR == 1
  config->setNbComputeCapabilities(1);
  config->setComputeCapability(static_cast<ComputeCapability>(options.target), 0);
#endif
  if (options.profile) {
    IOptimizationProfile* profile = builder->createOptimizationProfile();
    const auto set = [&](OptProfileSelector selector, int64_t rows) {
      profile->setDimensions("x", selector, Dims2{rows, 4});
    };
    set(OptProfileSelector::kMIN, 1);
    set(OptProfileSelector::kOPT, 2);
    set(OptProfileSelector::kMAX, 8);
    config->addOptimizationProfile(profile);
  }
  built.plan.reset(builder->buildSerializedNetwork(*network, *config));
  return built;
}

// Returns what ONNX Runtime computes: all outputs, one after another.
std::vector<float> oracle(const std::string& model, const std::vector<float>& x, int64_t rows) {
  using namespace node_tensorrt;
  const auto loaded = ort::openRuntime(std::getenv("NODE_TENSORRT_ONNXRUNTIME"))->loadModel(model, {}, {});
  Tensor input;
  input.type = node_tensorrt::DataType::kFloat32;
  input.shape = {rows, 4};
  input.byteLength = x.size() * sizeof(float);
  input.data = allocateHostMemory(input.byteLength);
  std::memcpy(input.data.get(), x.data(), input.byteLength);
  std::vector<Tensor> outputs(loaded->outputs().size());
  std::vector<size_t> indices;
  for (size_t i = 0; i < outputs.size(); ++i) indices.push_back(i);
  loaded->createContext()->execute({&input, 1}, indices, outputs);
  std::vector<float> all;
  for (const Tensor& output : outputs) {
    const float* data = static_cast<const float*>(output.data.get());
    all.insert(all.end(), data, data + output.byteLength / 4);
  }
  return all;
}

class StandInTensorRTTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("NODE_TENSORRT_ONNXRUNTIME") == nullptr)
      GTEST_SKIP() << "NODE_TENSORRT_ONNXRUNTIME names no library";
    ASSERT_EQ(cuInit(0), 0);
    ASSERT_EQ(cuDevicePrimaryCtxRetain(&cuda_, 0), 0);
    ASSERT_EQ(cuCtxSetCurrent(cuda_), 0);
    ASSERT_EQ(cuStreamCreate(&stream_, 1), 0);
  }
  void TearDown() override {
    standInSetFaults(nullptr);
    unsetenv("STAND_IN_TENSORRT_VERSION");
    if (stream_ == nullptr) return;
    context_.reset();
    engine_.reset();
    for (const CUdeviceptr address : memory_) EXPECT_EQ(cuMemFree_v2(address), 0);
    EXPECT_EQ(cuStreamDestroy_v2(stream_), 0);
    cuCtxSetCurrent(nullptr);
    EXPECT_EQ(cuDevicePrimaryCtxRelease_v2(0), 0);
  }

  bool load(const void* plan, size_t bytes) {
    if (!runtime_) runtime_.reset(createInferRuntime(log_));
    engine_.reset(runtime_->deserializeCudaEngine(plan, bytes));
    return engine_ != nullptr;
  }
  void loadLinear() {
    const Built built = build(log_, fixture("linear.onnx"));
    ASSERT_NE(built.plan, nullptr) << log_.errors << built.errors;
    ASSERT_TRUE(load(built.plan->data(), built.plan->size())) << log_.errors;
    context_.reset(engine_->createExecutionContext(ExecutionContextAllocationStrategy::kSTATIC));
    ASSERT_NE(context_, nullptr) << log_.errors;
  }

  CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_EQ(cuMemAlloc_v2(&address, bytes), 0);
    memory_.push_back(address);
    return address;
  }

  // Binds memory for `rows` rows. Returns the addresses and sizes of the outputs, in order.
  std::vector<std::pair<CUdeviceptr, size_t>> bind(const std::vector<float>& x, int64_t rows) {
    EXPECT_TRUE(context_->setInputShape("x", Dims2{rows, 4}));
    const CUdeviceptr input = allocate(x.size() * 4);
    EXPECT_EQ(cuMemcpyHtoDAsync_v2(input, x.data(), x.size() * 4, stream_), 0);
    EXPECT_TRUE(context_->setTensorAddress("x", reinterpret_cast<void*>(input)));
    std::vector<std::pair<CUdeviceptr, size_t>> outputs;
    for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
      const char* name = engine_->getIOTensorName(i);
      if (engine_->getTensorIOMode(name) != TensorIOMode::kOUTPUT) continue;
      const Dims dims = context_->getTensorShape(name);
      size_t elements = 1;
      for (int32_t d = 0; d < dims.nbDims; ++d) elements *= static_cast<size_t>(dims.d[d]);
      outputs.emplace_back(allocate(elements * 4), elements);
      EXPECT_TRUE(context_->setTensorAddress(name, reinterpret_cast<void*>(outputs.back().first)));
    }
    return outputs;
  }
  std::vector<float> read(const std::vector<std::pair<CUdeviceptr, size_t>>& outputs) {
    std::vector<float> all;
    for (const auto& [address, elements] : outputs) {
      std::vector<float> values(elements);
      EXPECT_EQ(cuMemcpyDtoHAsync_v2(values.data(), address, elements * 4, stream_), 0);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  Log log_;
  CUctx_st* cuda_ = nullptr;
  CUstream_st* stream_ = nullptr;
  std::vector<CUdeviceptr> memory_;
  std::unique_ptr<IRuntime> runtime_;
  std::unique_ptr<ICudaEngine> engine_;
  std::unique_ptr<IExecutionContext> context_;
};

const std::vector<float> kInput = {1, 2, 3, 4, -1, 0.5, 0, 8, 0, 0, 0, 1};

TEST_F(StandInTensorRTTest, SaysThatItIsOne) {
  EXPECT_STREQ(standInTensorRT(), STAND_IN_FLAVOUR);
  EXPECT_EQ(getInferLibBuildVersion(), 0);
  EXPECT_EQ(getInferLibMajorVersion(), NV_TENSORRT_MAJOR);
  EXPECT_EQ(getInferLibMinorVersion(), NV_TENSORRT_MINOR);
}

TEST_F(StandInTensorRTTest, ComputesWhatOnnxRuntimeDoesWithoutWaiting) {
  loadLinear();
  const auto outputs = bind(kInput, 3);
  standInSetFaults("slow:20");
  ASSERT_TRUE(context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream_))) << log_.errors;
  EXPECT_EQ(cuStreamQuery(stream_), 600);
  EXPECT_EQ(read(outputs), oracle(fixture("linear.onnx"), kInput, 3));
}

TEST_F(StandInTensorRTTest, AGraphReplaysARun) {
  loadLinear();
  const auto outputs = bind(kInput, 3);
  ASSERT_EQ(cuStreamSynchronize(stream_), 0);
  ASSERT_EQ(cuStreamBeginCapture_v2(stream_, 1), 0);
  ASSERT_TRUE(context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream_))) << log_.errors;
  CUgraph_st* graph = nullptr;
  CUgraphExec_st* executable = nullptr;
  ASSERT_EQ(cuStreamEndCapture(stream_, &graph), 0);
  ASSERT_EQ(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
  EXPECT_EQ(cuGraphDestroy(graph), 0);
  for (const auto& [address, elements] : outputs) cuMemsetD8Async(address, 0, elements * 4, stream_);
  EXPECT_EQ(cuGraphLaunch(executable, stream_), 0);
  EXPECT_EQ(read(outputs), oracle(fixture("linear.onnx"), kInput, 3));
  EXPECT_EQ(cuGraphExecDestroy(executable), 0);
}

TEST_F(StandInTensorRTTest, MemoryOfTheCallersHasToSuffice) {
  loadLinear();
  context_.reset(engine_->createExecutionContext(ExecutionContextAllocationStrategy::kUSER_MANAGED));
  const auto outputs = bind(kInput, 3);
  const auto stream = reinterpret_cast<cudaStream_t>(stream_);
  EXPECT_FALSE(context_->enqueueV3(stream));
  const size_t bytes = context_->updateDeviceMemorySizeForShapes();
  EXPECT_LE(bytes, static_cast<size_t>(engine_->getDeviceMemorySizeV2()));
  void* scratch = reinterpret_cast<void*>(allocate(bytes));
  context_->setDeviceMemoryV2(scratch, static_cast<int64_t>(bytes) - 1);
  EXPECT_FALSE(context_->enqueueV3(stream));
  context_->setDeviceMemoryV2(scratch, static_cast<int64_t>(bytes));
  EXPECT_TRUE(context_->enqueueV3(stream)) << log_.errors;
  EXPECT_EQ(read(outputs), oracle(fixture("linear.onnx"), kInput, 3));
}

TEST_F(StandInTensorRTTest, RefusesShapesOutsideOfTheProfile) {
  loadLinear();
  EXPECT_FALSE(context_->setInputShape("x", Dims2{9, 4}));
  EXPECT_NE(log_.errors.find("Valid range for profile 0: [1,4]..[8,4]"), std::string::npos);
  EXPECT_FALSE(context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream_)));
  const char* missing = nullptr;
  EXPECT_EQ(context_->inferShapes(1, &missing), 1);
  EXPECT_STREQ(missing, "x");
  EXPECT_EQ(engine_->getProfileShape("x", 0, OptProfileSelector::kMAX).d[0], 8);
}

TEST_F(StandInTensorRTTest, RefusesWhatItCannotBuild) {
  EXPECT_EQ(build(log_, fixture("linear.onnx"), {.profile = false}).plan, nullptr);
  EXPECT_NE(log_.errors.find("no optimization profile has been defined"), std::string::npos);
  EXPECT_NE(build(log_, fixture("external.bin")).errors, "");
  EXPECT_NE(build(log_, fixture("sequence.onnx")).errors.find("Failed to convert ONNX date type"),
            std::string::npos);
  setenv("STAND_IN_UNSUPPORTED_OPERATORS", "MatMul", 1);
  EXPECT_NE(build(log_, fixture("linear.onnx")).errors.find("Plugin not found"), std::string::npos);
  unsetenv("STAND_IN_UNSUPPORTED_OPERATORS");
  standInSetFaults("build");
  EXPECT_EQ(build(log_, fixture("linear.onnx")).plan, nullptr);
  EXPECT_NE(log_.errors.find("Could not find any implementation for node"), std::string::npos);
  standInSetFaults("parse");
  EXPECT_NE(build(log_, fixture("linear.onnx")).errors.find("Memory allocation failed"), std::string::npos);
}

TEST_F(StandInTensorRTTest, RefusesPlansThatAreNotForIt) {
  const Built built = build(log_, fixture("linear.onnx"));
  ASSERT_NE(built.plan, nullptr) << log_.errors;
  std::string plan(static_cast<const char*>(built.plan->data()), built.plan->size());
  EXPECT_EQ(plan.substr(0, 4), NV_TENSORRT_MAJOR == 1 ? "vtrt" : "ptrt");
  EXPECT_TRUE(load(plan.data(), plan.size()));
  EXPECT_FALSE(load(plan.data(), plan.size() - 1));
  EXPECT_FALSE(load(plan.data(), 20));
  plan[plan.size() / 2] ^= 1;
  EXPECT_FALSE(load(plan.data(), plan.size()));
  plan[plan.size() / 2] ^= 1;
  standInSetFaults("truncated");
  EXPECT_FALSE(load(plan.data(), plan.size()));
  standInSetFaults("allocation");
  EXPECT_FALSE(load(plan.data(), plan.size()));
  EXPECT_NE(log_.errors.find("out of memory"), std::string::npos);
  standInSetFaults(nullptr);

  const std::string older =
      std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR - 1) + ".0";
  setenv("STAND_IN_TENSORRT_VERSION", older.c_str(), 1);
  EXPECT_FALSE(load(plan.data(), plan.size()));
  EXPECT_NE(log_.errors.find("not compatible with this version of TensorRT"), std::string::npos);
#if NV_TENSORRT_MAJOR == 1
  uint64_t diagnostics = 0;
  EXPECT_EQ(runtime_->getEngineValidity(plan.data(), runtime_->getEngineHeaderSize(), &diagnostics),
            EngineValidity::kINVALID);
  EXPECT_EQ(diagnostics, static_cast<uint64_t>(EngineInvalidityDiagnostics::kVERSION_MISMATCH));
#endif
  unsetenv("STAND_IN_TENSORRT_VERSION");

  // The second GPU is of another kind.
  CUctx_st* second = nullptr;
  ASSERT_EQ(cuDevicePrimaryCtxRetain(&second, 1), 0);
  cuCtxSetCurrent(second);
  EXPECT_FALSE(load(plan.data(), plan.size()));
  EXPECT_NE(log_.errors.find("generated on an incompatible device"), std::string::npos);
  cuCtxSetCurrent(cuda_);
  EXPECT_EQ(cuDevicePrimaryCtxRelease_v2(1), 0);
}

TEST_F(StandInTensorRTTest, FailsWhenItIsToldTo) {
  loadLinear();
  const auto outputs = bind(kInput, 3);
  const auto stream = reinterpret_cast<cudaStream_t>(stream_);
  standInSetFaults("enqueue:2");
  EXPECT_TRUE(context_->enqueueV3(stream));
  EXPECT_FALSE(context_->enqueueV3(stream));
  EXPECT_TRUE(context_->enqueueV3(stream));
  standInSetFaults("context");
  EXPECT_EQ(engine_->createExecutionContext(ExecutionContextAllocationStrategy::kSTATIC), nullptr);
  standInSetFaults("allocation");
  EXPECT_EQ(engine_->createExecutionContext(ExecutionContextAllocationStrategy::kSTATIC), nullptr);
}

#if NV_TENSORRT_MAJOR == 1
TEST_F(StandInTensorRTTest, ARuntimeCacheKeepsWhatWasCompiled) {
  loadLinear();
  const std::unique_ptr<IRuntimeConfig> config(engine_->createRuntimeConfig());
  const std::unique_ptr<IRuntimeCache> cache(config->createRuntimeCache());
  EXPECT_FALSE(cache->deserialize("nonsense", 8));
  ASSERT_TRUE(config->setRuntimeCache(*cache));
  context_.reset(engine_->createExecutionContext(config.get()));
  const size_t empty = std::unique_ptr<IHostMemory>(cache->serialize())->size();
  bind(kInput, 3);
  ASSERT_TRUE(context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream_))) << log_.errors;
  const std::unique_ptr<IHostMemory> bytes(cache->serialize());
  EXPECT_GT(bytes->size(), empty);
  EXPECT_TRUE(cache->deserialize(bytes->data(), bytes->size()));
  cuStreamSynchronize(stream_);
}
#endif

using StandInTensorRTDeathTest = StandInTensorRTTest;

TEST_F(StandInTensorRTDeathTest, TrapsSlotsThatThePlayedVersionLacks) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
#if NV_TENSORRT_MAJOR == 10
  constexpr char kOld[] = "10.14.0";
  const auto call = [this] { return engine_->getAliasedInputTensor("y") == nullptr; };
  constexpr char kMessage[] = "VCudaEngine::getAliasedInputTensor was called, which came with 10.15";
#elif NV_TENSORRT_MAJOR == 11
  constexpr char kOld[] = "11.0.0";
  const auto call = [this] {
    const std::unique_ptr<IBuilder> builder(createInferBuilder(log_));
    return std::unique_ptr<IBuilderConfig>(builder->createBuilderConfig())->setBuildRoute("");
  };
  constexpr char kMessage[] = "VBuilderConfig::setBuildRoute was called, which came with 11.1";
#else
  constexpr char kOld[] = "1.5.0";
  const auto call = [this] { return engine_->areWeightsLoaded(); };
  constexpr char kMessage[] = "VCudaEngine::areWeightsLoaded was called, which came with 1.6";
#endif
  loadLinear();
  EXPECT_DEATH(
      {
        setenv("STAND_IN_TENSORRT_VERSION", kOld, 1);
        call();
      },
      kMessage);
  EXPECT_DEATH(engine_->setWeightStreamingBudgetV2(0), "setWeightStreamingBudgetV2 .*does not implement");
}

TEST_F(StandInTensorRTDeathTest, MisuseAborts) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  loadLinear();
  EXPECT_DEATH(engine_.reset(), "an engine was destroyed before its execution contexts");
  EXPECT_DEATH(runtime_.reset(), "a runtime was destroyed before its engines");
  EXPECT_DEATH(
      {
        bind(kInput, 3);
        void* host = std::aligned_alloc(256, 256);
        context_->setTensorAddress("x", host);
        context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream_));
      },
      "the input x is not in device memory");
}

}  // namespace
