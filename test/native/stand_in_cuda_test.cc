// Tests the stand-in CUDA driver itself: it computes in order and asynchronously, counts its memory, fails
// when told to, and aborts on what a real driver leaves undefined.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "stand_in/cuda/cuda.h"

using CUdeviceptr = unsigned long long;
struct CUctx_st;
struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;

extern "C" {
int cuInit(unsigned);
int cuDeviceGetCount(int*);
int cuDevicePrimaryCtxRetain(CUctx_st**, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuCtxSetCurrent(CUctx_st*);
int cuMemAlloc_v2(CUdeviceptr*, size_t);
int cuMemFree_v2(CUdeviceptr);
int cuMemAllocAsync(CUdeviceptr*, size_t, CUstream_st*);
int cuMemFreeAsync(CUdeviceptr, CUstream_st*);
int cuMemHostAlloc(void**, size_t, unsigned);
int cuMemFreeHost(void*);
int cuMemGetInfo_v2(size_t*, size_t*);
int cuMemcpyHtoDAsync_v2(CUdeviceptr, const void*, size_t, CUstream_st*);
int cuMemcpyDtoHAsync_v2(void*, CUdeviceptr, size_t, CUstream_st*);
int cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, size_t, CUstream_st*);
int cuMemsetD8Async(CUdeviceptr, unsigned char, size_t, CUstream_st*);
int cuStreamCreate(CUstream_st**, unsigned);
int cuStreamDestroy_v2(CUstream_st*);
int cuStreamSynchronize(CUstream_st*);
int cuStreamQuery(CUstream_st*);
int cuStreamWaitEvent(CUstream_st*, CUevent_st*, unsigned);
int cuStreamBeginCapture_v2(CUstream_st*, int);
int cuStreamEndCapture(CUstream_st*, CUgraph_st**);
int cuStreamIsCapturing(CUstream_st*, int*);
int cuLaunchHostFunc(CUstream_st*, void (*)(void*), void*);
int cuEventCreate(CUevent_st**, unsigned);
int cuEventDestroy_v2(CUevent_st*);
int cuEventRecord(CUevent_st*, CUstream_st*);
int cuEventSynchronize(CUevent_st*);
int cuEventQuery(CUevent_st*);
int cuEventElapsedTime(float*, CUevent_st*, CUevent_st*);
int cuGraphInstantiateWithFlags(CUgraphExec_st**, CUgraph_st*, unsigned long long);
int cuGraphLaunch(CUgraphExec_st*, CUstream_st*);
int cuGraphExecDestroy(CUgraphExec_st*);
int cuGraphDestroy(CUgraph_st*);
int cuGetProcAddress_v2(const char*, void**, int, uint64_t, int*);
}

namespace {

constexpr int kInvalidHandle = 400;
constexpr int kNotReady = 600;

class StandInCudaTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(cuInit(0), 0);
    ASSERT_EQ(cuDevicePrimaryCtxRetain(&context_, 0), 0);
    ASSERT_EQ(cuCtxSetCurrent(context_), 0);
    ASSERT_EQ(cuStreamCreate(&stream_, 1), 0);
  }
  void TearDown() override {
    standInSetFaults(nullptr);
    EXPECT_EQ(cuStreamDestroy_v2(stream_), 0);
    EXPECT_EQ(cuCtxSetCurrent(nullptr), 0);
    EXPECT_EQ(cuDevicePrimaryCtxRelease_v2(0), 0);
  }

  CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_EQ(cuMemAlloc_v2(&address, bytes), 0);
    return address;
  }
  int32_t read(CUdeviceptr address) {
    int32_t value = 0;
    EXPECT_EQ(cuMemcpyDtoHAsync_v2(&value, address, sizeof value, stream_), 0);
    return value;
  }
  void add(CUdeviceptr address, int32_t amount, CUstream_st* stream) {
    struct Addition {
      int32_t* value;
      int32_t amount;
    };
    const auto run = [](void* data) {
      const Addition* addition = static_cast<Addition*>(data);
      *addition->value += addition->amount;
      return 0;
    };
    const auto destroy = [](void* data) { delete static_cast<Addition*>(data); };
    EXPECT_EQ(
        standInLaunch(stream, {run, destroy, new Addition{reinterpret_cast<int32_t*>(address), amount}}), 0);
  }

  CUctx_st* context_ = nullptr;
  CUstream_st* stream_ = nullptr;
};

