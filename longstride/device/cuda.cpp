// NVIDIA GPUs through the CUDA runtime.
#include "longstride/device/cuda.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/device/backend.h"
#include "longstride/device/cuda_check.h"

namespace longstride {

namespace cuda {

namespace {

// Kernels are compiled for sm_80 and up: bf16 products and asynchronous copies to shared memory.
constexpr int kLowestMajor = 8;
constexpr int kMostDevices = 64;

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

// The device that see_only() left; -1: all.
int only_device = -1;
constexpr const char* kVisible = "CUDA_VISIBLE_DEVICES";

// Why no GPU at all can be used; empty if some may.
std::string why_none() {
  int driver = 0, runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "no NVIDIA driver was found; install one, or use --device cpu";
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver)
    return fmt::format(
        "the NVIDIA driver is too old: it supports CUDA {}, this longstride needs {}; update the driver, or "
        "use --device cpu",
        version_text(driver), version_text(runtime));
  const bool none = status == cudaErrorNoDevice || (status == cudaSuccess && count == 0);
  if (none && only_device >= 0)
    return fmt::format(
        "each rank of a machine takes a GPU of its own, and this machine has none of number {}; start no "
        "more "
        "ranks than it has GPUs",
        only_device);
  if (none) return "this machine has no NVIDIA GPU that is visible; use --device cpu";
  if (status != cudaSuccess)
    return fmt::format("the NVIDIA driver does not answer: {}; use --device cpu", cudaGetErrorString(status));
  return {};
}

// The stream of each device, made at its first use. They live as long as the process.
cudaStream_t stream_of(int index) {
  static std::array<cudaStream_t, kMostDevices> streams{};
  cudaStream_t& stream = streams.at(static_cast<size_t>(index));
  if (stream == nullptr) LONGSTRIDE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

// The stream on which this thread queues instead of its device's own.
thread_local cudaStream_t side = nullptr;

void queue_on(cudaStream_t stream, const std::function<void()>& work) {
  const cudaStream_t before = std::exchange(side, stream);
  try {
    work();
  } catch (...) {
    side = before;
    throw;
  }
  side = before;
}

cudaStream_t current_stream() {
  if (side != nullptr) return side;
  int index = 0;
  LONGSTRIDE_CUDA_CHECK(cudaGetDevice(&index));
  return stream_of(index);
}

// Memory of the CPU that the driver does not know.
bool is_pageable(const void* data) {
  cudaPointerAttributes attributes;
  LONGSTRIDE_CUDA_CHECK(cudaPointerGetAttributes(&attributes, data));
  return attributes.type == cudaMemoryTypeUnregistered;
}

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? std::min(count, kMostDevices) : 0;
}

void choose(int index) {
  int current = -1;
  if (cudaGetDevice(&current) == cudaSuccess && current == index) return;
  LONGSTRIDE_CUDA_CHECK(cudaSetDevice(index));
}

bool is_recording() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  LONGSTRIDE_CUDA_CHECK(cudaStreamIsCapturing(current_stream(), &status));
  return status != cudaStreamCaptureStatusNone;
}

class CudaGraph : public Graph {
 public:
  explicit CudaGraph(const std::function<void()>& work) {
    const cudaStream_t stream = current_stream();
    LONGSTRIDE_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t recorded = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream, &recorded);
      if (recorded != nullptr) cudaGraphDestroy(recorded);
      throw;
    }
    LONGSTRIDE_CUDA_CHECK(cudaStreamEndCapture(stream, &recorded));
    const cudaError_t status = cudaGraphInstantiate(&executable_, recorded, 0);
    cudaGraphDestroy(recorded);
    LONGSTRIDE_CUDA_CHECK(status);
  }
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void launch() const override { LONGSTRIDE_CUDA_CHECK(cudaGraphLaunch(executable_, current_stream())); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

class CudaSideStream : public SideStream {
 public:
  explicit CudaSideStream(int marks) : marks_(static_cast<size_t>(marks)) {
    LONGSTRIDE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    LONGSTRIDE_CUDA_CHECK(cudaEventCreateWithFlags(&followed_, cudaEventDisableTiming));
    for (cudaEvent_t& mark : marks_)
      LONGSTRIDE_CUDA_CHECK(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming));
  }
  ~CudaSideStream() override {
    for (const cudaEvent_t mark : marks_) cudaEventDestroy(mark);
    cudaEventDestroy(followed_);
    cudaStreamDestroy(stream_);
  }
  CudaSideStream(const CudaSideStream&) = delete;
  CudaSideStream& operator=(const CudaSideStream&) = delete;

  void follow() const override {
    LONGSTRIDE_CUDA_CHECK(cudaEventRecord(followed_, current_stream()));
    LONGSTRIDE_CUDA_CHECK(cudaStreamWaitEvent(stream_, followed_));
  }
  void run(const std::function<void()>& work) const override { queue_on(stream_, work); }
  void copy(void* to, const void* from, int64_t bytes) const override {
    LONGSTRIDE_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_));
  }
  void mark(int index) const override {
    LONGSTRIDE_CUDA_CHECK(cudaEventRecord(marks_.at(static_cast<size_t>(index)), stream_));
  }
  void await(int index) const override {
    LONGSTRIDE_CUDA_CHECK(cudaStreamWaitEvent(current_stream(), marks_.at(static_cast<size_t>(index))));
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t followed_ = nullptr;
  std::vector<cudaEvent_t> marks_;
};

