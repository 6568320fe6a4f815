// Normalised and rotated queries and keys (contract: longstride/ops/query_key.h). A few neighbouring lanes
// take a head: each the eight pairs of channels i and i + D / 2, so that both halves are read and written
// eight at a time. Sums of a head go over its lanes by shuffles. Bound by memory. No scratch.
#include "longstride/ops/cuda/arithmetic.cuh"
#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/query_key.h"

namespace longstride::cuda {

namespace {

template <class T>
struct Heads {
  T *x, *dx;              // dx: null in the forward
  const float* rotation;  // or null
  float* reciprocal_rms;  // or null
  int64_t rows, x_stride, dx_stride;
  int heads, width, lanes;  // 2 H, D, lanes of a head: a power of two
  int64_t positions;
  bool vectors;
};

// Sums of two over the `lanes` lanes of a head, in each of them.
__device__ inline float head_sum(float x, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

// Eight channels of each half of a head, how many there are, and what they are read from.
struct Pairs {
  Eight a, b;
};

template <class T>
__device__ inline Pairs read_pairs(const T* head, int first, int na, int nb, int half, bool vectors) {
  return {read8(head + first, na, vectors), read8(head + half + first, nb, vectors)};
}

template <class T>
__device__ inline void write_pairs(T* head, const Pairs& p, int first, int na, int nb, int half,
                                   bool vectors) {
  write8(head + first, p.a, na, vectors);
  write8(head + half + first, p.b, nb, vectors);
}

__device__ inline float squares_of(const Pairs& p, const Pairs& q) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = __fmaf_rn(p.a.v[i], q.a.v[i], sum);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = __fmaf_rn(p.b.v[i], q.b.v[i], sum);
  return sum;
}

// Turns pairs by the angles of `turn`, cosines then sines; back where kBack.
template <bool kBack>
__device__ inline void turn_pairs(Pairs& p, const float* turn, int first, int n, int half, bool vectors) {
  const Eight c = read8(turn + first, n, vectors, 1), s = read8(turn + half + first, n, vectors);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float a = p.a.v[i], b = p.b.v[i], sine = kBack ? -s.v[i] : s.v[i];
    p.a.v[i] = turned(a, -b, c.v[i], sine);
    p.b.v[i] = turned(b, a, c.v[i], sine);
  }
}

__device__ inline void scale_pairs(Pairs& p, float factor) {
#pragma unroll
  for (int i = 0; i < 8; ++i) p.a.v[i] = __fmul_rn(p.a.v[i], factor), p.b.v[i] = __fmul_rn(p.b.v[i], factor);
}

// kHeld: a lane has one eight of each half, which it keeps in registers between the two looks at a head.
template <class T, bool kBackward, bool kHeld>
__global__ void __launch_bounds__(kThreads) query_key_kernel(Heads<T> t) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t index = thread / t.lanes;
  const bool there = index < t.rows * t.heads;  // lanes of a warp stay together for the shuffles
  const int64_t row = there ? index / t.heads : 0;
  const int head = there ? static_cast<int>(index - row * t.heads) : 0;
  const int lane = static_cast<int>(thread & (t.lanes - 1)), half = (t.width + 1) / 2;
  T* const x = t.x + row * t.x_stride + head * t.width;
  T* const dx = kBackward ? t.dx + row * t.dx_stride + head * t.width : nullptr;
  const int step = 8 * t.lanes;
  const auto of_first = [&](int first) { return there ? of_eight(first, half) : 0; };
  const auto of_second = [&](int first) { return there ? of_eight(first, t.width - half) : 0; };

  Pairs p{}, g{};
  float sum = 0;
  const auto look = [&](int first) {
    const int na = of_first(first), nb = of_second(first);
    p = read_pairs(x, first, na, nb, half, t.vectors);
    if (kBackward) g = read_pairs(dx, first, na, nb, half, t.vectors);
  };
  if (kHeld) look(8 * lane);
  float factor = 1, along = 0;
  if (t.reciprocal_rms != nullptr) {
    if (kHeld) {
      sum = squares_of(p, kBackward ? g : p);
    } else {
      for (int first = 8 * lane; first < half; first += step) {
        look(first);
        sum += squares_of(p, kBackward ? g : p);
      }
    }
    sum = head_sum(sum, t.lanes) / static_cast<float>(t.width);
    float* const kept = t.reciprocal_rms + index;
    if (kBackward) {
      along = sum;
      factor = there ? *kept : 0;
    } else {
      factor = reciprocal_rms(sum);
      if (there && lane == 0) *kept = factor;
    }
  }
  const float* const turn = t.rotation != nullptr ? t.rotation + (row % t.positions) * t.width : nullptr;
  const auto finish = [&](int first) {
    const int na = of_first(first), nb = of_second(first);
    if (na == 0) return;
    if (kBackward) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        p.a.v[i] = __fmaf_rn(-p.a.v[i], along, g.a.v[i]);
        p.b.v[i] = __fmaf_rn(-p.b.v[i], along, g.b.v[i]);
      }
    }
    scale_pairs(p, factor);
    if (turn != nullptr) turn_pairs<kBackward>(p, turn, first, na, half, t.vectors);
    write_pairs(kBackward ? dx : x, p, first, na, nb, half, t.vectors);
  };
  if constexpr (kHeld) {
    finish(8 * lane);
  } else {
    for (int first = 8 * lane; first < half; first += step) {
      look(first);
      finish(first);
    }
  }
}

template <bool kBackward>
void launch(const QueryKey& q, const Tensor& dx) {
  const int64_t rows = q.x.shape[0], heads = 2 * q.heads, width = q.x.shape[1] / heads;
  if (rows == 0 || width == 0) return;
  with_float_type(q.x.dtype, [&](auto element) {
    using T = decltype(element);
    Heads<T> t{};
    t.x = data_of<T>(q.x), t.dx = kBackward ? data_of<T>(dx) : nullptr;
    t.rotation = q.rotation ? data_of<float>(q.rotation) : nullptr;
    t.reciprocal_rms = q.reciprocal_rms ? data_of<float>(q.reciprocal_rms) : nullptr;
    t.rows = rows, t.x_stride = q.x.stride[0], t.dx_stride = kBackward ? dx.stride[0] : 0;
    t.heads = static_cast<int>(heads), t.width = static_cast<int>(width);
    t.positions = q.rotation ? q.rotation.shape[0] : 1;
    const int64_t eights_of_half = ceil_div((width + 1) / 2, 8);
    for (t.lanes = 1; t.lanes < eights_of_half && t.lanes < kWarp;) t.lanes *= 2;
    t.vectors =
        width % 16 == 0 && t.x_stride % 8 == 0 && t.dx_stride % 8 == 0 && vectors_suit(t.x, t.dx, t.rotation);
    const auto blocks = static_cast<unsigned>(ceil_div(rows * heads * t.lanes, kThreads));
    if (eights_of_half <= t.lanes)
      query_key_kernel<T, kBackward, true><<<blocks, kThreads, 0, current()>>>(t);
    else
      query_key_kernel<T, kBackward, false><<<blocks, kThreads, 0, current()>>>(t);
  });
}

}  // namespace

template <>
void compute(const OpContext&, const QueryKeyForward& call) {
  launch<false>(call.t, {});
  check_launch(call.name());
}

template <>
void compute(const OpContext&, const QueryKeyBackward& call) {
  launch<true>(call.t, call.dx);
  check_launch(call.name());
}

}  // namespace longstride::cuda
