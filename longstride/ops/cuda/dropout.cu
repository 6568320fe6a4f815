// Dropout, eight elements and so one block of Philox a thread (contract: longstride/ops/dropout.h). No
// scratch.
#include "longstride/ops/cuda/dropout.cuh"
#include "longstride/ops/dropout.h"

namespace longstride::cuda {

namespace {

template <class T>
struct Addition {
  const float* x;
  const T* branch;
  float* y;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_kernel(Addition<T> t, DropoutMask mask, int64_t count, bool vectors) {
  const int64_t i = first_of_eight();
  const int n = of_eight(i, count);
  if (n == 0) return;
  const Eight x = read8(t.x + i, n, vectors), branch = read8(t.branch + i, n, vectors);
  write8(t.y + i, add_kept(x, branch, kept8(mask, i), mask.scale), n, vectors);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const float* dy, T* dbranch, DropoutMask mask, int64_t count, bool vectors) {
  const int64_t i = first_of_eight();
  const int n = of_eight(i, count);
  if (n == 0) return;
  const Eight gradient = read8(dy + i, n, vectors);
  write8(dbranch + i, keep_gradient(gradient, kept8(mask, i), mask.scale), n, vectors);
}

}  // namespace

template <>
void compute(const OpContext&, const DropoutAddForward& t) {
  const int64_t count = t.x.count();
  if (count == 0) return;
  with_float_type(t.branch.dtype, [&](auto element) {
    using T = decltype(element);
    const Addition<T> p{data_of<float>(t.x), data_of<T>(t.branch), data_of<float>(t.y)};
    add_kernel<<<blocks_of_eights(count), kThreads, 0, current()>>>(p, DropoutMask(t.dropout), count,
                                                                    vectors_suit(p.x, p.branch, p.y));
  });
  check_launch("dropout_add_forward");
}

template <>
void compute(const OpContext&, const DropoutBackward& t) {
  const int64_t count = t.dy.count();
  if (count == 0) return;
  with_float_type(t.dbranch.dtype, [&](auto element) {
    using T = decltype(element);
    const float* from = data_of<float>(t.dy);
    T* to = data_of<T>(t.dbranch);
    gradient_kernel<<<blocks_of_eights(count), kThreads, 0, current()>>>(from, to, DropoutMask(t.dropout),
                                                                         count, vectors_suit(from, to));
  });
  check_launch("dropout_backward");
}

}  // namespace longstride::cuda