class CudaMoment : public Moment {
 public:
  CudaMoment() {
    LONGSTRIDE_CUDA_CHECK(cudaEventCreate(&event_));
    LONGSTRIDE_CUDA_CHECK(cudaEventRecord(event_, current_stream()));
  }
  ~CudaMoment() override { cudaEventDestroy(event_); }
  CudaMoment(const CudaMoment&) = delete;
  CudaMoment& operator=(const CudaMoment&) = delete;

  double seconds_since(const Moment& begin) const override {
    LONGSTRIDE_CUDA_CHECK(cudaEventSynchronize(event_));
    float milliseconds = 0;
    LONGSTRIDE_CUDA_CHECK(
        cudaEventElapsedTime(&milliseconds, dynamic_cast<const CudaMoment&>(begin).event_, event_));
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

class Cuda : public Backend {
 public:
  int count() const override { return device_count(); }

  std::string why_not(int index) const override {
    if (std::string none = why_none(); !none.empty()) return none;
    if (index > 0 && only_device >= 0)
      return fmt::format(
          "each rank of a machine takes a GPU of its own; say cuda, and {} says which they may be", kVisible);
    if (index < 0 || index >= device_count())
      return fmt::format("this machine has {} GPU{}; use cuda:0{}", device_count(),
                         device_count() == 1 ? "" : "s",
                         device_count() == 1 ? "" : fmt::format(" to cuda:{}", device_count() - 1));
    cudaDeviceProp properties;
    LONGSTRIDE_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    if (properties.major < kLowestMajor)
      return fmt::format("{} (sm_{}{}) is not supported, the oldest is sm_80 (A100); use --device cpu",
                         properties.name, properties.major, properties.minor);
    return {};
  }

  std::string describe(int index) const override {
    cudaDeviceProp properties;
    LONGSTRIDE_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    return fmt::format("{}, sm_{}{}, {}", properties.name, properties.major, properties.minor,
                       human_bytes(static_cast<int64_t>(properties.totalGlobalMem)));
  }

  void use(int index) const override { choose(index); }

  std::string identity(int index) const override {
    cudaDeviceProp properties;
    LONGSTRIDE_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    return std::string(properties.uuid.bytes, sizeof(properties.uuid.bytes));
  }

  // CUDA reads the variable when it is first called.
  void see_only(int index) const override {
    std::string device = std::to_string(index);
    if (const char* named = std::getenv(kVisible); named != nullptr && *named != '\0') {
      const std::vector<std::string> devices = split(named, ',');
      if (devices.size() == 1) return;  // by a launcher that shares the GPUs out itself
      LONGSTRIDE_CHECK(index < static_cast<int>(devices.size()),
                       "{} = {} names {} GPUs; start no more ranks than that on this machine", kVisible,
                       named, devices.size());
      device = devices[static_cast<size_t>(index)];
    }
    only_device = index;
    setenv(kVisible, device.c_str(), 1);
  }

  std::span<const DType> product_dtypes() const override {
    static constexpr std::array kDtypes{DType::f32, DType::bf16, DType::f16};
    return kDtypes;
  }

  DeviceMemory memory(int index) const override {
    choose(index);
    size_t free = 0, total = 0;
    LONGSTRIDE_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return {static_cast<int64_t>(free), static_cast<int64_t>(total)};
  }

  void* allocate(int index, int64_t bytes) const override {
    choose(index);
    void* data = nullptr;
    if (cudaMalloc(&data, static_cast<size_t>(bytes)) != cudaSuccess) {
      cudaGetLastError();  // the failure is told here and must not be found again by a later check
      const DeviceMemory there = memory(index);
      fail("not enough memory on the GPU: {} asked for, {} of {} free", human_bytes(bytes),
           human_bytes(there.free), human_bytes(there.total));
    }
    fill_zero(data, bytes);
    return data;
  }

  // Destructors call these: nothing that goes wrong here may throw.
  void release(int index, void* data, int64_t) const noexcept override {
    int current = index;
    cudaGetDevice(&current);
    cudaSetDevice(index);
    cudaFree(data);
    cudaSetDevice(current);
  }

  void* allocate_pinned(int64_t bytes) const override {
    void* data = nullptr;
    if (cudaMallocHost(&data, static_cast<size_t>(bytes)) != cudaSuccess) {
      cudaGetLastError();
      fail(
          "not enough memory of the CPU that the GPU can reach: {} of pinned memory asked for; set "
          "train.activations = \"recompute\" or a smaller train.micro_batch",
          human_bytes(bytes));
    }
    std::memset(data, 0, static_cast<size_t>(bytes));
    return data;
  }

  void release_pinned(void* data, int64_t) const noexcept override { cudaFreeHost(data); }

  void copy(void* to, const void* from, int64_t bytes) const override { cuda::copy(to, from, bytes); }

  void fill_zero(void* data, int64_t bytes) const override {
    if (bytes > 0)
      LONGSTRIDE_CUDA_CHECK(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), current_stream()));
  }

