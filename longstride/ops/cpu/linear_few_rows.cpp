// Products of a few rows (contract: linear_few_rows.h). A thread owns neighbouring rows of the weight and
// takes kColumns of them at a time. While it multiplies these, the next ones are fetched, because the
// processor itself stops fetching ahead at the end of a page. An element of y is one sum in a fixed order.
// No scratch.
#include "longstride/ops/cpu/linear_few_rows.h"

#include <algorithm>

#include "longstride/base/threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/linear_few_rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

#ifndef LONGSTRIDE_OPS_CPU_LINEAR_FEW_ROWS_
#define LONGSTRIDE_OPS_CPU_LINEAR_FEW_ROWS_
namespace longstride::cpu {
namespace {

// A matrix whose rows are `row` elements apart.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t row = 0;
  T* operator[](int64_t i) const { return data + i * row; }
};

template <class T>
Rows<T> rows_of(const Tensor& t) {
  return {t.as<T>(), t.stride[0]};
}

template <class X, class W>
struct FewRows {
  Rows<X> x;
  Rows<W> w;
  Rows<float> y;
  const float *scales, *bias;  // may be null
  int64_t rows, width;         // of x
};

}  // namespace
}  // namespace longstride::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

// Rows of x and of w whose products are summed side by side in registers.
constexpr int kRows = 4;
constexpr ptrdiff_t kAhead = 4096;  // bytes
constexpr int kColumns = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM ? 4 : 2;

// sums[r][c] += x[r] * w[c], two vectors of each.
template <int kX, int kW, class D, class X, class W>
HWY_INLINE void accumulate_two(D d, const X* x, ptrdiff_t x_row, const W* w, ptrdiff_t w_row,
                               hn::Vec<D> (&sums)[kX][kW]) {
  hn::Vec<D> first[kW], second[kW];
#pragma GCC unroll 8
  for (int c = 0; c < kW; ++c) load_two(d, w + c * w_row, first[c], second[c]);
#pragma GCC unroll 8
  for (int r = 0; r < kX; ++r) {
    hn::Vec<D> left, right;
    load_two(d, x + r * x_row, left, right);
#pragma GCC unroll 8
    for (int c = 0; c < kW; ++c)
      sums[r][c] = hn::MulAdd(right, second[c], hn::MulAdd(left, first[c], sums[r][c]));
  }
}

// The same for one vector of each.
template <int kX, int kW, class D, class X, class W>
HWY_INLINE void accumulate(D d, const X* x, ptrdiff_t x_row, const W* w, ptrdiff_t w_row,
                           hn::Vec<D> (&sums)[kX][kW]) {
  hn::Vec<D> factors[kW];
#pragma GCC unroll 8
  for (int c = 0; c < kW; ++c) factors[c] = load_as_float(d, w + c * w_row);
#pragma GCC unroll 8
  for (int r = 0; r < kX; ++r) {
    const hn::Vec<D> left = load_as_float(d, x + r * x_row);
#pragma GCC unroll 8
    for (int c = 0; c < kW; ++c) sums[r][c] = hn::MulAdd(left, factors[c], sums[r][c]);
  }
}

// Rows [row, row + kX) of x times rows [column, column + kW) of w.
template <int kX, int kW, class X, class W>
HWY_NOINLINE void multiply_block(const FewRows<X, W>& p, int64_t row, int64_t column) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  constexpr ptrdiff_t kLanes = HWY_LANES(float), kLine = 64 / static_cast<int>(sizeof(W));
  constexpr ptrdiff_t kStep = HWY_MAX(kLine, 2 * kLanes);
  hn::Vec<decltype(d)> sums[kX][kW];
  hn::Vec<decltype(one)> rest[kX][kW];
