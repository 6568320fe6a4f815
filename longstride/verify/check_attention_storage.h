// The tensors of attention's check on a device: rows of heads as a model has them.
#pragma once

#include <initializer_list>

#include "longstride/device/memory.h"
#include "longstride/verify/check_attention.h"

namespace longstride::verify {

// Up to three tensors of rows (B, N, H, width), either separate or columns of one array with a gap of NaN
// after each. They are in CPU memory, where they are written and read, and for a GPU also in its memory.
class AttentionStorage {
 public:
  AttentionStorage(const AttentionCase& c, Device device, std::initializer_list<int64_t> widths);

  // On the device.
  Tensor operator[](size_t i) const;
  void write(size_t i, const std::vector<float>& values);
  std::vector<float> read(size_t i) const;
  int64_t count_nan() const;
  void poison();

 private:
  Tensor host_bytes() const;
  Tensor gpu_bytes() const;
  void upload() const;
  void download() const;
  template <class Visit>
  void for_each(size_t i, const Visit& visit) const;

  Device device_;
  std::vector<unsigned char> memory_;
  Buffer on_gpu_;
  std::vector<Tensor> tensors_;
};

}  // namespace longstride::verify
