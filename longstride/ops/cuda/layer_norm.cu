// Layer normalisation, a warp a row, computed in f32 whatever y and dy hold (contract:
// longstride/ops/layer_norm.h). Rows up to kWidestForward and kWidestBackward stay in registers between the
// sums and what they are for (layer_norm.cuh); wider ones are read again. dgain and dbias are summed by
// blocks of rows into scratch, then over the blocks in order. Scratch in the backward: two rows of `width`
// a block.
#include <algorithm>

#include "longstride/ops/cuda/layer_norm.cuh"
#include "longstride/ops/layer_norm.h"

namespace longstride::cuda {

namespace {

// Calls visit(column, n) for the lane's eights of a row.
template <class Visit>
__device__ inline void for_each_eight(int64_t width, const Visit& visit) {
  for (int64_t column = lane_of_warp() * 8; column < width; column += kChunk)
    visit(column, of_eight(column, width));
}

template <class T>
__device__ inline void apply_row(const NormForward<T>& t, int64_t row, const Moments& m) {
  const int64_t base = row * t.width;
  for_each_eight(t.width, [&](int64_t column, int n) {
    const Eight x = read8(t.x + base + column, n, t.vectors);
    const Eight gain = read8(t.gain + column, n, t.vectors), bias = read8(t.bias + column, n, t.vectors);
    write8(t.y + base + column, normalise(x, m, gain, bias), n, t.vectors);
  });
}

template <class T>
__global__ void __launch_bounds__(kForwardWarps* kWarp) apply_kernel(NormForward<T> t) {
  const int64_t row = warp_of_grid();
  if (row < t.rows) apply_row(t, row, {t.mean[row], t.rstd[row]});
}

template <class T>
__global__ void __launch_bounds__(kForwardWarps* kWarp) wide_forward_kernel(NormForward<T> t) {
  const int64_t row = warp_of_grid();
  if (row >= t.rows) return;
  const float* x = t.x + row * t.width;
  const float width = static_cast<float>(t.width);
  float total = 0;
  for_each_eight(t.width, [&](int64_t column, int n) {
    const Eight values = read8(x + column, n, t.vectors);
#pragma unroll
    for (int j = 0; j < 8; ++j) total += values.v[j];
  });
  const float shift = __fdiv_rn(warp_sum(total), width);
  float sum = 0, squares = 0;
  for_each_eight(t.width, [&](int64_t column, int n) {
    const Eight values = read8(x + column, n, t.vectors, shift);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float centred = values.v[j] - shift;
      sum += centred;
      squares = fmaf(centred, centred, squares);
    }
  });
  const Moments m = moments_of(shift, warp_sum(sum), warp_sum(squares), width, t.epsilon);
  if (lane_of_warp() == 0) t.mean[row] = m.mean, t.rstd[row] = m.rstd;
  apply_row(t, row, m);
}

// A thread a column, over the block's share of the rows.
template <class T>
__global__ void __launch_bounds__(kBackwardThreads)
    wide_partial_kernel(NormBackward<T> t, int64_t rows_each) {
  const int64_t column = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= t.width) return;
  const int64_t begin = blockIdx.x * rows_each;
  const int64_t end = begin + rows_each < t.rows ? begin + rows_each : t.rows;
  float dgain = 0, dbias = 0;
#pragma unroll 4
  for (int64_t row = begin; row < end; ++row) {
    const float dy = to_float(t.dy[row * t.width + column]);
    dgain = fmaf(dy, normalised(t.x[row * t.width + column], {t.mean[row], t.rstd[row]}), dgain);
    dbias += dy;
  }
  float* to = t.partial + static_cast<int64_t>(blockIdx.x) * 2 * t.width + column;
  to[0] = dgain;
  to[t.width] = dbias;
}

template <class T>
__global__ void __launch_bounds__(kForwardWarps* kWarp) wide_backward_kernel(NormBackward<T> t) {
  const int64_t row = warp_of_grid();
  if (row >= t.rows) return;
  const int64_t base = row * t.width;
  const float width = static_cast<float>(t.width);
  const Moments m{t.mean[row], t.rstd[row]};
  float sum = 0, products = 0;
  for_each_eight(t.width, [&](int64_t column, int n) {
    const Eight dy = read8(t.dy + base + column, n, t.vectors), x = read8(t.x + base + column, n, t.vectors);
    const Eight gain = read8(t.gain + column, n, t.vectors);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float g = __fmul_rn(dy.v[j], gain.v[j]);
      sum += g;
      products = fmaf(g, normalised(x.v[j], m), products);
    }
  });
  const float mean_g = __fdiv_rn(warp_sum(sum), width), mean_product = __fdiv_rn(warp_sum(products), width);
  for_each_eight(t.width, [&](int64_t column, int n) {
    const Eight dy = read8(t.dy + base + column, n, t.vectors), x = read8(t.x + base + column, n, t.vectors);
    const Eight gain = read8(t.gain + column, n, t.vectors);
    Eight dx = read8(t.dx + base + column, n, t.vectors);
#pragma unroll
    for (int j = 0; j < 8; ++j)
      dx.v[j] = input_gradient(dx.v[j], __fmul_rn(dy.v[j], gain.v[j]), normalised(x.v[j], m), mean_g,
                               mean_product, m.rstd);
    write8(t.dx + base + column, dx, n, t.vectors);
  });
}

