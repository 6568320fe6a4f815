// Rows by their numbers (contract: longstride/ops/rows.h). Neighbouring threads take the eights of a row, and a
// block as many rows as it has threads for. Bound by memory. No scratch.
#include <algorithm>

#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/rows.h"

namespace longstride::cuda {

namespace {

enum class Way { pick, place, add };

// `wide` has the numbered rows, `dense` one row for each number.
template <Way kWay, class T>
__global__ void __launch_bounds__(kThreads) rows_kernel(T* wide, int64_t stride, const int32_t* numbers,
                                                        int64_t count, T* dense, int width, bool vectors) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= count) return;
  T *const numbered = wide + numbers[i] * stride, *const own = dense + i * width;
  for (int at = 8 * static_cast<int>(threadIdx.x); at < width; at += 8 * static_cast<int>(blockDim.x)) {
    const int n = of_eight(at, width);
    Eight x = read8((kWay == Way::pick ? numbered : own) + at, n, vectors);
    if constexpr (kWay == Way::add) {
      const Eight sum = read8(numbered + at, n, vectors);
#pragma unroll
      for (int j = 0; j < 8; ++j) x.v[j] = __fadd_rn(sum.v[j], x.v[j]);
    }
    write8((kWay == Way::pick ? own : numbered) + at, x, n, vectors);
  }
}

template <Way kWay>
void launch(const Tensor& wide, const Tensor& numbers, const Tensor& dense, const char* name) {
  if (dense.count() == 0) return;
  with_float_type(dense.dtype, [&](auto element) {
    using T = decltype(element);
    const int width = static_cast<int>(dense.shape[1]);
    const bool vectors =
        width % 8 == 0 && wide.stride[0] % 8 == 0 && vectors_suit(data_of<T>(wide), data_of<T>(dense));
    const int64_t eights = ceil_div(width, 8);
    const dim3 threads(static_cast<unsigned>(std::min<int64_t>(eights, kThreads)),
                       static_cast<unsigned>(std::max<int64_t>(1, kThreads / eights)));
    rows_kernel<kWay><<<static_cast<unsigned>(ceil_div(dense.shape[0], threads.y)), threads, 0, current()>>>(
        data_of<T>(wide), wide.stride[0], data_of<const int32_t>(numbers), dense.shape[0], data_of<T>(dense),
        width, vectors);
  });
  check_launch(name);
}

}  // namespace

template <>
void compute(const OpContext&, const PickRows& t) {
  launch<Way::pick>(t.from, t.numbers, t.to, t.name());
}

template <>
void compute(const OpContext&, const PlaceRows& t) {
  if (t.adds)
    launch<Way::add>(t.to, t.numbers, t.from, t.name());
  else
    launch<Way::place>(t.to, t.numbers, t.from, t.name());
}

}  // namespace longstride::cuda