  void synchronize() const override { LONGSTRIDE_CUDA_CHECK(cudaStreamSynchronize(current_stream())); }
  void run_on(void* stream, const std::function<void()>& work) const override {
    // No stream means the default one, which has a name of its own too.
    queue_on(stream != nullptr ? static_cast<cudaStream_t>(stream) : cudaStreamLegacy, work);
  }
  bool busy() const override {
    const cudaError_t status = cudaStreamQuery(current_stream());
    if (status == cudaErrorNotReady) return true;
    LONGSTRIDE_CUDA_CHECK(status);
    return false;
  }
  std::unique_ptr<Moment> moment() const override { return std::make_unique<CudaMoment>(); }
  bool has_graphs() const override { return true; }
  std::unique_ptr<Graph> record(const std::function<void()>& work) const override {
    return std::make_unique<CudaGraph>(work);
  }
  bool recording() const override { return is_recording(); }
  std::unique_ptr<SideStream> side_stream(int marks) const override {
    return std::make_unique<CudaSideStream>(marks);
  }
};

}  // namespace

void* stream() { return current_stream(); }

void copy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  const cudaStream_t stream = current_stream();
  LONGSTRIDE_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream));
  if (is_recording()) return;
  if (is_pageable(to) || is_pageable(from)) LONGSTRIDE_CUDA_CHECK(cudaStreamSynchronize(stream));
}

}  // namespace cuda

template <>
const Backend& backend_of<DeviceKind::cuda>() {
  static const cuda::Cuda cuda;
  return cuda;
}

}  // namespace longstride
