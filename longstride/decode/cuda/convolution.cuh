// What the feed-forward reads where the model convolves it over the last positions (contract:
// longstride/ops/causal_convolution.h). Each layer keeps the rows of the last positions of every sequence in
// a ring. What a position has of those before it is known before its own row is.
#pragma once

#include "longstride/decode/cuda/product.cuh"
#include "longstride/ops/causal_convolution.h"
#include "longstride/ops/cuda/arithmetic.cuh"

namespace longstride::cuda::decode {

inline constexpr int kTaps = kConvolutionTaps;
static_assert((kTaps & (kTaps - 1)) == 0, "slots of the ring are found by the low bits of a position");

// Where sequence s keeps column `column` of the row of `position`.
template <class T>
__device__ inline T* recent(const Args& a, const Layer& layer, int s, int column, int position) {
  const int64_t row = static_cast<int64_t>(s) * kTaps + (position & (kTaps - 1));
  return static_cast<T*>(layer.recent) + row * a.width + column;
}

// What the positions before `position` add to a column. Others may have written them in this kernel.
template <class T>
__device__ inline float of_those_before(const Args& a, const Layer& layer, int s, int column, int position) {
  float sum = 0;
#pragma unroll
  for (int tap = 1; tap < kTaps; ++tap) {
    if (tap > position) continue;
    const T* const from = recent<T>(a, layer, s, column, position - tap);
    float x;
    if constexpr (sizeof(T) == 2) {
      const unsigned short raw = __ldcg(reinterpret_cast<const unsigned short*>(from));
      x = to_float(*reinterpret_cast<const T*>(&raw));
    } else {
      x = __ldcg(from);
    }
    sum = __fmaf_rn(__ldg(layer.convolution + tap * a.width + column), x, sum);
  }
  return sum;
}

__device__ inline float convolved(float x, float own_weight, float of_before) {
  return __fadd_rn(with_own_tap(x, own_weight), of_before);
}

// Where a sequence stands, or -1 if it rests.
__device__ inline int position_of(const Args& a, int s) {
  return __ldcg(&a.sequences[s].left) > 0 ? __ldcg(&a.sequences[s].position) : -1;
}

// What a block whose rows (S, x_stride) lie in shared memory has behind them: of_those_before() (S, d) of all
// sequences and columns, and each column's weight of its own position (d).
LONGSTRIDE_HOST_DEVICE inline int64_t floats_of_before(const Args& a) {
  return static_cast<int64_t>(a.streams + 1) * a.width;
}
template <class T>
__device__ inline float* before_of(const Args& a, T* rows) {
  return reinterpret_cast<float*>(rows + static_cast<int64_t>(a.streams) * a.x_stride);
}

// Both are functions of their own, so that their callers keep their registers.

// Fills before_of(rows), by one block.
template <class T>
__device__ __noinline__ void look_back(const Args& a, const Layer& layer, T* rows) {
  float* const before = before_of(a, rows);
  for (int s = 0; s < a.streams; ++s) {
    const int position = position_of(a, s);
    if (position < 0) continue;
    for (int column = static_cast<int>(threadIdx.x); column < a.width; column += kThreads)
      before[s * a.width + column] = of_those_before<T>(a, layer, s, column, position);
  }
  for (int column = static_cast<int>(threadIdx.x); column < a.width; column += kThreads)
    before[a.streams * a.width + column] = __ldg(layer.convolution + column);
}

// The rows, normed, become what they are convolved to, by one block that has looked back. One block of the
// grid `keeps` them for later positions.
template <class T>
__device__ __noinline__ void convolve_rows(const Args& a, const Layer& layer, T* rows, bool keeps) {
  const float *const before = before_of(a, rows), *const own = before + a.streams * a.width;
  for (int s = 0; s < a.streams; ++s) {
    const int position = position_of(a, s);
    if (position < 0) continue;
    for (int column = static_cast<int>(threadIdx.x); column < a.width; column += kThreads) {
      T* const at = rows + s * a.x_stride + column;
      const T x = *at;
      *at = from_float<T>(convolved(to_float(x), own[column], before[s * a.width + column]));
      if (keeps) *recent<T>(a, layer, s, column, position) = x;
    }
  }
}

// The same for row s in the GPU's memory, by the warp that has normed it.
template <class T>
__device__ inline void convolve_row(const Args& a, const Layer& layer, int s, T* row) {
  const int position = position_of(a, s);
  if (position < 0) return;
  __syncwarp();
#pragma unroll 4
  for (int column = static_cast<int>(threadIdx.x) % kWarp; column < a.width; column += kWarp) {
    const T x = row[column];
    row[column] = from_float<T>(convolved(to_float(x), __ldg(layer.convolution + column),
                                          of_those_before<T>(a, layer, s, column, position)));
    *recent<T>(a, layer, s, column, position) = x;
  }
}

}  // namespace longstride::cuda::decode
