// f(x) = x s, f'(x) = s + 1.702 x s (1 - s) with s = sigmoid(1.702 x) (contract:
// longstride/ops/activation.h). Element by element, eight a thread, computed in f32 whatever the tensors
// hold. No scratch.
#include "longstride/ops/activation.h"
#include "longstride/ops/cuda/arithmetic.cuh"
#include "longstride/ops/cuda/eights.cuh"

namespace longstride::cuda {

namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(const T* x, T* y, int64_t count, bool vectors) {
  const int64_t i = first_of_eight();
  const int n = of_eight(i, count);
  if (n == 0) return;
  Eight value = read8(x + i, n, vectors);
#pragma unroll
  for (float& element : value.v) element = activated(element);
  write8(y + i, value, n, vectors);
}

// y may be null.
template <class T>
struct Gradient {
  const T *dy, *x;
  T *dx, *y;
};

template <class T>
__global__ void __launch_bounds__(kThreads) backward_kernel(Gradient<T> t, int64_t count, bool vectors) {
  const int64_t i = first_of_eight();
  const int n = of_eight(i, count);
  if (n == 0) return;
  Eight value = read8(t.x + i, n, vectors), gradient = read8(t.dy + i, n, vectors);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float x = value.v[j], s = activation_gate(x);
    const float slope = __fmul_rn(__fmul_rn(x, 1.702f), __fsub_rn(1.0f, s));
    gradient.v[j] = __fmul_rn(gradient.v[j], __fmaf_rn(slope, s, s));
    value.v[j] = __fmul_rn(x, s);
  }
  write8(t.dx + i, gradient, n, vectors);
  if (t.y) write8(t.y + i, value, n, vectors);
}

}  // namespace

template <>
void compute(const OpContext&, const ActivationForward& t) {
  const int64_t count = t.x.count();
  if (count == 0) return;
  with_float_type(t.x.dtype, [&](auto element) {
    using T = decltype(element);
    forward_kernel<<<blocks_of_eights(count), kThreads, 0, current()>>>(
        data_of<T>(t.x), data_of<T>(t.y), count, vectors_suit(data_of<T>(t.x), data_of<T>(t.y)));
  });
  check_launch("activation_forward");
}

template <>
void compute(const OpContext&, const ActivationBackward& t) {
  const int64_t count = t.x.count();
  if (count == 0) return;
  with_float_type(t.x.dtype, [&](auto element) {
    using T = decltype(element);
    const Gradient<T> p{data_of<T>(t.dy), data_of<T>(t.x), data_of<T>(t.dx), data_of<T>(t.y)};
    backward_kernel<<<blocks_of_eights(count), kThreads, 0, current()>>>(p, count,
                                                                         vectors_suit(p.dy, p.x, p.dx, p.y));
  });
  check_launch("activation_backward");
}

}  // namespace longstride::cuda
