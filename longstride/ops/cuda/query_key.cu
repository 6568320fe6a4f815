// Normalised and rotated queries and keys (contract: longstride/ops/query_key.h). A few neighbouring lanes
// take a head: each the eight pairs of channels i and i + D / 2, so that both halves are read and written
// eight at a time. Sums of a head go over its lanes by shuffles. Bound by memory. No scratch.
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

// The sum over the `lanes` lanes of a head, in each of them.
__device__ inline float head_sum(float x, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

// Eight channels of each half of a head.
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

// The sum of products of two heads' channels, those of this lane.
__device__ inline float products_of(const Pairs& p, const Pairs& q) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = __fmaf_rn(p.a.v[i], q.a.v[i], sum);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = __fmaf_rn(p.b.v[i], q.b.v[i], sum);
  return sum;
}

struct Turn {
  Eight cosines, sines;
};

// `turn`: a position's cosines, then its sines.
__device__ inline Turn read_turn(const float* turn, int first, int n, int half, bool vectors) {
  return {read8(turn + first, n, vectors, 1), read8(turn + half + first, n, vectors)};
}

// Turns pairs, back where kBack.
template <bool kBack>
__device__ inline void turn_pairs(Pairs& p, const Turn& turn) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float a = p.a.v[i], b = p.b.v[i];
    const float cosine = turn.cosines.v[i], sine = kBack ? -turn.sines.v[i] : turn.sines.v[i];
    p.a.v[i] = __fmaf_rn(-b, sine, __fmul_rn(a, cosine));
    p.b.v[i] = __fmaf_rn(a, sine, __fmul_rn(b, cosine));
  }
}

__device__ inline void scale_pairs(Pairs& p, float factor) {
#pragma unroll
  for (int i = 0; i < 8; ++i) p.a.v[i] = __fmul_rn(p.a.v[i], factor), p.b.v[i] = __fmul_rn(p.b.v[i], factor);
}

// Heads of a row that a lane takes at a time: they share the position's cosines and sines, which are twice as
// many bytes as a head's channels.
template <bool kBackward, bool kHeld>
inline constexpr int kHeadsAtOnce = !kHeld      ? 1
                                    : kBackward ? 2
                                                : 4;

// kHeld: a lane has one eight of each half, which it keeps in registers between the two looks at a head.
template <class T, bool kBackward, bool kHeld>
__global__ void __launch_bounds__(kThreads) query_key_kernel(Heads<T> t) {
  constexpr int kHeads = kHeadsAtOnce<kBackward, kHeld>;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t index = thread / t.lanes;
  const int groups = (t.heads + kHeads - 1) / kHeads;
  const bool there = index < t.rows * groups;  // lanes of a warp stay together for the shuffles
  const int64_t row = there ? index / groups : 0;
  const int head = there ? static_cast<int>(index - row * groups) * kHeads : 0;
  const int lane = static_cast<int>(thread & (t.lanes - 1)), half = (t.width + 1) / 2;
  T* const x = t.x + row * t.x_stride + head * t.width;
  T* const dx = kBackward ? t.dx + row * t.dx_stride + head * t.width : nullptr;
  float* const rms = t.reciprocal_rms != nullptr ? t.reciprocal_rms + row * t.heads + head : nullptr;
  const int step = 8 * t.lanes;
  const int present = there ? min(kHeads, t.heads - head) : 0;
  const auto of_first = [&](int h, int first) { return h < present ? of_eight(first, half) : 0; };
  const auto of_second = [&](int h, int first) { return h < present ? of_eight(first, t.width - half) : 0; };

  Pairs p[kHeads], g[kHeads];
  const auto look = [&](int first) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int na = of_first(h, first), nb = of_second(h, first);
      p[h] = read_pairs(x + h * t.width, first, na, nb, half, t.vectors);
      if (kBackward) g[h] = read_pairs(dx + h * t.width, first, na, nb, half, t.vectors);
    }
  };
  if (kHeld) look(8 * lane);
  float factor[kHeads], along[kHeads];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) factor[h] = 1, along[h] = 0;
  if (rms != nullptr) {
    float sum[kHeads];
    if (kHeld) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) sum[h] = products_of(p[h], kBackward ? g[h] : p[h]);
    } else {
      sum[0] = 0;
      for (int first = 8 * lane; first < half; first += step) {
        look(first);
        sum[0] += products_of(p[0], kBackward ? g[0] : p[0]);
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float mean = head_sum(sum[h], t.lanes) / static_cast<float>(t.width);
      if (kBackward) {
        along[h] = mean;
        factor[h] = h < present ? rms[h] : 0;
      } else {
        factor[h] = rsqrtf(mean + kQueryKeyEpsilon);
        if (h < present && lane == 0) rms[h] = factor[h];
      }
    }
  }
  const float* const turn = t.rotation != nullptr ? t.rotation + (row % t.positions) * t.width : nullptr;
  const auto finish = [&](int first) {
    Turn angles{};
    if (turn != nullptr) angles = read_turn(turn, first, of_first(0, first), half, t.vectors);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int na = of_first(h, first), nb = of_second(h, first);
      if (na == 0) return;
      if (kBackward) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          p[h].a.v[i] = __fmaf_rn(-p[h].a.v[i], along[h], g[h].a.v[i]);
          p[h].b.v[i] = __fmaf_rn(-p[h].b.v[i], along[h], g[h].b.v[i]);
        }
      }
      scale_pairs(p[h], factor[h]);
      if (turn != nullptr) turn_pairs<kBackward>(p[h], angles);
      write_pairs((kBackward ? dx : x) + h * t.width, p[h], first, na, nb, half, t.vectors);
    }
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
    const auto run = [&](auto held) {
      constexpr bool kHeld = decltype(held)::value;
      const int64_t groups = ceil_div(heads, int64_t{kHeadsAtOnce<kBackward, kHeld>});
      const auto blocks = static_cast<unsigned>(ceil_div(rows * groups * t.lanes, int64_t{kThreads}));
      query_key_kernel<T, kBackward, kHeld><<<blocks, kThreads, 0, current()>>>(t);
    };
    if (eights_of_half <= t.lanes)
      run(std::true_type{});
    else
      run(std::false_type{});
  });
}

}  // namespace

void query_key_forward(const OpContext&, const QueryKey& t) {
  launch<false>(t, {});
  check_launch("query_key_forward");
}

void query_key_backward(const OpContext&, const QueryKey& t, const Tensor& dx) {
  launch<true>(t, dx);
  check_launch("query_key_backward");
}

}  // namespace longstride::cuda
