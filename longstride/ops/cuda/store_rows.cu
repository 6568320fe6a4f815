// Rows to a cache (contract: longstride/ops/store_rows.h), a thread an element. No scratch.
#include "longstride/ops/cuda/common.cuh"
#include "longstride/ops/store_rows.h"

namespace longstride::cuda {

namespace {

constexpr int kThreads = 256;

struct Place {
  int64_t batch, position, head;  // strides in elements

  explicit Place(const Tensor& t) : batch(t.stride[0]), position(t.stride[1]), head(t.stride[2]) {}
  __device__ int64_t at(int64_t b, int64_t n, int64_t h) const { return b * batch + n * position + h * head; }
};

template <class From, class To>
struct Rows {
  const From* from;
  To* to;
  Place from_place, to_place;
  int64_t count;
  int64_t positions;
  int heads, width;
};

template <class From, class To>
__global__ void __launch_bounds__(kThreads) store_kernel(Rows<From, To> rows) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows.count) return;
  const int64_t row = i / rows.width;
  const int column = static_cast<int>(i - row * rows.width);
  const int64_t slot = row / rows.heads;
  const int64_t h = row - slot * rows.heads, b = slot / rows.positions, n = slot - b * rows.positions;
  rows.to[rows.to_place.at(b, n, h) + column] =
      from_float<To>(to_float(rows.from[rows.from_place.at(b, n, h) + column]));
}

}  // namespace

void store_rows(const OpContext&, const Tensor& rows, const Tensor& cache) {
  const int64_t count = rows.count();
  if (count == 0) return;
  with_float_type(rows.dtype, [&](auto source) {
    with_float_type(cache.dtype, [&](auto target) {
      using From = decltype(source);
      using To = decltype(target);
      const Rows<From, To> args{data_of<From>(rows),
                                data_of<To>(cache),
                                Place(rows),
                                Place(cache),
                                count,
                                rows.shape[1],
                                static_cast<int>(rows.shape[2]),
                                static_cast<int>(rows.shape[3])};
      store_kernel<<<static_cast<unsigned>(ceil_div(count, kThreads)), kThreads, 0, current()>>>(args);
    });
  });
  check_launch("store_rows");
}

}  // namespace longstride::cuda
