// NVIDIA GPUs through the CUDA runtime.
#include "longstride/device/cuda.h"

#include <algorithm>
#include <array>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/device/cuda_check.h"

namespace longstride::cuda {

namespace {

// Kernels are compiled for sm_80 and up: bf16 products and asynchronous copies to shared memory.
constexpr int kLowestMajor = 8;
constexpr int kMostDevices = 64;

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

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
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    return "this machine has no NVIDIA GPU that is visible; use --device cpu";
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

cudaStream_t current_stream() {
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

}  // namespace

bool built() { return true; }

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? std::min(count, kMostDevices) : 0;
}

std::string why_not(int index) {
  if (std::string none = why_none(); !none.empty()) return none;
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

void use(int index) {
  int current = -1;
  if (cudaGetDevice(&current) == cudaSuccess && current == index) return;
  LONGSTRIDE_CUDA_CHECK(cudaSetDevice(index));
}

std::string describe(int index) {
  cudaDeviceProp properties;
  LONGSTRIDE_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  return fmt::format("{}, sm_{}{}, {}", properties.name, properties.major, properties.minor,
                     human_bytes(static_cast<int64_t>(properties.totalGlobalMem)));
}

DeviceMemory memory(int index) {
  use(index);
  size_t free = 0, total = 0;
  LONGSTRIDE_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return {static_cast<int64_t>(free), static_cast<int64_t>(total)};
}

void* allocate(int index, int64_t bytes) {
  use(index);
  void* data = nullptr;
  if (cudaMalloc(&data, static_cast<size_t>(bytes)) == cudaSuccess) return data;
  cudaGetLastError();  // the failure is told here and must not be found again by a later check
  const DeviceMemory room = memory(index);
  fail("not enough memory on the GPU: {} asked for, {} of {} free", human_bytes(bytes),
       human_bytes(room.free), human_bytes(room.total));
}

// Destructors call these: nothing that goes wrong here may throw.
void release(int index, void* data) {
  int current = index;
  cudaGetDevice(&current);
  cudaSetDevice(index);
  cudaFree(data);
  cudaSetDevice(current);
}

void* allocate_pinned(int64_t bytes) {
  void* data = nullptr;
  if (cudaMallocHost(&data, static_cast<size_t>(bytes)) == cudaSuccess) return data;
  cudaGetLastError();
  fail(
      "not enough memory of the CPU that the GPU can reach: {} of pinned memory asked for; set "
      "train.activations = \"recompute\" or a smaller train.micro_batch",
      human_bytes(bytes));
}

void release_pinned(void* data) { cudaFreeHost(data); }

void copy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  const cudaStream_t stream = current_stream();
  LONGSTRIDE_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream));
  if (recording()) return;
  if (is_pageable(to) || is_pageable(from)) LONGSTRIDE_CUDA_CHECK(cudaStreamSynchronize(stream));
}

void fill_zero(void* data, int64_t bytes) {
  if (bytes > 0)
    LONGSTRIDE_CUDA_CHECK(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), current_stream()));
}

void synchronize() { LONGSTRIDE_CUDA_CHECK(cudaStreamSynchronize(current_stream())); }

void* stream() { return current_stream(); }

Graph Graph::record(const std::function<void()>& work) {
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
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, recorded, 0);
  cudaGraphDestroy(recorded);
  LONGSTRIDE_CUDA_CHECK(status);
  Graph graph;
  graph.graph_ = {executable, [](void* p) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(p)); }};
  return graph;
}

void Graph::launch() const {
  LONGSTRIDE_CHECK(graph_ != nullptr, "launch of a graph that holds nothing");
  LONGSTRIDE_CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph_.get()), current_stream()));
}

bool recording() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  LONGSTRIDE_CUDA_CHECK(cudaStreamIsCapturing(current_stream(), &status));
  return status != cudaStreamCaptureStatusNone;
}

namespace {

// What a SideStream owns.
struct SideState {
  cudaStream_t stream = nullptr;
  cudaEvent_t followed = nullptr;
  std::vector<cudaEvent_t> marks;

  explicit SideState(int count) : marks(static_cast<size_t>(count)) {
    LONGSTRIDE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    LONGSTRIDE_CUDA_CHECK(cudaEventCreateWithFlags(&followed, cudaEventDisableTiming));
    for (cudaEvent_t& mark : marks)
      LONGSTRIDE_CUDA_CHECK(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming));
  }
  ~SideState() {
    for (cudaEvent_t mark : marks) cudaEventDestroy(mark);
    cudaEventDestroy(followed);
    cudaStreamDestroy(stream);
  }
  SideState(const SideState&) = delete;
  SideState& operator=(const SideState&) = delete;
};

SideState& side(const std::shared_ptr<void>& state) { return *static_cast<SideState*>(state.get()); }

}  // namespace

SideStream::SideStream(int marks) : state_(std::make_shared<SideState>(marks)) {}

void SideStream::follow() const {
  LONGSTRIDE_CUDA_CHECK(cudaEventRecord(side(state_).followed, current_stream()));
  LONGSTRIDE_CUDA_CHECK(cudaStreamWaitEvent(side(state_).stream, side(state_).followed));
}

void SideStream::copy(void* to, const void* from, int64_t bytes) const {
  LONGSTRIDE_CUDA_CHECK(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, side(state_).stream));
}

void SideStream::mark(int index) const {
  LONGSTRIDE_CUDA_CHECK(
      cudaEventRecord(side(state_).marks.at(static_cast<size_t>(index)), side(state_).stream));
}

void SideStream::await(int index) const {
  LONGSTRIDE_CUDA_CHECK(
      cudaStreamWaitEvent(current_stream(), side(state_).marks.at(static_cast<size_t>(index))));
}

Moment Moment::now() {
  cudaEvent_t event = nullptr;
  LONGSTRIDE_CUDA_CHECK(cudaEventCreate(&event));
  Moment moment;
  moment.event_ = {event, [](void* p) { cudaEventDestroy(static_cast<cudaEvent_t>(p)); }};
  LONGSTRIDE_CUDA_CHECK(cudaEventRecord(event, current_stream()));
  return moment;
}

double Moment::seconds(const Moment& begin, const Moment& end) {
  const auto to = static_cast<cudaEvent_t>(end.event_.get());
  LONGSTRIDE_CUDA_CHECK(cudaEventSynchronize(to));
  float milliseconds = 0;
  LONGSTRIDE_CUDA_CHECK(
      cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(begin.event_.get()), to));
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace longstride::cuda
