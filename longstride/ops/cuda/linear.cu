// Linear layer: y = x w^T + b, dx = dy w, dw += dy^T x, db += column sums of dy.
//
// Products are cuBLASLt's, with the bias in their epilogue; tensors in f32 that a 16-bit product multiplies
// are rounded into scratch first. Scratch: cuBLASLt's workspace, those copies, and partial column sums.
// Column sums are a pass of their own over dy, in f32 and in a fixed order: on the way of the weight
// gradient's product (cuBLASLt's BGRADB) they made that product slower by more than the pass takes.
#include <algorithm>

#include "longstride/ops/cuda/common.cuh"
#include "longstride/ops/cuda/matmul.h"
#include "longstride/ops/linear.h"

namespace longstride::cuda {

namespace {

// ---- rounding rows into scratch ----

struct RoundArgs {
  const float* from;
  void* to;
  int64_t stride, rows;  // of `from`; `to` is contiguous
  int width;
};

template <class T, bool kEights>
__global__ void round_kernel(const RoundArgs a) {
  constexpr int kAtOnce = kEights ? 8 : 1;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = index / (a.width / kAtOnce);
  if (row >= a.rows) return;
  const int64_t column = index % (a.width / kAtOnce) * kAtOnce;
  const float* from = a.from + row * a.stride + column;
  T* to = static_cast<T*>(a.to) + row * a.width + column;
  if constexpr (kEights)
    store8(to, load8(from));
  else
    *to = from_float<T>(*from);
}

// `t` itself if it has this dtype, else a contiguous copy in scratch.
Tensor in_dtype(const Tensor& t, DType dtype, Arena& scratch) {
  if (t.dtype == dtype || t.count() == 0) return t;
  const bool is_row = t.rank == 1;
  const int64_t rows = is_row ? 1 : t.shape[0], width = is_row ? t.shape[0] : t.shape[1];
  const Tensor copy = is_row ? scratch.allocate(dtype, {width}) : scratch.allocate(dtype, {rows, width});
  if (scratch.is_measuring()) return copy;
  const RoundArgs args{data_of<const float>(t), copy.data, is_row ? width : t.stride[0], rows,
                       static_cast<int>(width)};
  const bool by_eights = eights(t.data, width) && args.stride % 8 == 0;
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>(ceil_div(rows * width / (by_eights ? 8 : 1), kThreads));
  with_float_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (by_eights)
      round_kernel<T, true><<<blocks, kThreads, 0, current()>>>(args);
    else
      round_kernel<T, false><<<blocks, kThreads, 0, current()>>>(args);
  });
  check_launch("linear's rounding");
  return copy;
}

// ---- column sums ----
//
// Blocks sum parts of the rows over some columns each, as many as keep the chip's memory busy; what they
// leave, a few hundred rows at most, is added up by a second kernel.

constexpr int kSumColumns = 256;  // of a block: 32 lanes of 8
constexpr int kSumWarps = 8;
constexpr int kRowsAtOnce = 4;    // that a warp has on the way
constexpr int64_t kBlocks = 528;  // wanted: four on each of an H100's 132 multiprocessors, all at once
constexpr int kPartWarps = 32;    // of a block that adds up parts, a column a lane

// The rows of each part, the same for every warp of its block; the last part may have fewer.
int64_t rows_of_part(int64_t rows, int64_t width) {
  constexpr int64_t kMultiple = kSumWarps * kRowsAtOnce;
  const int64_t across = std::max<int64_t>(1, ceil_div(width, kSumColumns));
  return kMultiple * std::max<int64_t>(1, ceil_div(rows, kMultiple * ceil_div(kBlocks, across)));
}

int64_t parts_of(int64_t rows, int64_t width) { return ceil_div(rows, rows_of_part(rows, width)); }

struct SumArgs {
  const void* x;
  int64_t stride, rows, rows_of_part;
  int width;
  float* parts;  // (parts, width)
};

// Columns from `from` on, of which `left` exist.
template <class T, bool kEights>
__device__ Eight load_columns(const T* from, int left) {
  if constexpr (kEights) return load8(from);
  Eight x{};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (i < left) x.v[i] = to_float(from[i]);
  return x;
}

__device__ inline void add(float (&sum)[8], const Eight& x) {
#pragma unroll
  for (int e = 0; e < 8; ++e) sum[e] += x.v[e];
}

template <class T, bool kEights>
__global__ void __launch_bounds__(kWarp* kSumWarps, 4) column_sums_kernel(const SumArgs a) {
  __shared__ float sums[kSumWarps][kSumColumns];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int column = static_cast<int>(blockIdx.x) * kSumColumns + 8 * lane;
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * a.rows_of_part;
  const int64_t end = begin + a.rows_of_part < a.rows ? begin + a.rows_of_part : a.rows;
  float sum[8] = {};
  if (column < a.width) {
    const T* from = static_cast<const T*>(a.x) + (begin + warp) * a.stride + column;
    const int64_t step = kSumWarps * a.stride;
    const int left = a.width - column;
    int64_t row = begin + warp;
#pragma unroll 1
    for (; row + (kRowsAtOnce - 1) * kSumWarps < end; row += kRowsAtOnce * kSumWarps) {
      Eight x[kRowsAtOnce];
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) x[i] = load_columns<T, kEights>(from + i * step, left);
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) add(sum, x[i]);
      from += kRowsAtOnce * step;
    }
