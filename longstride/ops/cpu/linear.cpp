// The linear layer (contract: longstride/ops/linear.h). Products with f32 accumulation come from oneDNN,
// except for the forward of a few rows, and the sum of columns for db is our own. The same bits for any
// number of threads. Scratch with bf16 products: contiguous bf16 copies of the f32 operands. On machines
// without bf16 arithmetic it is f32 copies of all operands, rounded to bf16, and of a result that is bf16;
// products of such values are exact in f32, as they are in bf16 hardware.
#include "longstride/ops/linear.h"

#include <array>
#include <atomic>

#include "longstride/ops/cpu/bf16_products.h"
#include "longstride/ops/cpu/convert.h"
#include "longstride/ops/cpu/linear_few_rows.h"
#include "longstride/ops/cpu/matmul.h"
#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/linear.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

#ifndef LONGSTRIDE_OPS_CPU_LINEAR_TYPES
#define LONGSTRIDE_OPS_CPU_LINEAR_TYPES
namespace longstride::cpu {
constexpr int64_t kMostColumns = 2048;  // summed at a time; memory is fast with long runs of a row
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

// db += sums of the columns [begin, end) of dy. Runs of rows are summed separately, which keeps long sums
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

std::atomic<bool> use_hardware{true};  // a test may switch it off

bool bf16_hardware() {
  if (!use_hardware || !cpu_has_bf16()) return false;
  static const bool has = !matmul_kernel(DType::bf16).empty();
  return has;
}

DType multiplied(DType product) { return bf16_hardware() ? product : DType::f32; }

// A matrix in the form that the product needs.
struct Operand {
  const void* data;
  int64_t row_stride;
};

// The scratch of a call, given back at its end. Products of f32 need none, and then the context may have
// none.
class Scratch {
 public:
  explicit Scratch(Arena* arena) : arena_(arena), mark_(arena ? arena->used() : 0) {}
  ~Scratch() {
    if (arena_) arena_->release_to(mark_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  bool measures() const { return arena_ != nullptr && arena_->is_measuring(); }
  Tensor copy_of(const Tensor& t, DType dtype) const {
    return arena_->allocate(dtype, {t.shape[0], t.shape[1]});
  }

  // `t` itself for f32 products. Otherwise a copy in the format that is multiplied, rounded to bf16 if `t`
  // is not bf16.
  Operand operand(const Tensor& t, DType product) const {
    const int64_t rows = t.shape[0], width = t.shape[1];
    const bool in_hardware = bf16_hardware();
    if (product == DType::f32 || (t.dtype == DType::bf16 && in_hardware)) return {t.data, t.stride[0]};
    const Tensor copy = copy_of(t, multiplied(product));
    if (measures()) return {nullptr, width};
    if (in_hardware)
      round_rows(t.as<float>(), t.stride[0], rows, width, copy.as<Bf16>(), width);
    else if (t.dtype == DType::bf16)
      widen_rows(t.as<Bf16>(), t.stride[0], rows, width, copy.as<float>(), width);
    else
      round_rows(t.as<float>(), t.stride[0], rows, width, copy.as<float>(), width);
    return {copy.data, width};
  }

  // t = a b [+ bias], for a shape whose result dtype and stride are not set yet. Writes straight into t or,
  // if this machine cannot write bf16, through a copy.
  void multiply_into(MatmulShape shape, const Operand& a, const Operand& b, const float* bias,
                     const Tensor& t) const {
    const bool straight = t.dtype == DType::f32 || bf16_hardware();
    const Tensor c = straight ? t : copy_of(t, DType::f32);
    if (measures()) return;
    shape.c_dtype = c.dtype;
    shape.c_row = c.stride[0];
    matmul(shape, a.data, b.data, bias, c.data);
    if (!straight) round_rows(c.as<float>(), c.stride[0], t.shape[0], t.shape[1], t.as<Bf16>(), t.stride[0]);
  }

 private:
  Arena* arena_;
  int64_t mark_;
};

}  // namespace

void use_bf16_hardware(bool use) { use_hardware = use; }
bool multiplies_bf16() { return bf16_hardware(); }

template <>
void compute(const OpContext& context, const LinearEachRow& t) {
  const Scratch scratch(context.scratch);
  const bool rounds = t.w.dtype != DType::f32;
  const Tensor x = rounds ? scratch.copy_of(t.x, DType::bf16) : t.x;
  if (scratch.measures()) return;
  if (rounds)
    round_rows(t.x.as<float>(), t.x.stride[0], t.x.shape[0], t.x.shape[1], x.as<Bf16>(), x.stride[0]);
  linear_few_rows(x, t.w, {}, t.b, t.y);
}

template <>
void compute(const OpContext& context, const LinearForward& t) {
  // With few rows it is better to read the weight once than to multiply fast.
  if (t.x.shape[0] <= kFewRows && t.x.dtype == DType::f32 && t.y.dtype == DType::f32)
    return compute(context, LinearEachRow{t.x, t.w, t.b, t.y});
  const Scratch scratch(context.scratch);
  const Operand from = scratch.operand(t.x, t.w.dtype), weight = scratch.operand(t.w, t.w.dtype);
  MatmulShape shape;
  shape.dtype = multiplied(t.w.dtype);
  shape.m = t.x.shape[0], shape.n = t.w.shape[0], shape.k = t.w.shape[1];
  shape.a_row = from.row_stride;
  shape.b_row = 1, shape.b_column = weight.row_stride;
  shape.bias = static_cast<bool>(t.b);
  scratch.multiply_into(shape, from, weight, t.b ? t.b.as<float>() : nullptr, t.y);
}

template <>
void compute(const OpContext& context, const LinearBackwardInput& t) {
  const Scratch scratch(context.scratch);
  const Operand d_out = scratch.operand(t.dy, t.w.dtype), weight = scratch.operand(t.w, t.w.dtype);
  MatmulShape shape;
  shape.dtype = multiplied(t.w.dtype);
  shape.m = t.dy.shape[0], shape.n = t.w.shape[1], shape.k = t.w.shape[0];
  shape.a_row = d_out.row_stride;
  shape.b_row = weight.row_stride;
  scratch.multiply_into(shape, d_out, weight, nullptr, t.dx);
}

template <>
void compute(const OpContext& context, const LinearBackwardWeight& t) {
  const Scratch scratch(context.scratch);
  const Operand d_out = scratch.operand(t.dy, t.product), from = scratch.operand(t.x, t.product);
  MatmulShape shape;
  shape.dtype = multiplied(t.product);
  shape.m = t.dy.shape[1], shape.n = t.x.shape[1], shape.k = t.dy.shape[0];
  shape.a_row = 1, shape.a_column = d_out.row_stride;
  shape.b_row = from.row_stride;
  shape.accumulate = true;
  scratch.multiply_into(shape, d_out, from, nullptr, t.dw);
  if (!t.db || scratch.measures()) return;
  // Each thread owns columns.
  parallel_pieces(t.dy.shape[1], columns_per_thread(t.dy.shape[1], kMostColumns),
                  [&](int64_t begin, int64_t end) {
                    HWY_DYNAMIC_DISPATCH(column_sums)(t.dy, begin, end, t.db.as<float>());
                  });
}

}  // namespace longstride::cpu
#endif
