// Layer norm of rows that a warp holds in registers, alone or fused with the dropout beside it: the kernels
// of layer_norm.cu and residual.cu. One template for both, with roundings spelled out where a compiler might
// fuse them one way here and another there, gives the fused ops the bits of the ops apart.
#pragma once

#include <algorithm>

#include "longstride/ops/cuda/dropout.cuh"

namespace longstride::cuda {

// A lane holds eight elements of every 256.
inline constexpr int kChunk = 8 * kWarp;
inline constexpr int64_t kWidestForward = 8 * kChunk;   // wider rows do not fit into registers,
inline constexpr int64_t kWidestBackward = 4 * kChunk;  // nor these with their gradients
inline constexpr int kForwardWarps = 4, kBackwardWarps = 8;
inline constexpr int kBackwardThreads = kBackwardWarps * kWarp;

// Calls action(integral_constant) with the chunks that hold a row of `width`: 1, 2, 4 or 8.
template <class Action>
void with_chunks(int64_t width, Action&& action) {
  if (width <= kChunk) return action(std::integral_constant<int, 1>{});
  if (width <= 2 * kChunk) return action(std::integral_constant<int, 2>{});
  if (width <= 4 * kChunk) return action(std::integral_constant<int, 4>{});
  action(std::integral_constant<int, 8>{});
}

__device__ inline int64_t warp_of_grid() {
  return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
}
__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarp; }

// ---- the arithmetic ----

struct Moments {
  float mean, rstd;
};

// From sums over the row of x - shift and of its square; the mean is corrected by what the shift lacks.
__device__ inline Moments moments_of(float shift, float sum, float squares, float width, float epsilon) {
  const float correction = __fdiv_rn(sum, width);
  // The difference cannot be negative but for rounding. NaN must pass.
  const float variance = __fmaf_rn(-correction, correction, __fdiv_rn(squares, width));
  return {__fadd_rn(shift, correction),
          __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(variance < 0 ? 0.0f : variance, epsilon)))};
}

__device__ inline float normalised(float x, const Moments& m) {
  return __fmul_rn(__fsub_rn(x, m.mean), m.rstd);
}

__device__ inline Eight normalise(const Eight& x, const Moments& m, const Eight& gain, const Eight& bias) {
  Eight y;
#pragma unroll
  for (int j = 0; j < 8; ++j) y.v[j] = __fmaf_rn(normalised(x.v[j], m), gain.v[j], bias.v[j]);
  return y;
}

// dx + rstd (g - mean(g) - xhat mean(g xhat))
__device__ inline float input_gradient(float dx, float g, float xhat, float mean_g, float mean_product,
                                       float rstd) {
  const float inner = __fmaf_rn(-xhat, mean_product, __fsub_rn(g, mean_g));
  return __fmaf_rn(inner, rstd, dx);
}

// ---- forward ----

template <class T>
struct NormForward {
  const float* x;
  const T* branch;  // the fused op's: joins x, and their sum, what is normalised, is kept in `sum`
  float* sum;
  const float *gain, *bias;
  float epsilon;
  T* y;
  float *mean, *rstd;
  int64_t rows, width;
  bool vectors;
};

template <int kChunks, bool kBranch, class T>
__global__ void __launch_bounds__(kForwardWarps* kWarp)
    norm_forward_kernel(NormForward<T> t, DropoutMask mask) {
  const int64_t row = warp_of_grid();
  if (row >= t.rows) return;
  const int64_t base = row * t.width;
  const int lane = lane_of_warp();
  Eight x[kChunks];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int64_t column = c * kChunk + lane * 8;
    x[c] = read8(t.x + base + column, of_eight(column, t.width), t.vectors);
  }
  if constexpr (kBranch) {
    Eight branch[kChunks];
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int64_t column = c * kChunk + lane * 8;
      branch[c] = read8(t.branch + base + column, of_eight(column, t.width), t.vectors);
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int64_t column = c * kChunk + lane * 8;
      const int n = of_eight(column, t.width);
      if (n == 0) continue;
      x[c] = add_kept(x[c], branch[c], kept8(mask, base + column), mask.scale);
      write8(t.sum + base + column, x[c], n, t.vectors);
    }
  }

  const float width = static_cast<float>(t.width);
  float total = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int j = 0; j < 8; ++j)
      if (c * kChunk + lane * 8 + j < t.width) total = __fadd_rn(total, x[c].v[j]);
  const float shift = __fdiv_rn(warp_sum(total), width);
  float sum = 0, squares = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int j = 0; j < 8; ++j)
      if (c * kChunk + lane * 8 + j < t.width) {
        const float centred = __fsub_rn(x[c].v[j], shift);
        sum = __fadd_rn(sum, centred);
        squares = __fmaf_rn(centred, centred, squares);
      }
  const Moments m = moments_of(shift, warp_sum(sum), warp_sum(squares), width, t.epsilon);
  if (lane == 0) t.mean[row] = m.mean, t.rstd[row] = m.rstd;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int64_t column = c * kChunk + lane * 8;
    const int n = of_eight(column, t.width);
    if (n == 0) continue;
    const Eight gain = read8(t.gain + column, n, t.vectors), bias = read8(t.bias + column, n, t.vectors);
    write8(t.y + base + column, normalise(x[c], m, gain, bias), n, t.vectors);
  }
}