#pragma unroll 1
    for (; row < end; row += kSumWarps, from += step) add(sum, load_columns<T, kEights>(from, left));
  }
#pragma unroll
  for (int e = 0; e < 8; ++e) sums[warp][8 * lane + e] = sum[e];
  __syncthreads();
  const int own = static_cast<int>(threadIdx.x), at = static_cast<int>(blockIdx.x) * kSumColumns + own;
  if (at >= a.width) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kSumWarps; ++w) total += sums[w][own];
  a.parts[static_cast<int64_t>(blockIdx.y) * a.width + at] = total;
}
static_assert(kSumColumns == kWarp * kSumWarps, "a thread adds up one column of its block");

// to (width) += the rows of `parts` (count, width): warps take rows by turns, then their sums are added in
// order.
__global__ void __launch_bounds__(kWarp* kPartWarps)
    add_parts_kernel(const float* parts, int count, int width, float* to) {
  __shared__ float sums[kPartWarps][kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int column = static_cast<int>(blockIdx.x) * kWarp + lane;
  float sum = 0;
  if (column < width) {
#pragma unroll 8
    for (int part = warp; part < count; part += kPartWarps)
      sum += parts[static_cast<int64_t>(part) * width + column];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= width) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kPartWarps; ++w) total += sums[w][lane];
  to[column] += total;
}

void add_column_sums(const Tensor& x, const Tensor& to, Arena& scratch) {
  const int64_t rows = x.shape[0], width = x.shape[1];
  if (rows == 0 || width == 0) return;
  const int64_t parts = parts_of(rows, width);
  const Tensor sums = scratch.allocate(DType::f32, {parts, width});
  if (scratch.is_measuring()) return;
  const SumArgs args{
      x.data, x.stride[0], rows, rows_of_part(rows, width), static_cast<int>(width), data_of<float>(sums)};
  const dim3 grid(static_cast<unsigned>(ceil_div(width, kSumColumns)), static_cast<unsigned>(parts));
  const bool by_eights = eights(x.data, width) && x.stride[0] % 8 == 0;
  with_float_type(x.dtype, [&](auto element) {
    using T = decltype(element);
    if (by_eights)
      column_sums_kernel<T, true><<<grid, kWarp * kSumWarps, 0, current()>>>(args);
    else
      column_sums_kernel<T, false><<<grid, kWarp * kSumWarps, 0, current()>>>(args);
  });
  check_launch("linear's column sums");
  add_parts_kernel<<<static_cast<unsigned>(ceil_div(width, kWarp)), kWarp * kPartWarps, 0, current()>>>(
      args.parts, static_cast<int>(parts), args.width, data_of<float>(to));
  check_launch("linear's bias gradient");
}

void* workspace_of(Arena& scratch) { return scratch.allocate(DType::u8, {kMatmulWorkspace}).data; }

}  // namespace

template <>
void compute(const OpContext& context, const LinearForward& t) {
  Arena& scratch = *context.scratch;
  const Arena::Scope scope(scratch);
  void* const workspace = workspace_of(scratch);
  Matmul m{Product::a_bt, in_dtype(t.x, t.w.dtype, scratch), t.w, t.y, t.b, false};
  if (!scratch.is_measuring() && matmul(m, workspace)) return;
  m.bias = in_dtype(t.b, t.y.dtype, scratch);
  if (scratch.is_measuring()) return;
  LONGSTRIDE_CHECK(matmul(m, workspace), "linear_forward: cuBLAS has no kernel that adds a bias to {}",
                   t.y.describe());
}

template <>
void compute(const OpContext& context, const LinearBackwardInput& t) {
  Arena& scratch = *context.scratch;
  const Arena::Scope scope(scratch);
  void* const workspace = workspace_of(scratch);
  const Tensor dy = in_dtype(t.dy, t.w.dtype, scratch);
  if (!scratch.is_measuring()) matmul({Product::a_b, dy, t.w, t.dx, {}, false}, workspace);
}

template <>
void compute(const OpContext& context, const LinearBackwardWeight& t) {
  Arena& scratch = *context.scratch;
  const Arena::Scope scope(scratch);
  void* const workspace = workspace_of(scratch);
  const Tensor dy = in_dtype(t.dy, t.product, scratch), x = in_dtype(t.x, t.product, scratch);
  if (!scratch.is_measuring()) matmul({Product::at_b, dy, x, t.dw, {}, true}, workspace);
  // Of dy as it is: sums of its rounded copy are not good enough.
  if (t.db.rank > 0) add_column_sums(t.dy, t.db, scratch);
}

}  // namespace longstride::cuda
