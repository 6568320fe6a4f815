// The linear layer (contract: longstride/ops/linear.h): products by oneDNN with f32 accumulation, our own for
// the forward of a few rows, and our own sum of columns for db. The same bits for any number of threads.
// Scratch with bf16 products: contiguous bf16 copies of the f32 operands, or, on machines without bf16
// arithmetic, f32 copies of all operands rounded to bf16, whose products are then exact in f32 just as in
// bf16 hardware, and of a result that is bf16.
#include "longstride/ops/linear.h"

#include <array>
#include <atomic>

#include "longstride/ops/cpu/convert.h"
#include "longstride/ops/cpu/linear_few_rows.h"
#include "longstride/ops/cpu/matmul.h"
#include "longstride/ops/cpu/ops.h"
#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/linear.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

#ifndef LONGSTRIDE_OPS_CPU_LINEAR_TYPES
#define LONGSTRIDE_OPS_CPU_LINEAR_TYPES
namespace longstride::cpu {
constexpr int64_t kMostColumns = 2048;  // that are summed at a time; long runs of a row suit the memory
}
#endif

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

// sums[i] += values[i].
template <class T>
HWY_INLINE void add(const T* values, int64_t count, float* sums) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    store(hn::Add(load(d, sums + i), load(d, values + i)), d, sums + i);
  });
}

