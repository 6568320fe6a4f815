// Softmax cross-entropy, a warp a row in f32, shifted by the row's maximum (contract:
// longstride/ops/cross_entropy.h). Rows of up to 256 classes stay in registers; wider ones are read again. A
// target beyond the classes gives NaN. No scratch.
#include "longstride/ops/cross_entropy.h"
#include "longstride/ops/cuda/eights.cuh"

namespace longstride::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int64_t kMostInRegisters = 8 * kWarp;

struct Rows {
  const float* logits;
  const uint8_t* targets;
  int64_t rows, width;
  bool vectors;
  float* loss;
  float* dlogits;      // null: the loss alone; may be logits
  float scale;         // of dlogits,
  const float* times;  // times this, if not null
};

__device__ inline float loss_of(float sum, float target, float maximum) {
  return __fsub_rn(logf(sum), __fsub_rn(target, maximum));
}

__device__ inline float exponential(float x, float maximum) { return expf(__fsub_rn(x, maximum)); }

__device__ inline float not_a_number() { return __int_as_float(0x7fffffff); }

__device__ inline float gradient_scale(const Rows& t) {
  return t.times ? __fmul_rn(t.scale, *t.times) : t.scale;
}

// The lane that holds column `target`, one of eight each, gives it to all; NaN if there is none.
__device__ inline float target_of(const Eight& x, int target, int64_t width) {
  float mine = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j)
    if (target % 8 == j) mine = x.v[j];
  const float value = __shfl_sync(0xffffffffu, mine, target / 8);
  return target < width ? value : not_a_number();
}

__global__ void __launch_bounds__(kWarps* kWarp) narrow_kernel(Rows t) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (row >= t.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, column = 8 * lane;
  const int n = of_eight(column, t.width);
  const int target = t.targets[row];
  Eight x = read8(t.logits + row * t.width + column, n, t.vectors, -INFINITY);
  float maximum = x.v[0];
#pragma unroll
  for (int j = 1; j < 8; ++j) maximum = fmaxf(maximum, x.v[j]);
  maximum = warp_max(maximum);
  const float of_target = target_of(x, target, t.width);
  float sum = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    x.v[j] = j < n ? exponential(x.v[j], maximum) : 0.0f;
    sum = __fadd_rn(sum, x.v[j]);
  }
  sum = warp_sum(sum);
  if (lane == 0) t.loss[row] = loss_of(sum, of_target, maximum);
  if (t.dlogits == nullptr) return;
  const float scale = gradient_scale(t), factor = __fdiv_rn(scale, sum);
#pragma unroll
  for (int j = 0; j < 8; ++j)
    x.v[j] = column + j == target ? __fmul_rn(scale, __fsub_rn(__fdiv_rn(x.v[j], sum), 1.0f))
                                  : __fmul_rn(x.v[j], factor);
  write8(t.dlogits + row * t.width + column, x, n, t.vectors);
}

__global__ void __launch_bounds__(kWarps* kWarp) wide_kernel(Rows t) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (row >= t.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, target = t.targets[row];
  const float* x = t.logits + row * t.width;
  float maximum = -INFINITY, sum = 0;
  for (int64_t i = lane; i < t.width; i += kWarp) maximum = fmaxf(maximum, x[i]);
  maximum = warp_max(maximum);
  const float of_target = x[target];  // a byte is below the width; read before dlogits is written
  for (int64_t i = lane; i < t.width; i += kWarp) sum = __fadd_rn(sum, exponential(x[i], maximum));
  sum = warp_sum(sum);
  if (lane == 0) t.loss[row] = loss_of(sum, of_target, maximum);
  if (t.dlogits == nullptr) return;
  const float scale = gradient_scale(t), factor = __fdiv_rn(scale, sum);
  for (int64_t i = lane; i < t.width; i += kWarp) {
    const float term = exponential(x[i], maximum);
    t.dlogits[row * t.width + i] =
        i == target ? __fmul_rn(scale, __fsub_rn(__fdiv_rn(term, sum), 1.0f)) : __fmul_rn(term, factor);
  }
}

void launch(const Rows& t, const char* name) {
  if (t.rows == 0 || t.width == 0) return;
  const unsigned blocks = static_cast<unsigned>(ceil_div(t.rows, kWarps));
  if (t.width <= kMostInRegisters)
    narrow_kernel<<<blocks, kWarps * kWarp, 0, current()>>>(t);
  else
    wide_kernel<<<blocks, kWarps * kWarp, 0, current()>>>(t);
  check_launch(name);
}

Rows rows_of(const Tensor& logits, const Tensor& targets, const Tensor& loss) {
  Rows t{};
  t.logits = data_of<float>(logits), t.targets = data_of<uint8_t>(targets), t.loss = data_of<float>(loss);
  t.rows = logits.shape[0], t.width = logits.shape[1];
  t.vectors = eights(t.logits, t.width);
  return t;
}

}  // namespace

template <>
void compute(const OpContext&, const CrossEntropyForward& t) {
  launch(rows_of(t.logits, t.targets, t.loss), t.name());
}

template <>
void compute(const OpContext&, const CrossEntropyBackward& t) {
  Rows rows = rows_of(t.logits, t.targets, t.loss);
  rows.dlogits = data_of<float>(t.dlogits), rows.scale = t.scale, rows.times = data_of<float>(t.times);
  rows.vectors = rows.vectors && vectors_suit(rows.dlogits);
  launch(rows, t.name());
}

}  // namespace longstride::cuda
