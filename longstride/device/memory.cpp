#include "longstride/device/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "longstride/base/text.h"
#include "longstride/base/threads.h"
#include "longstride/device/cuda.h"
#include "longstride/device/instructions.h"

namespace longstride {

namespace {
constexpr int64_t kAlignment = 64;
// Large buffers are mapped directly, so that untouched pages cost nothing and freed ones return to the
// system.
constexpr int64_t kMapFrom = int64_t{1} << 20;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
}  // namespace

Buffer::Buffer(Device device, int64_t bytes) : bytes_(bytes), device_(device) {
  LONGSTRIDE_CHECK(bytes >= 0, "a buffer of {} bytes", bytes);
  if (bytes == 0) return;
  if (device.kind == DeviceKind::cuda) {
    data_ = {cuda::allocate(device.index, bytes),
             [index = device.index](void* p) { cuda::release(index, p); }};
    cuda::fill_zero(data_.get(), bytes);
    return;
  }
  if (bytes >= kMapFrom) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    LONGSTRIDE_CHECK(memory != MAP_FAILED, "not enough memory for {}: {}", human_bytes(bytes),
                     last_system_error());
    madvise(memory, bytes, MADV_HUGEPAGE);
    data_ = {memory, [bytes](void* p) { munmap(p, bytes); }};
    return;
  }
  void* memory = std::aligned_alloc(kAlignment, aligned(bytes));
  LONGSTRIDE_CHECK(memory != nullptr, "not enough memory for {}", human_bytes(bytes));
  std::memset(memory, 0, bytes);
  data_ = {memory, [](void* p) { std::free(p); }};
}

Arena::Arena(Device device, int64_t bytes) : buffer_(device, bytes), device_(device), capacity_(bytes) {}

Arena Arena::measuring(Device device) {
  Arena arena;
  arena.device_ = device;
  arena.measuring_ = true;
  return arena;
}

Tensor Arena::allocate(DType dtype, std::initializer_list<int64_t> shape) {
  Tensor tensor(nullptr, dtype, shape, device_.kind);
  const int64_t bytes = aligned(tensor.bytes());
  if (!measuring_) {
    LONGSTRIDE_CHECK(used_ + bytes <= capacity_, "arena of {} is full: {} used, {} asked for {}",
                     human_bytes(capacity_), human_bytes(used_), human_bytes(bytes), tensor.describe());
    tensor.data = static_cast<char*>(buffer_.data()) + used_;
  }
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return tensor;
}

void copy(const Tensor& from, const Tensor& to) {
  LONGSTRIDE_CHECK(
      from.dtype == to.dtype && from.count() == to.count() && from.contiguous() && to.contiguous(),
      "cannot copy tensor {} to {}", from.describe(), to.describe());
  if (from.device == DeviceKind::cuda || to.device == DeviceKind::cuda)
    cuda::copy(to.data, from.data, from.bytes());
  else if (from.bytes() > 0)
    std::memcpy(to.data, from.data, from.bytes());
}

void fill_zero(const Tensor& tensor) {
  LONGSTRIDE_CHECK(tensor.contiguous(), "fill_zero of tensor {}: not contiguous", tensor.describe());
  if (tensor.device == DeviceKind::cuda) return cuda::fill_zero(tensor.data, tensor.bytes());
  char* data = static_cast<char*>(tensor.data);
  const int64_t bytes = tensor.bytes(), chunk = int64_t{1} << 20;
  parallel_for((bytes + chunk - 1) / chunk,
               [&](int64_t i) { std::memset(data + i * chunk, 0, std::min(chunk, bytes - i * chunk)); });
}

int64_t resident_memory() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0, of_files = 0;
  statm >> total >> resident >> of_files;
  return (resident - of_files) * sysconf(_SC_PAGESIZE);
}

// ---- device.h ----

Device parse_device(std::string_view text) {
  if (text == "cpu") return {};
  if (text == "auto") return cuda::why_not(0).empty() ? Device{DeviceKind::cuda, 0} : Device{};
  if (text == "cuda" || text.starts_with("cuda:")) {
    const Device device{DeviceKind::cuda,
                        text == "cuda" ? 0 : static_cast<int>(parse_integer(text.substr(5), "device"))};
    const std::string why_not = cuda::why_not(device.index);
    LONGSTRIDE_CHECK(why_not.empty(), "device {}: {}", text, why_not);
    cuda::use(device.index);
    return device;
  }
  fail("unknown device '{}'; use cpu, cuda, cuda:N or auto", text);
}

std::string name_of(Device device) {
  return device.kind == DeviceKind::cpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

bool cpu_has_bf16() { return may_use(Instructions::avx512_bf16); }

std::string describe_cpu() {
  std::string name = "unknown CPU", line;
  std::ifstream info("/proc/cpuinfo");
  while (std::getline(info, line)) {
    if (!line.starts_with("model name")) continue;
    name = trim(std::string_view(line).substr(line.find(':') + 1));
    break;
  }
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    name += ", AVX-512";
  else if (__builtin_cpu_supports("avx2"))
    name += ", AVX2";
  if (__builtin_cpu_supports("avx512bf16")) name += ", AVX512-BF16";
  if (instructions_of_cpu().back() == Instructions::amx) name += ", AMX";
#endif
  return name;
}

}  // namespace longstride