// ---- backward ----

template <class T>
struct NormBackward {
  const T* dy;
  const float *x, *gain, *mean, *rstd;
  float* dx;
  T* dbranch;      // the fused op's: dropout's gradient of dx
  float* partial;  // (blocks, 2, width): what each block adds to dgain and dbias
  int64_t rows, width;
  bool vectors;
};

// Blocks that share the rows; what dgain and dbias are summed by, so it depends on nothing but the rows.
inline int64_t backward_blocks(int64_t rows) {
  constexpr int64_t kMost = 264;  // two for each multiprocessor of an H100
  return std::min(kMost, ceil_div(rows, kBackwardWarps));
}

// The sums of the block's warps, in order, for the columns of one chunk.
__device__ inline void write_partial(const Eight& dgain, const Eight& dbias, int chunk, int64_t width,
                                     float* partial) {
  __shared__ float sums[kBackwardWarps][2][kChunk];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = lane_of_warp();
  __syncthreads();
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    sums[warp][0][lane * 8 + j] = dgain.v[j];
    sums[warp][1][lane * 8 + j] = dbias.v[j];
  }
  __syncthreads();
  static_assert(kBackwardThreads == kChunk, "a thread a column");
  const int64_t column = static_cast<int64_t>(chunk) * kChunk + threadIdx.x;
  if (column >= width) return;
  for (int which = 0; which < 2; ++which) {
    float sum = 0;
    for (int w = 0; w < kBackwardWarps; ++w) sum += sums[w][which][threadIdx.x];
    partial[(static_cast<int64_t>(blockIdx.x) * 2 + which) * width + column] = sum;
  }
}

template <int kChunks, bool kBranch, class T>
__global__ void __launch_bounds__(kBackwardThreads, kChunks <= 2 ? 2 : 1)
    norm_backward_kernel(NormBackward<T> t, DropoutMask mask) {
  const int lane = lane_of_warp();
  const float width = static_cast<float>(t.width);
  Eight dgain[kChunks] = {}, dbias[kChunks] = {};
  const int64_t step = static_cast<int64_t>(gridDim.x) * kBackwardWarps;
  for (int64_t row = warp_of_grid(); row < t.rows; row += step) {
    const int64_t base = row * t.width;
    Eight dy[kChunks], x[kChunks], dx[kChunks];
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int64_t column = c * kChunk + lane * 8;
      const int n = of_eight(column, t.width);
      dy[c] = read8(t.dy + base + column, n, t.vectors);
      x[c] = read8(t.x + base + column, n, t.vectors);
      dx[c] = read8(t.dx + base + column, n, t.vectors);
    }
    const Moments m{t.mean[row], t.rstd[row]};
    float sum = 0, products = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int64_t column = c * kChunk + lane * 8;
      const int n = of_eight(column, t.width);
      const Eight gain = read8(t.gain + column, n, t.vectors);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (j >= n) continue;
        const float xhat = normalised(x[c].v[j], m), g = __fmul_rn(dy[c].v[j], gain.v[j]);
        dgain[c].v[j] = __fmaf_rn(dy[c].v[j], xhat, dgain[c].v[j]);
        dbias[c].v[j] = __fadd_rn(dbias[c].v[j], dy[c].v[j]);
        sum = __fadd_rn(sum, g);
        products = __fmaf_rn(g, xhat, products);
        x[c].v[j] = xhat;
        dy[c].v[j] = g;
      }
    }
    const float mean_g = __fdiv_rn(warp_sum(sum), width), mean_product = __fdiv_rn(warp_sum(products), width);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int64_t column = c * kChunk + lane * 8;
      const int n = of_eight(column, t.width);
      if (n == 0) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j)
        dx[c].v[j] = input_gradient(dx[c].v[j], dy[c].v[j], x[c].v[j], mean_g, mean_product, m.rstd);
      write8(t.dx + base + column, dx[c], n, t.vectors);
      if constexpr (kBranch)
        write8(t.dbranch + base + column, keep_gradient(dx[c], kept8(mask, base + column), mask.scale), n,
               t.vectors);
    }
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) write_partial(dgain[c], dbias[c], c, t.width, t.partial);
}

// Adds partial sums (blocks, 2, width) to dgain and dbias. In layer_norm.cu.
void add_partial_sums(const float* partial, int64_t blocks, int64_t width, float* dgain, float* dbias);

}  // namespace longstride::cuda
