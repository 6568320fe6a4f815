// Non-owning views of memory. Tensor, whose element type is a runtime value, is for calls between folders;
// View<T, Rank> is what kernels index. Neither allocates; both are copied freely.
//
// A Tensor that an op only reads is passed as `const Tensor&`; constness of the elements is part of the op's
// contract.
#pragma once

#include <array>
#include <initializer_list>
#include <string>

#include "longstride/base/backends.h"
#include "longstride/base/dtype.h"

namespace longstride {

inline constexpr int kMaxRank = 4;

// A typed view with strides in elements; the last stride is 1.
template <class T, int Rank>
struct View {
  T* data = nullptr;
  int64_t shape[Rank] = {};
  int64_t stride[Rank] = {};

  template <class... Index>
  requires(sizeof...(Index) == Rank) LONGSTRIDE_HOST_DEVICE T& operator()(Index... index) const {
    const int64_t at[Rank] = {static_cast<int64_t>(index)...};
    int64_t offset = 0;
    for (int axis = 0; axis < Rank; ++axis) offset += at[axis] * stride[axis];
    return data[offset];
  }
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  DeviceKind device = DeviceKind::cpu;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  std::array<int64_t, kMaxRank> stride{};  // in elements

  Tensor() = default;
  // A contiguous, row-major view of `data`.
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape, DeviceKind device = DeviceKind::cpu);

  explicit operator bool() const { return data != nullptr; }
  int64_t count() const;  // elements
  int64_t bytes() const { return count() * size_of(dtype); }
  bool contiguous() const;

  // The elements as T; throws Error if the dtype differs or the tensor is not in CPU memory.
  template <class T>
  T* as() const {
    LONGSTRIDE_CHECK(dtype == dtype_of<T>(), "tensor {} read as {}", describe(), name_of(dtype_of<T>()));
    LONGSTRIDE_CHECK(device == DeviceKind::cpu, "tensor {} lies on the GPU and is read by the CPU",
                     describe());
    return static_cast<T*>(data);
  }

  template <class T, int Rank>
  View<T, Rank> view() const {
    LONGSTRIDE_CHECK(rank == Rank, "tensor {} has not rank {}", describe(), Rank);
    LONGSTRIDE_CHECK(dtype == dtype_of<std::remove_const_t<T>>(), "tensor {} read as {}", describe(),
                     name_of(dtype_of<std::remove_const_t<T>>()));
    View<T, Rank> v;
    v.data = static_cast<T*>(data);
    for (int axis = 0; axis < Rank; ++axis) v.shape[axis] = shape[axis], v.stride[axis] = stride[axis];
    return v;
  }

  // The same elements under another shape; needs a contiguous tensor and an equal count.
  Tensor reshaped(std::initializer_list<int64_t> shape) const;
  // Rows [begin, end) of the first axis.
  Tensor rows(int64_t begin, int64_t end) const;
  // Columns [begin, end) of the last axis; the result keeps the row stride.
  Tensor columns(int64_t begin, int64_t end) const;
  // The last axis of width H*D seen as two axes (H, D).
  Tensor split_last(int64_t heads) const;
  // Axis 0 of size B*N seen as two axes (B, N).
  Tensor split_first(int64_t batch) const;

  std::string describe() const;  // "f32 (2, 128, 8, 64)"
};

}  // namespace longstride