TEST_F(StandInCudaTest, WorkRunsLaterAndInOrder) {
  standInSetFaults("slow:20");
  const CUdeviceptr address = allocate(4);
  ASSERT_EQ(cuMemsetD8Async(address, 0, 4, stream_), 0);
  add(address, 3, stream_);
  EXPECT_EQ(cuStreamQuery(stream_), kNotReady);
  EXPECT_EQ(read(address), 3);
  EXPECT_EQ(cuStreamQuery(stream_), 0);
  EXPECT_EQ(cuMemFree_v2(address), 0);
}

TEST_F(StandInCudaTest, AHeldKernelKeepsItsStreamBusyUntilItIsLetGo) {
  const CUdeviceptr address = allocate(4);
  CUevent_st* before = nullptr;
  CUevent_st* after = nullptr;
  ASSERT_EQ(cuEventCreate(&before, 0), 0);
  ASSERT_EQ(cuEventCreate(&after, 0), 0);
  ASSERT_EQ(cuMemsetD8Async(address, 0, 4, stream_), 0);
  ASSERT_EQ(cuEventRecord(before, stream_), 0);
  standInHoldKernels(true);
  add(address, 7, stream_);
  ASSERT_EQ(cuEventRecord(after, stream_), 0);
  EXPECT_EQ(cuEventSynchronize(before), 0);
  EXPECT_EQ(cuStreamQuery(stream_), kNotReady);
  EXPECT_EQ(cuEventQuery(after), kNotReady);
  // The other thread's wait ends when the kernels are released.
  std::thread waiting([&] {
    ASSERT_EQ(cuCtxSetCurrent(context_), 0);
    EXPECT_EQ(cuEventSynchronize(after), 0);
    EXPECT_EQ(cuStreamSynchronize(stream_), 0);
  });
  standInHoldKernels(false);
  waiting.join();
  EXPECT_EQ(read(address), 7);
  EXPECT_EQ(cuEventDestroy_v2(before), 0);
  EXPECT_EQ(cuEventDestroy_v2(after), 0);
  EXPECT_EQ(cuMemFree_v2(address), 0);
}

TEST_F(StandInCudaTest, EventsOrderStreamsAndTakeTimes) {
  CUstream_st* other = nullptr;
  CUevent_st* start = nullptr;
  CUevent_st* end = nullptr;
  ASSERT_EQ(cuStreamCreate(&other, 1), 0);
  ASSERT_EQ(cuEventCreate(&start, 0), 0);
  ASSERT_EQ(cuEventCreate(&end, 0), 0);
  EXPECT_EQ(cuEventQuery(start), 0);
  float elapsed = 0;
  EXPECT_EQ(cuEventElapsedTime(&elapsed, start, end), kInvalidHandle);

  standInSetFaults("slow:10");
  const CUdeviceptr address = allocate(4);
  ASSERT_EQ(cuEventRecord(start, stream_), 0);
  ASSERT_EQ(cuMemsetD8Async(address, 0, 4, stream_), 0);
  ASSERT_EQ(cuEventRecord(end, stream_), 0);
  EXPECT_EQ(cuEventQuery(end), kNotReady);
  ASSERT_EQ(cuStreamWaitEvent(other, end, 0), 0);
  add(address, 7, other);
  ASSERT_EQ(cuStreamSynchronize(other), 0);
  EXPECT_EQ(read(address), 7);
  ASSERT_EQ(cuEventSynchronize(end), 0);
  ASSERT_EQ(cuEventElapsedTime(&elapsed, start, end), 0);
  EXPECT_GE(elapsed, 10);
  EXPECT_EQ(cuEventDestroy_v2(start), 0);
  EXPECT_EQ(cuEventDestroy_v2(end), 0);
  EXPECT_EQ(cuStreamDestroy_v2(other), 0);
  EXPECT_EQ(cuMemFree_v2(address), 0);
}

