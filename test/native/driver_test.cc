// Tests what is reported about a CUDA driver: the stand-in, one that fails, and none.
#include "runtime/cuda/driver.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "stand_in/cuda/cuda.h"

namespace node_tensorrt::cuda {
namespace {

class StandInDriverTest : public testing::Test {
 protected:
  void TearDown() override {
    unsetenv("STAND_IN_CUDA_DEVICES");
    standInSetFaults(nullptr);
  }

  const DriverFiles files_{NODE_TENSORRT_STAND_IN_CUDA, NODE_TENSORRT_STAND_IN_NVML, "/nonexistent"};
};

TEST_F(StandInDriverTest, DescribesEveryGpu) {
  const Report report = probe(files_);
  EXPECT_EQ(report.error, "");
  EXPECT_EQ(report.driver, "590.10");
  EXPECT_EQ(report.cudaVersion, "13.1");
  ASSERT_EQ(report.gpus.size(), 2u);
  EXPECT_EQ(report.gpus[0].name, "Stand-in GPU A");
  EXPECT_EQ(report.gpus[0].major, 8);
  EXPECT_EQ(report.gpus[0].minor, 9);
  // NVML's number, as nvidia-smi shows it.
  EXPECT_EQ(report.gpus[0].memory, (size_t{24} << 30) + (size_t{512} << 20));
  EXPECT_EQ(report.gpus[0].uuid, "GPU-00102030-4050-6070-8090-a0b0c0d0e0f0");
  EXPECT_EQ(report.gpus[0].pciBusId, "0000:1B:00.0");
  EXPECT_EQ(report.gpus[1].major, 12);
  EXPECT_EQ(report.gpus[1].uuid, "MIG-01112131-4151-6171-8191-a1b1c1d1e1f1");
  EXPECT_EQ(report.library, NODE_TENSORRT_STAND_IN_CUDA);
}

TEST_F(StandInDriverTest, GoesWithoutNvml) {
  DriverFiles files = files_;
  files.nvml = "/nonexistent";
  const Report report = probe(files);
  EXPECT_EQ(report.driver, "");
  EXPECT_EQ(report.gpus.at(0).memory, size_t{24} << 30);
  EXPECT_EQ(report.gpus.at(0).uuid, "GPU-00102030-4050-6070-8090-a0b0c0d0e0f0");
}

TEST_F(StandInDriverTest, PrefersTheKernelModulesVersion) {
  const std::string file = testing::TempDir() + "nvidia-version";
  std::ofstream(file)
      << "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n";
  DriverFiles files = files_;
  files.kernelModule = file;
  EXPECT_EQ(probe(files).driver, "580.65.06");
}

TEST_F(StandInDriverTest, SaysThatThereIsNoGpu) {
  setenv("STAND_IN_CUDA_DEVICES", "none", 1);
  const Report report = probe(files_);
  EXPECT_TRUE(report.gpus.empty());
  EXPECT_NE(report.error, "");
}

TEST_F(StandInDriverTest, NamesTheCallThatFails) {
  standInSetFaults("uninitialized");
  EXPECT_EQ(probe(files_).cudaVersion, "13.1");
  EXPECT_EQ(probe(files_).error,
            "The CUDA driver's cuInit failed with CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803).");
  standInSetFaults("query:2");
  const Report report = probe(files_);
  EXPECT_TRUE(report.gpus.empty());
  EXPECT_NE(report.error.find("cuDeviceTotalMem_v2"), std::string::npos);
}

TEST(NoDriverTest, SaysThatThereIsNone) {
  const Report report = probe({"/nonexistent/libcuda.so", "/nonexistent/libnvml.so", "/nonexistent"});
  EXPECT_TRUE(report.gpus.empty());
  EXPECT_EQ(report.driver, "");
  EXPECT_NE(report.error.find("There is no NVIDIA driver here."), std::string::npos);
}

}  // namespace
}  // namespace node_tensorrt::cuda
