// Tools for the checks of the ops: sample values, tensors on a device that are poisoned at first, and the
// list of results.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "longstride/ops/context.h"
#include "longstride/verify/check.h"

namespace longstride::verify {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Bytes = std::vector<uint8_t>;

// `count` normal values with this mean and deviation. Each `which` gives other values.
Floats normal_values(uint32_t which, int64_t count, double deviation = 1, double mean = 0);
// Bytes below `classes`.
Bytes random_bytes(uint32_t which, int64_t count, int64_t classes);

Doubles widened(const Floats& values);
// The values as a tensor of this dtype (f32, bf16 or f16) holds them.
Floats as_stored(const Floats& values, DType dtype);
// The dtypes that the device's ops take on branches: f32, bf16 and, on a GPU, f16.
std::vector<DType> stored_dtypes(Device device);

// Owns the tensors of one case on one device, and scratch of exactly the stated size, both filled with NaN.
class Workbench {
 public:
  // Every tensor begins `offset` elements after the alignment of its memory.
  explicit Workbench(Device device, int64_t scratch_bytes = 0, int64_t offset = 0);

  OpContext context();

  // A tensor of NaN.
  Tensor poisoned(DType dtype, std::initializer_list<int64_t> shape);
  // A tensor with these values (rounded to the dtype, f32, bf16 or f16).
  Tensor put(const Floats& values, std::initializer_list<int64_t> shape, DType dtype = DType::f32);
  Tensor put(const Bytes& values, std::initializer_list<int64_t> shape);
  // Matrices whose rows are the middle of wider ones, with `padding` columns of NaN on either side.
  Tensor poisoned_rows(DType dtype, int64_t rows, int64_t width, int64_t padding);
  Tensor put_rows(const Floats& values, int64_t rows, int64_t width, int64_t padding,
                  DType dtype = DType::f32);

  // The elements as floats.
  Floats get(const Tensor& tensor) const;
  // Whether the padding beside the rows is unchanged.
  bool padding_is_intact(const Tensor& tensor, int64_t padding) const;

 private:
  Tensor wide_rows(const Tensor& tensor, int64_t padding) const;

  Device device_;
  std::vector<Buffer> buffers_;
  int64_t scratch_bytes_, offset_;
  Arena scratch_;
};

class CheckList {
 public:
  void compare(std::string name, std::span<const float> ours, std::span<const float> naive,
               std::span<const double> reference, double floor = 1e-6) {
    checks_.push_back(verify::compare(std::move(name), ours, naive, reference, floor));
  }
  // A property that either holds or does not.
  void require(std::string name, bool holds);
  // Equal bit for bit, NaN included.
  void same_bits(std::string name, std::span<const float> a, std::span<const float> b);

  std::vector<Check> take() { return std::move(checks_); }

 private:
  std::vector<Check> checks_;
};

}  // namespace longstride::verify
