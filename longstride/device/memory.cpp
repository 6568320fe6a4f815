#include "longstride/device/memory.h"

#include <algorithm>
#include <fstream>

#include <unistd.h>

#include "longstride/base/text.h"
#include "longstride/device/backend.h"

namespace longstride {

namespace {
constexpr int64_t kAlignment = 64;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
}  // namespace

Buffer::Buffer(Device device, int64_t bytes) : bytes_(bytes), device_(device) {
  LONGSTRIDE_CHECK(bytes >= 0, "a buffer of {} bytes", bytes);
  if (bytes == 0) return;
  data_ = {backend(device).allocate(device.index, bytes),
           [device, bytes](void* p) { backend(device).release(device.index, p, bytes); }};
}

Arena::Arena(Device device, int64_t bytes)
    : buffer_(device, bytes),
      device_(device),
      memory_(static_cast<char*>(buffer_.data())),
      capacity_(bytes) {}

Arena::Arena(Device device, void* memory, int64_t bytes)
    : device_(device), memory_(static_cast<char*>(memory)), capacity_(bytes) {
  LONGSTRIDE_CHECK(bytes >= 0 && (bytes == 0 || memory != nullptr), "an arena of {} bytes without memory",
                   bytes);
  LONGSTRIDE_CHECK(reinterpret_cast<uintptr_t>(memory) % kAlignment == 0,
                   "an arena's memory is not aligned to {} bytes", kAlignment);
}

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
    tensor.data = memory_ + used_;
  }
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return tensor;
}

void copy(const Tensor& from, const Tensor& to) {
  LONGSTRIDE_CHECK(
      from.dtype == to.dtype && from.count() == to.count() && from.contiguous() && to.contiguous(),
      "cannot copy tensor {} to {}", from.describe(), to.describe());
  // A device copies to and from the CPU too.
  backend(from.device != DeviceKind::cpu ? from.device : to.device).copy(to.data, from.data, from.bytes());
}

void fill_zero(const Tensor& tensor) {
  LONGSTRIDE_CHECK(tensor.contiguous(), "fill_zero of tensor {}: not contiguous", tensor.describe());
  backend(tensor.device).fill_zero(tensor.data, tensor.bytes());
}

namespace {

template <class T>
void widen(const char* data, const Tensor& shape, int axis, int64_t at, std::vector<float>& values) {
  if (axis == shape.rank) {
    values.push_back(static_cast<float>(reinterpret_cast<const T*>(data)[at]));
    return;
  }
  for (int64_t i = 0; i < shape.shape[axis]; ++i)
    widen<T>(data, shape, axis + 1, at + i * shape.stride[axis], values);
}

}  // namespace

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>(tensor.count()));
  if (tensor.count() == 0) return values;
  int64_t reach = 1;
  for (int axis = 0; axis < tensor.rank; ++axis) reach += (tensor.shape[axis] - 1) * tensor.stride[axis];
  std::vector<char> elements(static_cast<size_t>(reach * size_of(tensor.dtype)));
  const int64_t bytes = std::ssize(elements);
  copy(Tensor(tensor.data, DType::u8, {bytes}, tensor.device), Tensor(elements.data(), DType::u8, {bytes}));
  if (tensor.dtype == DType::f32)
    widen<float>(elements.data(), tensor, 0, 0, values);
  else if (tensor.dtype == DType::bf16)
    widen<Bf16>(elements.data(), tensor, 0, 0, values);
  else if (tensor.dtype == DType::f16)
    widen<F16>(elements.data(), tensor, 0, 0, values);
  else
    fail("tensor {} has no floating-point elements", tensor.describe());
  return values;
}

int64_t resident_memory() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0, of_files = 0;
  statm >> total >> resident >> of_files;
  return (resident - of_files) * sysconf(_SC_PAGESIZE);
}

}  // namespace longstride