constexpr int kSumColumns = 32, kSumGroups = 8;

// A warp's lanes are columns of one group; a group sums every eighth block, and the groups are added in
// order.
__global__ void __launch_bounds__(kSumColumns* kSumGroups)
    sum_kernel(const float* partial, int64_t blocks, int64_t width, float* dgain, float* dbias) {
  __shared__ float sums[kSumGroups][kSumColumns];
  const int lane = threadIdx.x % kSumColumns, group = threadIdx.x / kSumColumns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kSumColumns + lane;
  float sum = 0;
  if (column < 2 * width) {
#pragma unroll 8
    for (int64_t block = group; block < blocks; block += kSumGroups)
      sum += partial[block * 2 * width + column];
  }
  sums[group][lane] = sum;
  __syncthreads();
  if (group != 0 || column >= 2 * width) return;
  for (int other = 1; other < kSumGroups; ++other) sum += sums[other][lane];
  float* to = column < width ? dgain + column : dbias + column - width;
  *to += sum;
}

// Of a forward, or of an apply, which takes the moments as given.
template <class T, class Call>
NormForward<T> forward_arguments(const Call& call, float epsilon) {
  NormForward<T> t{};
  t.x = data_of<float>(call.x), t.gain = data_of<float>(call.gain), t.bias = data_of<float>(call.bias);
  t.epsilon = epsilon;
  t.y = data_of<T>(call.y), t.mean = data_of<float>(call.mean), t.rstd = data_of<float>(call.rstd);
  t.rows = call.x.shape[0], t.width = call.x.shape[1];
  t.vectors = t.width % 8 == 0 && vectors_suit(t.x, t.gain, t.bias, t.y);
  return t;
}

unsigned forward_blocks(int64_t rows) { return static_cast<unsigned>(ceil_div(rows, kForwardWarps)); }

}  // namespace

template <>
void compute(const OpContext&, const LayerNormForward& call) {
  if (call.x.count() == 0) return;
  with_float_type(call.y.dtype, [&](auto element) {
    const auto t = forward_arguments<decltype(element)>(call, call.epsilon);
    if (t.width > kWidestForward) {
      wide_forward_kernel<<<forward_blocks(t.rows), kForwardWarps * kWarp, 0, current()>>>(t);
      return;
    }
    with_chunks(t.width, [&](auto chunks) {
      norm_forward_kernel<decltype(chunks)::value, false>
          <<<forward_blocks(t.rows), kForwardWarps * kWarp, 0, current()>>>(t, DropoutMask(Dropout()));
    });
  });
  check_launch(call.name());
}

template <>
void compute(const OpContext&, const LayerNormApply& call) {
  if (call.x.count() == 0) return;
  with_float_type(call.y.dtype, [&](auto element) {
    const auto t = forward_arguments<decltype(element)>(call, 0);
    apply_kernel<<<forward_blocks(t.rows), kForwardWarps * kWarp, 0, current()>>>(t);
  });
  check_launch(call.name());
}

void add_partial_sums(const float* partial, int64_t blocks, int64_t width, float* dgain, float* dbias) {
  sum_kernel<<<static_cast<unsigned>(ceil_div(2 * width, kSumColumns)), kSumColumns * kSumGroups, 0,
               current()>>>(partial, blocks, width, dgain, dbias);
}

template <>
void compute(const OpContext& context, const LayerNormBackward& call) {
  const int64_t rows = call.x.shape[0], width = call.x.shape[1];
  if (rows == 0 || width == 0) return;
  const int64_t blocks = backward_blocks(rows);
  Arena::Scope scope(*context.scratch);
  float* partial = data_of<float>(context.scratch->allocate(DType::f32, {blocks, 2, width}));
  if (context.scratch->is_measuring()) return;
  with_float_type(call.dy.dtype, [&](auto element) {
    using T = decltype(element);
    NormBackward<T> t{data_of<T>(call.dy),
                      data_of<float>(call.x),
                      data_of<float>(call.gain),
                      data_of<float>(call.mean),
                      data_of<float>(call.rstd),
                      data_of<float>(call.dx),
                      nullptr,
                      partial,
                      rows,
                      width,
                      false};
    t.vectors = width % 8 == 0 && vectors_suit(t.dy, t.x, t.gain, t.dx);
    const unsigned grid = static_cast<unsigned>(blocks);
    if (width > kWidestBackward) {
      const dim3 shares(grid, static_cast<unsigned>(ceil_div(width, kBackwardThreads)));
      wide_partial_kernel<<<shares, kBackwardThreads, 0, current()>>>(t, ceil_div(rows, blocks));
      wide_backward_kernel<<<forward_blocks(rows), kForwardWarps * kWarp, 0, current()>>>(t);
      return;
    }
    with_chunks(width, [&](auto chunks) {
      // The widest case never gets here; it would not fit into registers.
      constexpr int kChunks = std::min(decltype(chunks)::value, static_cast<int>(kWidestBackward / kChunk));
      norm_backward_kernel<kChunks, false>
          <<<grid, kBackwardThreads, 0, current()>>>(t, DropoutMask(Dropout()));
    });
  });
  add_partial_sums(partial, blocks, width, data_of<float>(call.dgain), data_of<float>(call.dbias));
  check_launch(call.name());
}

}  // namespace longstride::cuda