#pragma GCC unroll 8
  for (int r = 0; r < kX; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kW; ++c) sums[r][c] = hn::Zero(d), rest[r][c] = hn::Zero(one);
  }
  const X* x = p.x[row];
  const W* w = p.w[column];
  const ptrdiff_t x_row = p.x.row, w_row = p.w.row, width = p.width;
  // The next rows, or later ones if these are too near to arrive in time.
  const ptrdiff_t size = HWY_MAX(kW * w_row, 1), least = kAhead / static_cast<int>(sizeof(W));
  const ptrdiff_t ahead = (least + size - 1) / size * size;
  ptrdiff_t i = 0;
  for (; i + kStep <= width; i += kStep) {
#pragma GCC unroll 8
    for (int c = 0; c < kW; ++c) {
#pragma GCC unroll 8
      for (ptrdiff_t j = i; j < i + kStep; j += kLine) __builtin_prefetch(w + c * w_row + j + ahead);
    }
#pragma GCC unroll 8
    for (ptrdiff_t j = i; j < i + kStep; j += 2 * kLanes) accumulate_two(d, x + j, x_row, w + j, w_row, sums);
  }
  for (; i + kLanes <= width; i += kLanes) accumulate(d, x + i, x_row, w + i, w_row, sums);
  for (; i < width; ++i) accumulate(one, x + i, x_row, w + i, w_row, rest);
#pragma GCC unroll 8
  for (int r = 0; r < kX; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kW; ++c) {
      float sum = hn::GetLane(hn::SumOfLanes(d, sums[r][c])) + hn::GetLane(rest[r][c]);
      if (p.scales) sum *= p.scales[column + c];
      if (p.bias) sum += p.bias[column + c];
      p.y[row + r][column + c] = sum;
    }
  }
}

template <int kW, class X, class W>
HWY_INLINE void multiply_rows(const FewRows<X, W>& p, int64_t column) {
  int64_t row = 0;
  for (; row + kRows <= p.rows; row += kRows) multiply_block<kRows, kW>(p, row, column);
  if (p.rows - row == 3) multiply_block<3, kW>(p, row, column);
  if (p.rows - row == 2) multiply_block<2, kW>(p, row, column);
  if (p.rows - row == 1) multiply_block<1, kW>(p, row, column);
}

// Columns [begin, end) of y.
template <class X, class W>
HWY_INLINE void multiply_columns(const FewRows<X, W>& p, int64_t begin, int64_t end) {
  for (; begin + kColumns <= end; begin += kColumns) multiply_rows<kColumns>(p, begin);
  for (; begin < end; ++begin) multiply_rows<1>(p, begin);
}

void multiply_f32(const FewRows<float, float>& p, int64_t begin, int64_t end) {
  multiply_columns(p, begin, end);
}
void multiply_bf16(const FewRows<Bf16, Bf16>& p, int64_t begin, int64_t end) {
  multiply_columns(p, begin, end);
}
void multiply_int8(const FewRows<float, int8_t>& p, int64_t begin, int64_t end) {
  multiply_columns(p, begin, end);
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(multiply_f32);
HWY_EXPORT(multiply_bf16);
HWY_EXPORT(multiply_int8);

namespace {

// Waking the other threads costs about as much as reading this many bytes.
constexpr int64_t kShareFrom = int64_t{32} << 10;

// Calls multiply(product, begin, end) on all threads, each with its own columns of y.
template <class X, class W, class Multiply>
void share_columns(const Tensor& x, const Tensor& w, const Tensor& scales, const Tensor& b, const Tensor& y,
                   const Multiply& multiply) {
  const FewRows<X, W> product{rows_of<X>(x),
                              rows_of<W>(w),
                              rows_of<float>(y),
                              scales ? scales.as<float>() : nullptr,
                              b ? b.as<float>() : nullptr,
                              x.shape[0],
                              x.shape[1]};
  // A multiple of any target's kColumns, so that few columns are multiplied alone.
  constexpr int64_t kStep = 8;
  const int64_t columns = w.shape[0], steps = (columns + kStep - 1) / kStep;
  const int64_t team = w.bytes() < kShareFrom ? 1 : std::min<int64_t>(threads(), steps);
  parallel_for(team, [&](int64_t part) {
    multiply(product, steps * part / team * kStep, std::min(columns, steps * (part + 1) / team * kStep));
  });
}

}  // namespace

void linear_few_rows(const Tensor& x, const Tensor& w, const Tensor& scales, const Tensor& b,
                     const Tensor& y) {
  if (w.dtype == DType::f32)
    share_columns<float, float>(x, w, scales, b, y, HWY_DYNAMIC_DISPATCH(multiply_f32));
  else if (w.dtype == DType::bf16)
    share_columns<Bf16, Bf16>(x, w, scales, b, y, HWY_DYNAMIC_DISPATCH(multiply_bf16));
  else
    share_columns<float, int8_t>(x, w, scales, b, y, HWY_DYNAMIC_DISPATCH(multiply_int8));
}

}  // namespace longstride::cpu
#endif
