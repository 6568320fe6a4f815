// Dropout, eight elements and so one block of Philox a thread (contract: longstride/ops/dropout.h). No
// scratch.
#include "longstride/ops/cuda/dropout.cuh"
#include "longstride/ops/cuda/ops.h"

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

void dropout_add_forward(const OpContext&, const Tensor& x, const Tensor& branch, const Dropout& dropout,
                         const Tensor& y) {
  const int64_t count = x.count();
  if (count == 0) return;
  with_float_type(branch.dtype, [&](auto element) {
    using T = decltype(element);
    const Addition<T> t{data_of<float>(x), data_of<T>(branch), data_of<float>(y)};
    add_kernel<<<blocks_of_eights(count), kThreads, 0, current()>>>(t, DropoutMask(dropout), count,
                                                                    vectors_suit(t.x, t.branch, t.y));
  });
  check_launch("dropout_add_forward");
}

void dropout_backward(const OpContext&, const Tensor& dy, const Dropout& dropout, const Tensor& dbranch) {
  const int64_t count = dy.count();
  if (count == 0) return;
  with_float_type(dbranch.dtype, [&](auto element) {
    using T = decltype(element);
    const float* from = data_of<float>(dy);
    T* to = data_of<T>(dbranch);
    gradient_kernel<<<blocks_of_eights(count), kThreads, 0, current()>>>(from, to, DropoutMask(dropout),
                                                                         count, vectors_suit(from, to));
  });
  check_launch("dropout_backward");
}

}  // namespace longstride::cuda