TEST_F(StandInCudaTest, AGraphReplaysWhatWasCaptured) {
  const CUdeviceptr address = allocate(4);
  ASSERT_EQ(cuMemsetD8Async(address, 0, 4, stream_), 0);
  ASSERT_EQ(cuStreamBeginCapture_v2(stream_, 1), 0);
  add(address, 2, stream_);
  int state = 0;
  EXPECT_EQ(cuStreamIsCapturing(stream_, &state), 0);
  EXPECT_EQ(state, 1);
  CUgraph_st* graph = nullptr;
  CUgraphExec_st* executable = nullptr;
  ASSERT_EQ(cuStreamEndCapture(stream_, &graph), 0);
  ASSERT_EQ(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
  EXPECT_EQ(cuGraphDestroy(graph), 0);
  EXPECT_EQ(read(address), 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(cuGraphLaunch(executable, stream_), 0);
  EXPECT_EQ(read(address), 6);
  EXPECT_EQ(cuGraphExecDestroy(executable), 0);
  EXPECT_EQ(cuMemFree_v2(address), 0);
}

TEST_F(StandInCudaTest, WhatACaptureForbidsInvalidatesIt) {
  CUgraph_st* graph = nullptr;
  ASSERT_EQ(cuStreamBeginCapture_v2(stream_, 1), 0);
  EXPECT_EQ(cuStreamSynchronize(stream_), 900);
  EXPECT_EQ(cuStreamEndCapture(stream_, &graph), 901);
  EXPECT_EQ(graph, nullptr);

  ASSERT_EQ(cuStreamBeginCapture_v2(stream_, 1), 0);
  CUdeviceptr address = 0;
  EXPECT_EQ(cuMemAlloc_v2(&address, 4), 900);
  EXPECT_EQ(cuStreamEndCapture(stream_, &graph), 901);

  standInSetFaults("capture");
  ASSERT_EQ(cuStreamBeginCapture_v2(stream_, 1), 0);
  EXPECT_EQ(cuStreamEndCapture(stream_, &graph), 901);
}

TEST_F(StandInCudaTest, CountsItsMemory) {
  size_t before = 0;
  size_t total = 0;
  size_t after = 0;
  ASSERT_EQ(cuMemGetInfo_v2(&before, &total), 0);
  CUdeviceptr address = 0;
  ASSERT_EQ(cuMemAllocAsync(&address, 1000, stream_), 0);
  EXPECT_EQ(standInMemoryAt(reinterpret_cast<void*>(address + 999), 1), kStandInDevice);
  ASSERT_EQ(cuMemGetInfo_v2(&after, &total), 0);
  EXPECT_EQ(before - after, 1000u);
  EXPECT_EQ(cuMemFreeAsync(address, stream_), 0);
  EXPECT_EQ(cuStreamSynchronize(stream_), 0);
  EXPECT_EQ(standInMemoryAt(reinterpret_cast<void*>(address), 1), kStandInUnknown);
  EXPECT_EQ(cuMemAlloc_v2(&address, total + 1), 2);
  standInSetFaults("allocation:2");
  const CUdeviceptr first = allocate(1);
  EXPECT_EQ(cuMemAlloc_v2(&address, 1), 2);
  const CUdeviceptr third = allocate(1);
  EXPECT_EQ(cuMemFree_v2(first), 0);
  EXPECT_EQ(cuMemFree_v2(third), 0);
}

TEST_F(StandInCudaTest, ALostDeviceFailsEveryCallAlike) {
  standInSetFaults("lost:0");
  int count = 0;
  EXPECT_EQ(cuDeviceGetCount(&count), 999);
  EXPECT_EQ(cuStreamSynchronize(stream_), 999);
  EXPECT_EQ(cuStreamQuery(stream_), 999);
}

TEST(StandInCudaFaultTest, AFailedKernelBreaksItsContextForGood) {
  CUctx_st* context = nullptr;
  CUstream_st* stream = nullptr;
  ASSERT_EQ(cuInit(0), 0);
  ASSERT_EQ(cuDevicePrimaryCtxRetain(&context, 1), 0);
  ASSERT_EQ(cuCtxSetCurrent(context), 0);
  ASSERT_EQ(cuStreamCreate(&stream, 1), 0);
  standInSetFaults("kernel:2");
  const StandInWork nothing{[](void*) { return 0; }, [](void*) {}, nullptr};
  EXPECT_EQ(standInLaunch(stream, nothing), 0);
  EXPECT_EQ(cuStreamSynchronize(stream), 0);
  EXPECT_EQ(standInLaunch(stream, nothing), 0);
  EXPECT_EQ(cuStreamSynchronize(stream), 700);
  CUdeviceptr address = 0;
  EXPECT_EQ(cuMemAlloc_v2(&address, 4), 700);
  EXPECT_EQ(cuStreamDestroy_v2(stream), 0);
  standInSetFaults(nullptr);
  EXPECT_EQ(cuDevicePrimaryCtxRelease_v2(1), 0);
  EXPECT_EQ(cuMemAlloc_v2(&address, 4), 709);
  EXPECT_EQ(cuCtxSetCurrent(nullptr), 0);
  EXPECT_EQ(cuMemAlloc_v2(&address, 4), 201);
}

TEST_F(StandInCudaTest, FunctionsOnAStreamMayNotCallTheDriver) {
  std::atomic<int> status = 0;
  const auto call = [](void* data) {
    int count = 0;
    *static_cast<std::atomic<int>*>(data) = cuDeviceGetCount(&count);
  };
  ASSERT_EQ(cuLaunchHostFunc(stream_, call, &status), 0);
  ASSERT_EQ(cuStreamSynchronize(stream_), 0);
  EXPECT_EQ(status, 800);
}

TEST_F(StandInCudaTest, FindsEntryPointsByTheirUnversionedNames) {
  void* function = nullptr;
  EXPECT_EQ(cuGetProcAddress_v2("cuMemAlloc", &function, 12000, 0, nullptr), 0);
  EXPECT_EQ(function, reinterpret_cast<void*>(&cuMemAlloc_v2));
  EXPECT_EQ(cuGetProcAddress_v2("cuNothing", &function, 12000, 0, nullptr), 500);
}

using StandInCudaDeathTest = StandInCudaTest;

TEST_F(StandInCudaDeathTest, MisuseAborts) {
  // Threads don't survive a fork, so each death test starts a new process.
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        const CUdeviceptr address = allocate(4);
        cuMemFree_v2(address);
        cuMemFree_v2(address);
      },
      "cuMemFree: .* is not the start of a live allocation");
  EXPECT_DEATH(
      {
        const CUdeviceptr address = allocate(4);
        cuMemFree_v2(address);
        read(address);
      },
      "cuMemcpyDtoHAsync: .* is not live device memory");
  EXPECT_DEATH(
      {
        const CUdeviceptr address = allocate(4);
        cuMemsetD8Async(address, 0, 5, stream_);
      },
      "5 bytes at .* leave their allocation of 4 bytes");
  EXPECT_DEATH(
      {
        const CUdeviceptr address = allocate(4);
        cuMemcpyHtoDAsync_v2(address, reinterpret_cast<void*>(address), 4, stream_);
      },
      "is device memory, not host memory");
  EXPECT_DEATH(cuStreamSynchronize(nullptr), "cuStreamSynchronize on the default stream");
  const auto hold = [this](const CUdeviceptr address) {
    standInHoldKernels(true);
    add(address, 1, stream_);
  };
  EXPECT_DEATH((hold(allocate(4)), cuStreamSynchronize(stream_)),
               "cuStreamSynchronize waits for a kernel that this thread holds");
  EXPECT_DEATH((hold(allocate(4)), cuStreamDestroy_v2(stream_)),
               "cuStreamDestroy_v2 waits for a kernel that this thread holds");
  EXPECT_DEATH(
      {
        CUevent_st* event = nullptr;
        cuEventCreate(&event, 0);
        hold(allocate(4));
        cuEventRecord(event, stream_);
        cuEventSynchronize(event);
      },
      "cuEventSynchronize waits for a kernel that this thread holds");
  EXPECT_DEATH(
      {
        allocate(4);
        cuStreamDestroy_v2(stream_);
        cuDevicePrimaryCtxRelease_v2(0);
      },
      "4 bytes of device memory at .* were not freed");
}

}  // namespace
