#include "longstride/verify/workbench.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "longstride/base/rng.h"

namespace longstride::verify {

namespace {
constexpr uint64_t kSeed = 20190423;

void fill_with_nan(const Tensor& tensor) {
  const std::vector<char> ones(static_cast<size_t>(tensor.bytes()), '\xff');  // NaN in every float format
  const int64_t bytes = tensor.bytes();
  copy(Tensor(const_cast<char*>(ones.data()), DType::u8, {bytes}),
       Tensor(tensor.data, DType::u8, {bytes}, tensor.device));
}
}  // namespace

Floats normal_values(uint32_t which, int64_t count, double deviation, double mean) {
  const RandomStream random{kSeed, which, 0};
  Floats values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    values[i] = static_cast<float>(mean + deviation * random.normal(static_cast<uint64_t>(i)));
  return values;
}

Bytes random_bytes(uint32_t which, int64_t count, int64_t classes) {
  const RandomStream random{kSeed, which, 1};
  Bytes values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    values[i] = static_cast<uint8_t>(random.uniform(static_cast<uint64_t>(i)) *
                                     static_cast<double>(std::min<int64_t>(classes, 256)));
  return values;
}

Doubles widened(const Floats& values) { return {values.begin(), values.end()}; }

namespace {

// Calls action(T{}) with the type of a float dtype's elements on the CPU.
template <class Action>
auto with_host_type(DType dtype, const Action& action) {
  if (dtype == DType::bf16) return action(Bf16{});
  if (dtype == DType::f16) return action(F16{});
  return action(float{});
}

}  // namespace

Floats as_stored(const Floats& values, DType dtype) {
  return with_host_type(dtype, [&](auto element) {
    Floats stored;
    stored.reserve(values.size());
    for (float value : values) stored.push_back(static_cast<float>(decltype(element)(value)));
    return stored;
  });
}

std::vector<DType> stored_dtypes(Device device) {
  std::vector<DType> dtypes{DType::f32, DType::bf16};
  if (device.kind == DeviceKind::cuda) dtypes.push_back(DType::f16);
  return dtypes;
}

Workbench::Workbench(Device device, int64_t scratch_bytes, int64_t offset)
    : device_(device), scratch_bytes_(scratch_bytes), offset_(offset), scratch_(device, scratch_bytes) {}

OpContext Workbench::context() {
  const int64_t mark = scratch_.used();
  if (scratch_bytes_ > 0) fill_with_nan(scratch_.allocate(DType::u8, {scratch_bytes_}));
  scratch_.release_to(mark);
  return {device_, &scratch_};
}

Tensor Workbench::poisoned(DType dtype, std::initializer_list<int64_t> shape) {
  Tensor tensor(nullptr, dtype, shape, device_.kind);
  const int64_t offset = offset_ * size_of(dtype);
  const Buffer& memory = buffers_.emplace_back(device_, std::max<int64_t>(tensor.bytes() + offset, 1));
  tensor.data = static_cast<char*>(memory.data()) + offset;
  fill_with_nan(tensor);
  return tensor;
}

Tensor Workbench::put(const Floats& values, std::initializer_list<int64_t> shape, DType dtype) {
  const Tensor tensor = poisoned(dtype, shape);
  const int64_t count = static_cast<int64_t>(values.size());
  LONGSTRIDE_CHECK(count == tensor.count(), "{} values for tensor {}", count, tensor.describe());
  with_host_type(dtype, [&](auto element) {
    std::vector<decltype(element)> rounded(values.begin(), values.end());
    copy(Tensor(rounded.data(), dtype, {count}), tensor);
  });
  return tensor;
}

Tensor Workbench::put(const Bytes& values, std::initializer_list<int64_t> shape) {
  const Tensor tensor = poisoned(DType::u8, shape);
  copy(Tensor(const_cast<uint8_t*>(values.data()), DType::u8, {static_cast<int64_t>(values.size())}), tensor);
  return tensor;
}

Tensor Workbench::poisoned_rows(DType dtype, int64_t rows, int64_t width, int64_t padding) {
  return poisoned(dtype, {rows, width + 2 * padding}).columns(padding, padding + width);
}

Tensor Workbench::put_rows(const Floats& values, int64_t rows, int64_t width, int64_t padding, DType dtype) {
  const int64_t stride = width + 2 * padding;
  Floats wide(static_cast<size_t>(rows * stride), std::numeric_limits<float>::quiet_NaN());
  for (int64_t row = 0; row < rows; ++row)
    std::copy_n(values.begin() + row * width, width, wide.begin() + row * stride + padding);
  return put(wide, {rows, stride}, dtype).columns(padding, padding + width);
}

Tensor Workbench::wide_rows(const Tensor& tensor, int64_t padding) const {
  Tensor wide = tensor;
  wide.data = static_cast<char*>(tensor.data) - padding * size_of(tensor.dtype);
  wide.shape[1] += 2 * padding;
  return wide;
}

Floats Workbench::get(const Tensor& tensor) const {
  if (!tensor.contiguous()) {
    const int64_t padding = (tensor.stride[0] - tensor.shape[1]) / 2, rows = tensor.shape[0],
                  width = tensor.shape[1];
    const Floats wide = get(wide_rows(tensor, padding));
    Floats values;
    for (int64_t row = 0; row < rows; ++row) {
      const auto begin = wide.begin() + row * tensor.stride[0] + padding;
      values.insert(values.end(), begin, begin + width);
    }
    return values;
  }
  const int64_t count = tensor.count();
  return with_host_type(tensor.dtype, [&](auto element) {
    std::vector<decltype(element)> values(static_cast<size_t>(count));
    copy(tensor, Tensor(values.data(), tensor.dtype, {count}));
    Floats wide;
    wide.reserve(values.size());
    for (auto value : values) wide.push_back(static_cast<float>(value));
    return wide;
  });
}

bool Workbench::padding_is_intact(const Tensor& tensor, int64_t padding) const {
  const Floats wide = get(wide_rows(tensor, padding));
  const int64_t stride = tensor.shape[1] + 2 * padding;
  for (int64_t i = 0; i < static_cast<int64_t>(wide.size()); ++i) {
    const int64_t column = i % stride;
    if ((column < padding || column >= stride - padding) && wide[i] == wide[i]) return false;
  }
  return true;
}

void CheckList::require(std::string name, bool holds) {
  checks_.push_back({std::move(name), holds ? 0 : std::numeric_limits<double>::infinity(), 0});
}

void CheckList::same_bits(std::string name, std::span<const float> a, std::span<const float> b) {
  require(std::move(name), a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

}  // namespace longstride::verify
