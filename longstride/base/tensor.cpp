#include "longstride/base/tensor.h"

#include <fmt/ranges.h>

namespace longstride {

Tensor::Tensor(void* data, DType dtype, std::initializer_list<int64_t> dims, DeviceKind device)
    : data(data), dtype(dtype), device(device), rank(static_cast<int>(dims.size())) {
  LONGSTRIDE_CHECK(rank >= 1 && rank <= kMaxRank, "a tensor has 1 to {} axes, not {}", kMaxRank, rank);
  int axis = 0;
  for (int64_t extent : dims) shape[axis++] = extent;
  int64_t step = 1;
  for (axis = rank - 1; axis >= 0; --axis) {
    stride[axis] = step;
    step *= shape[axis];
  }
}

int64_t Tensor::count() const {
  int64_t total = rank > 0 ? 1 : 0;
  for (int axis = 0; axis < rank; ++axis) total *= shape[axis];
  return total;
}

bool Tensor::contiguous() const {
  int64_t step = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    if (shape[axis] != 1 && stride[axis] != step) return false;
    step *= shape[axis];
  }
  return true;
}

Tensor Tensor::reshaped(std::initializer_list<int64_t> dims) const {
  Tensor result(data, dtype, dims, device);
  LONGSTRIDE_CHECK(contiguous() && result.count() == count(), "tensor {} cannot be seen as {}", describe(),
                   result.describe());
  return result;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  LONGSTRIDE_CHECK(0 <= begin && begin <= end && end <= shape[0], "rows [{}, {}) of tensor {}", begin, end,
                   describe());
  Tensor result = *this;
  result.data = static_cast<char*>(data) + begin * stride[0] * size_of(dtype);
  result.shape[0] = end - begin;
  return result;
}

Tensor Tensor::columns(int64_t begin, int64_t end) const {
  LONGSTRIDE_CHECK(0 <= begin && begin <= end && end <= shape[rank - 1], "columns [{}, {}) of tensor {}",
                   begin, end, describe());
  Tensor result = *this;
  result.data = static_cast<char*>(data) + begin * size_of(dtype);
  result.shape[rank - 1] = end - begin;
  return result;
}

Tensor Tensor::split_last(int64_t heads) const {
  LONGSTRIDE_CHECK(rank < kMaxRank && heads > 0 && shape[rank - 1] % heads == 0,
                   "the last axis of tensor {} does not divide into {} heads", describe(), heads);
  Tensor result = *this;
  const int64_t width = shape[rank - 1] / heads;
  result.rank = rank + 1;
  result.shape[rank - 1] = heads;
  result.stride[rank - 1] = width;
  result.shape[rank] = width;
  result.stride[rank] = 1;
  return result;
}

Tensor Tensor::split_first(int64_t batch) const {
  LONGSTRIDE_CHECK(rank < kMaxRank && batch > 0 && shape[0] % batch == 0,
                   "the first axis of tensor {} does not divide into a batch of {}", describe(), batch);
  Tensor result = *this;
  result.rank = rank + 1;
  for (int axis = rank; axis > 1; --axis) {
    result.shape[axis] = shape[axis - 1];
    result.stride[axis] = stride[axis - 1];
  }
  result.shape[1] = shape[0] / batch;
  result.stride[1] = stride[0];
  result.shape[0] = batch;
  result.stride[0] = result.shape[1] * stride[0];
  return result;
}

std::string Tensor::describe() const {
  return fmt::format("{} ({})", name_of(dtype), fmt::join(shape.begin(), shape.begin() + rank, ", "));
}

}  // namespace longstride
