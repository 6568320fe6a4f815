// Values mixed with the first block's (contract: longstride/ops/value_mix.h). Neighbouring threads take the
// eights of a row, and a block as many rows as it has threads for. Bound by memory. No scratch.
#include <algorithm>
#include <type_traits>

#include "longstride/ops/cuda/arithmetic.cuh"
#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/value_mix.h"

namespace longstride::cuda {

namespace {

enum class Pass { forward, backward, backward_first, keep };

// `F` is the type of first: f32 where it is a sum of gradients.
template <class T, class F>
struct MixedRows {
  T* x;
  F* first;
  int64_t rows, x_stride, first_stride;
  int width;
  float share, own;  // of the first block, and the rest
  bool adds, vectors;
};

// Eight elements of x and first become what the pass makes of them.
template <Pass kPass>
__device__ inline void mix8(Eight& x, Eight& first, float share, float own) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if constexpr (kPass == Pass::forward) {
      x.v[i] = mixed_value(x.v[i], first.v[i], share, own);
    } else if constexpr (kPass == Pass::backward) {
      first.v[i] = __fmaf_rn(x.v[i], share, first.v[i]);
      x.v[i] = __fmul_rn(x.v[i], own);
    } else if constexpr (kPass == Pass::backward_first) {
      x.v[i] = __fadd_rn(x.v[i], first.v[i]);
    } else {
      first.v[i] = x.v[i];
    }
  }
}

template <Pass kPass, class T, class F>
__global__ void __launch_bounds__(kThreads) mix_kernel(MixedRows<T, F> t) {
  constexpr bool kReadsFirst = kPass == Pass::forward || kPass == Pass::backward_first;
  constexpr bool kWritesFirst = kPass == Pass::backward || kPass == Pass::keep;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= t.rows) return;
  T* const x_row = t.x + row * t.x_stride;
  F* const first_row = t.first + row * t.first_stride;
  for (int i = 8 * static_cast<int>(threadIdx.x); i < t.width; i += 8 * static_cast<int>(blockDim.x)) {
    const int n = of_eight(i, t.width);
    Eight x = read8(x_row + i, n, t.vectors), first{};
    if (kReadsFirst || (kPass == Pass::backward && t.adds)) first = read8(first_row + i, n, t.vectors);
    mix8<kPass>(x, first, t.share, t.own);
    if (kPass != Pass::keep) write8(x_row + i, x, n, t.vectors);
    if (kWritesFirst) write8(first_row + i, first, n, t.vectors);
  }
}

template <Pass kPass>
void launch(const Tensor& x, const Tensor& first, float share, bool adds, const char* name) {
  if (x.count() == 0) return;
  with_float_type(x.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr bool kSumsGradients = kPass == Pass::backward || kPass == Pass::backward_first;
    using F = std::conditional_t<kSumsGradients, float, T>;
    MixedRows<T, F> t{};
    t.x = data_of<T>(x), t.first = data_of<F>(first);
    t.rows = x.shape[0], t.x_stride = x.stride[0], t.first_stride = first.stride[0];
    t.width = static_cast<int>(x.shape[1]);
    t.share = share, t.own = 1.0f - share, t.adds = adds;
    t.vectors = t.x_stride % 8 == 0 && t.first_stride % 8 == 0 && vectors_suit(t.x, t.first);
    const int64_t eights = ceil_div(t.width, 8);
    const dim3 threads(static_cast<unsigned>(std::min<int64_t>(eights, kThreads)),
                       static_cast<unsigned>(std::max<int64_t>(1, kThreads / eights)));
    mix_kernel<kPass><<<static_cast<unsigned>(ceil_div(t.rows, threads.y)), threads, 0, current()>>>(t);
  });
  check_launch(name);
}

}  // namespace

template <>
void compute(const OpContext&, const ValueMixForward& t) {
  launch<Pass::forward>(t.x, t.first, t.share, false, t.name());
}

template <>
void compute(const OpContext&, const ValueMixBackward& t) {
  launch<Pass::backward>(t.dx, t.d_first, t.share, t.adds, t.name());
}

template <>
void compute(const OpContext&, const ValueMixBackwardFirst& t) {
  launch<Pass::backward_first>(t.dx, t.d_first, 0, false, t.name());
}

template <>
void compute(const OpContext&, const ValueMixKeep& t) {
  launch<Pass::keep>(t.x, t.first, 0, false, t.name());
}

}  // namespace longstride::cuda
