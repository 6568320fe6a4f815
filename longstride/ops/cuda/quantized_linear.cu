// The linear layer with a weight in eight bits (contract: longstride/ops/quantized_linear.h), made for few
// rows, where reading the weight is all the time there is. A warp owns an output: lane l takes the elements
// [16 l, 16 l + 16) of every 512, for a few rows of x at once, and adds them in the same order whatever the
// number of rows. No scratch.
#include <algorithm>

#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/quantized_linear.h"

namespace longstride::cuda {

namespace {

constexpr float kLargest = 127;
constexpr int kWarps = 4;
constexpr int kSixteen = 16;

__device__ inline int64_t warp_of_blocks() {
  return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
}

__global__ void __launch_bounds__(kWarps* kWarp)
    quantize_kernel(const float* w, int8_t* values, float* scales, int64_t rows, int64_t width) {
  const int64_t row = warp_of_blocks();
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float largest = 0;
  for (int64_t i = lane; i < width; i += kWarp) largest = fmaxf(largest, fabsf(w[row * width + i]));
  largest = warp_max(largest);
  const float scale = __fdiv_rn(largest, kLargest);
  if (lane == 0) scales[row] = scale;
  for (int64_t i = lane; i < width; i += kWarp) {
    const float steps = __fmul_rn(__fdiv_rn(w[row * width + i], largest), kLargest);
    values[row * width + i] = scale == 0 ? int8_t{0} : static_cast<int8_t>(roundf(steps));
  }
}

template <class T>
__global__ void __launch_bounds__(kWarps* kWarp)
    dequantize_kernel(const int8_t* values, const float* scales, T* w, int64_t rows, int64_t width) {
  const int64_t row = warp_of_blocks();
  if (row >= rows) return;
  const float scale = scales[row];
  for (int64_t i = static_cast<int>(threadIdx.x) % kWarp; i < width; i += kWarp)
    w[row * width + i] = from_float<T>(__fmul_rn(scale, static_cast<float>(values[row * width + i])));
}

struct Product {
  const float* x;
  int64_t x_row;  // elements from row to row
  const int8_t* values;
  const float* scales;
  const float* bias;  // or null
  float* y;
  int64_t y_row;
  int64_t m, n, k;
  bool vectors_of_x, vectors_of_values;
};

struct Sixteen {
  float v[kSixteen];
};

__device__ inline Sixteen read_values(const int8_t* p, int count, bool vectors) {
  Sixteen x;
  if (vectors && count == kSixteen) {
    const int4 raw = *reinterpret_cast<const int4*>(p);
    const int words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < kSixteen; ++i)
      x.v[i] = static_cast<float>(static_cast<int8_t>(words[i / 4] >> (i % 4 * 8)));
  } else {
#pragma unroll
    for (int i = 0; i < kSixteen; ++i) x.v[i] = i < count ? static_cast<float>(p[i]) : 0.0f;
  }
  return x;
}

// kRows rows of x from row `first` on.
template <int kRows>
__device__ inline void multiply_rows(const Product& t, int64_t column, int64_t first) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sum[kRows] = {};
  for (int64_t at = lane * kSixteen; at < t.k; at += kSixteen * kWarp) {
    const int count = at + kSixteen <= t.k ? kSixteen : static_cast<int>(t.k - at);
    const Sixteen w = read_values(t.values + column * t.k + at, count, t.vectors_of_values);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float* x = t.x + (first + row) * t.x_row + at;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Eight values = read8(x + 8 * half, min(max(count - 8 * half, 0), 8), t.vectors_of_x);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[row] = __fmaf_rn(values.v[j], w.v[8 * half + j], sum[row]);
      }
    }
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const float total = __fmul_rn(warp_sum(sum[row]), t.scales[column]);
    if (lane == 0) t.y[(first + row) * t.y_row + column] = t.bias ? __fadd_rn(total, t.bias[column]) : total;
  }
}

constexpr int kRowsAtOnce = 4;

__global__ void __launch_bounds__(kWarps* kWarp) product_kernel(Product t) {
  const int64_t column = warp_of_blocks();
  if (column >= t.n) return;
  for (int64_t first = int64_t{kRowsAtOnce} * blockIdx.y; first < t.m; first += kRowsAtOnce * gridDim.y) {
    if (first + kRowsAtOnce <= t.m) {
      multiply_rows<kRowsAtOnce>(t, column, first);
    } else {
      for (int64_t row = first; row < t.m; ++row) multiply_rows<1>(t, column, row);
    }
  }
}

unsigned blocks_of_warps(int64_t warps) { return static_cast<unsigned>(ceil_div(warps, kWarps)); }

}  // namespace

template <>
void compute(const OpContext&, const Quantize& t) {
  const int64_t rows = t.w.shape[0], width = t.w.shape[1];
  if (rows == 0) return;
  quantize_kernel<<<blocks_of_warps(rows), kWarps * kWarp, 0, current()>>>(
      data_of<float>(t.w), data_of<int8_t>(t.q.values), data_of<float>(t.q.scales), rows, width);
  check_launch("quantize");
}

template <>
void compute(const OpContext&, const Dequantize& t) {
  const int64_t rows = t.w.shape[0], width = t.w.shape[1];
  if (rows == 0 || width == 0) return;
  with_float_type(t.w.dtype, [&](auto element) {
    dequantize_kernel<<<blocks_of_warps(rows), kWarps * kWarp, 0, current()>>>(
        data_of<int8_t>(t.q.values), data_of<float>(t.q.scales), data_of<decltype(element)>(t.w), rows,
        width);
  });
  check_launch("dequantize");
}

template <>
void compute(const OpContext&, const QuantizedLinearForward& call) {
  Product t{data_of<float>(call.x),
            call.x.stride[0],
            data_of<int8_t>(call.w.values),
            data_of<float>(call.w.scales),
            data_of<float>(call.b),
            data_of<float>(call.y),
            call.y.stride[0],
            call.x.shape[0],
            call.w.values.shape[0],
            call.w.values.shape[1],
            false,
            false};
  if (t.m == 0 || t.n == 0) return;
  t.vectors_of_x = t.x_row % 4 == 0 && vectors_suit(t.x);
  t.vectors_of_values = t.k % kSixteen == 0 && vectors_suit(t.values);
  constexpr int64_t kMostBlocksOfRows = 65535;
  const dim3 grid(blocks_of_warps(t.n),
                  static_cast<unsigned>(std::min(kMostBlocksOfRows, ceil_div(t.m, kRowsAtOnce))));
  product_kernel<<<grid, kWarps * kWarp, 0, current()>>>(t);
  check_launch("quantized_linear_forward");
}

}  // namespace longstride::cuda