// db += sums of the columns [begin, end) of dy. Runs of rows are summed apart, which keeps long sums
// accurate.
void column_sums(const Tensor& dy, int64_t begin, int64_t end, float* db) {
  constexpr int64_t kRows = 128;
  const int64_t rows = dy.shape[0], stride = dy.stride[0];
  std::array<float, kMostColumns> total{};
  with_type(dy.dtype, [&](auto element) HWY_ATTR {
    const auto* from = dy.as<decltype(element)>() + begin;
    for (int64_t first = 0; first < rows; first += kRows) {
      std::array<float, kMostColumns> run{};
      for (int64_t row = first; row < std::min(rows, first + kRows); ++row)
        add(from + row * stride, end - begin, run.data());
      add(run.data(), end - begin, total.data());
    }
  });
  add(total.data(), end - begin, db + begin);
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(column_sums);

namespace {

std::atomic<bool> use_hardware{true};  // a test may say no

bool bf16_hardware() {
  if (!use_hardware || !cpu_has_bf16()) return false;
  static const bool has = !matmul_kernel(DType::bf16).empty();
  return has;
}

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// A matrix as the product wants it.
struct Operand {
  const void* data;
  int64_t row_stride;
};

// `t` itself for f32 products, else a copy in scratch: rounded to bf16 unless it is, in the format that is
// multiplied.
Operand operand(Arena* scratch, const Tensor& t, DType product) {
  const int64_t rows = t.shape[0], width = t.shape[1];
  const bool in_hardware = bf16_hardware();
  if (product == DType::f32 || (t.dtype == DType::bf16 && in_hardware)) return {t.data, t.stride[0]};
  if (in_hardware) {
    Bf16* copy = scratch->allocate(DType::bf16, {rows, width}).as<Bf16>();
    round_rows(t.as<float>(), t.stride[0], rows, width, copy, width);
    return {copy, width};
  }
  float* copy = scratch->allocate(DType::f32, {rows, width}).as<float>();
  if (t.dtype == DType::bf16)
    widen_rows(t.as<Bf16>(), t.stride[0], rows, width, copy, width);
  else
    round_rows(t.as<float>(), t.stride[0], rows, width, copy, width);
  return {copy, width};
}

DType multiplied(DType product) { return bf16_hardware() ? product : DType::f32; }

// Gives scratch back at the end of a call, if the context has any.
class ScratchScope {
 public:
  explicit ScratchScope(Arena* scratch) : scratch_(scratch), mark_(scratch ? scratch->used() : 0) {}
  ~ScratchScope() {
    if (scratch_) scratch_->release_to(mark_);
  }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Arena* scratch_;
  int64_t mark_;
};

// t = a b [+ bias], for a shape that lacks the dtype and stride of t: straight into t, or, if this machine
// cannot write bf16, through a copy in scratch.
void multiply_into(Arena* scratch, MatmulShape shape, const void* a, const void* b, const float* bias,
                   const Tensor& t) {
  if (t.dtype == DType::f32 || bf16_hardware()) {
    shape.c_dtype = t.dtype;
    shape.c_row = t.stride[0];
    matmul(shape, a, b, bias, t.data);
    return;
  }
  const int64_t rows = t.shape[0], width = t.shape[1];
  float* copy = scratch->allocate(DType::f32, {rows, width}).as<float>();
  shape.c_row = width;
  matmul(shape, a, b, bias, copy);
  round_rows(copy, width, rows, width, t.as<Bf16>(), t.stride[0]);
}

}  // namespace

void use_bf16_hardware(bool use) { use_hardware = use; }
bool linear_has_bf16() { return bf16_hardware(); }

int64_t linear_scratch_bytes(int64_t rows, int64_t in, int64_t out, DType product, DType stored) {
  if (product == DType::f32 || (stored == DType::bf16 && bf16_hardware())) return 0;
  if (bf16_hardware()) return aligned(rows * in * 2) + aligned(rows * out * 2);
  return aligned(rows * in * 4) + aligned(rows * out * 4) + aligned(in * out * 4);
}

void linear_each_row(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
                     const Tensor& y) {
  if (w.dtype == DType::f32) return linear_few_rows(x, w, {}, b, y);
  const ScratchScope scope(context.scratch);
  const Tensor rounded = context.scratch->allocate(DType::bf16, {x.shape[0], x.shape[1]});
  round_rows(x.as<float>(), x.stride[0], x.shape[0], x.shape[1], rounded.as<Bf16>(), x.shape[1]);
  linear_few_rows(rounded, w, {}, b, y);
}

void linear_forward(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
                    const Tensor& y) {
  const ScratchScope scope(context.scratch);
  // Of few rows the weight is better read once than multiplied fast.
  if (x.shape[0] <= kFewRows && x.dtype == DType::f32 && y.dtype == DType::f32)
    return cpu::linear_each_row(context, x, w, b, y);
  const Operand from = operand(context.scratch, x, w.dtype), weight = operand(context.scratch, w, w.dtype);
  MatmulShape shape;
  shape.dtype = multiplied(w.dtype);
  shape.m = x.shape[0], shape.n = w.shape[0], shape.k = w.shape[1];
  shape.a_row = from.row_stride;
  shape.b_row = 1, shape.b_column = weight.row_stride;
  shape.bias = static_cast<bool>(b);
  multiply_into(context.scratch, shape, from.data, weight.data, b ? b.as<float>() : nullptr, y);
}

void linear_backward_input(const OpContext& context, const Tensor& dy, const Tensor& w, const Tensor& dx) {
  const ScratchScope scope(context.scratch);
  const Operand d_out = operand(context.scratch, dy, w.dtype), weight = operand(context.scratch, w, w.dtype);
  MatmulShape shape;
  shape.dtype = multiplied(w.dtype);
  shape.m = dy.shape[0], shape.n = w.shape[1], shape.k = w.shape[0];
  shape.a_row = d_out.row_stride;
  shape.b_row = weight.row_stride;
  multiply_into(context.scratch, shape, d_out.data, weight.data, nullptr, dx);
}

void linear_backward_weight(const OpContext& context, const Tensor& dy, const Tensor& x, DType product,
                            const Tensor& dw, const Tensor& db) {
  const ScratchScope scope(context.scratch);
  const Operand d_out = operand(context.scratch, dy, product), from = operand(context.scratch, x, product);
  MatmulShape shape;
  shape.dtype = multiplied(product);
  shape.m = dy.shape[1], shape.n = x.shape[1], shape.k = dy.shape[0];
  shape.a_row = 1, shape.a_column = d_out.row_stride;
  shape.b_row = from.row_stride;
  shape.accumulate = true;
  multiply_into(context.scratch, shape, d_out.data, from.data, nullptr, dw);
  if (!db) return;
  // A thread owns columns.
  parallel_pieces(dy.shape[1], columns_per_thread(dy.shape[1], kMostColumns),
                  [&](int64_t begin, int64_t end) {
                    HWY_DYNAMIC_DISPATCH(column_sums)(dy, begin, end, db.as<float>());
                  });
}

}  // namespace longstride::cpu
#endif
