// The causal convolution (contract: longstride/ops/causal_convolution.h). The same bits for any number of
// threads: rows are independent, and dw is summed over fixed pieces of rows, then over the pieces in order.
// The backward goes through the rows of x. For each it reads the rows of dy to which that row contributed,
// so the gradient may overwrite the row. Scratch in the backward: the sums of each piece.
#include "longstride/ops/causal_convolution.h"

#include <algorithm>

#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/causal_convolution.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

// One row. rows[0] is the row itself, and rows[tap], for tap < count, are those before it, or after it.
template <class T>
HWY_INLINE void convolve(const T* const* rows, int64_t count, const float* w, int64_t width, T* y) {
  for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto own = load(d, rows[0] + i);
    auto sum = hn::MulAdd(hn::LoadU(d, w + i), own, own);
    for (int64_t tap = 1; tap < count; ++tap)
      sum = hn::MulAdd(hn::LoadU(d, w + tap * width + i), load(d, rows[tap] + i), sum);
    store(sum, d, y + i);
  });
}

// Adds to dw for one row of x and the rows of dy to which it contributed.
template <class T>
HWY_INLINE void add_products(const T* x, const T* const* dy, int64_t count, int64_t width, float* dw) {
  for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto own = load(d, x + i);
    for (int64_t tap = 0; tap < count; ++tap) {
      float* const sum = dw + tap * width + i;
      hn::StoreU(hn::MulAdd(own, load(d, dy[tap] + i), hn::LoadU(d, sum)), d, sum);
    }
  });
}

// Rows [begin, end).
void forward_rows(const Tensor& x, const Tensor& w, int64_t positions, const Tensor& y, int64_t begin,
                  int64_t end) {
  const int64_t width = x.shape[1];
  with_type(x.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t count = std::min(kConvolutionTaps, row % positions + 1);
      const T* rows[kConvolutionTaps];
      for (int64_t tap = 0; tap < count; ++tap) rows[tap] = x.as<T>() + (row - tap) * width;
      convolve<T>(rows, count, w.as<float>(), width, y.as<T>() + row * width);
    }
  });
}

void backward_rows(const Tensor& dy, const Tensor& w, int64_t positions, const Tensor& x, int64_t begin,
                   int64_t end, float* dw) {
  const int64_t width = x.shape[1];
  with_type(x.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t count = std::min(kConvolutionTaps, positions - row % positions);
      const T* rows[kConvolutionTaps];
      for (int64_t tap = 0; tap < count; ++tap) rows[tap] = dy.as<T>() + (row + tap) * width;
      T* const own = x.as<T>() + row * width;
      add_products<T>(own, rows, count, width, dw);
      convolve<T>(rows, count, w.as<float>(), width, own);
    }
  });
}

void rows_at(const Tensor& x, const Tensor& w, std::span<const int64_t> sequences,
             std::span<const int64_t> positions, const Tensor& recent, const Tensor& y, int64_t begin,
             int64_t end) {
  const int64_t width = x.shape[1];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t position = positions[row], count = std::min(kConvolutionTaps, position + 1);
    float* const kept = recent.as<float>() + sequences[row] * kConvolutionTaps * width;
    const float* rows[kConvolutionTaps];
    for (int64_t tap = 0; tap < count; ++tap) rows[tap] = kept + (position - tap) % kConvolutionTaps * width;
    std::copy_n(x.as<float>() + row * width, width, kept + position % kConvolutionTaps * width);
    convolve<float>(rows, count, w.as<float>(), width, y.as<float>() + row * width);
  }
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(forward_rows);
HWY_EXPORT(backward_rows);
HWY_EXPORT(rows_at);

template <>
void compute(const OpContext&, const CausalConvolutionForward& t) {
  parallel_rows(t.x.shape[0], t.x.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(forward_rows)(t.x, t.w, t.positions, t.y, begin, end);
  });
}

template <>
void compute(const OpContext& context, const CausalConvolutionBackward& t) {
  // Pieces that are summed separately: at least 32 rows each, at most 128 in number.
  const int64_t rows = t.x.shape[0], size = std::max<int64_t>(32, (rows + 127) / 128);
  const int64_t pieces = (rows + size - 1) / size, sums = kConvolutionTaps * t.x.shape[1];
  Arena::Scope scope(*context.scratch);
  const Tensor partial_sums = context.scratch->allocate(DType::f32, {pieces, sums});
  if (context.scratch->is_measuring()) return;
  float* const partial = partial_sums.as<float>();
  parallel_pieces(rows, size, [&](int64_t begin, int64_t end) {
    float* const piece = partial + begin / size * sums;
    std::fill_n(piece, sums, 0.0f);
    HWY_DYNAMIC_DISPATCH(backward_rows)(t.dy, t.w, t.positions, t.x, begin, end, piece);
  });
  float* const total = t.dw.as<float>();
  parallel_pieces(sums, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (int64_t piece = 0; piece < pieces; ++piece) sum += partial[piece * sums + i];
      total[i] = static_cast<float>(total[i] + sum);
    }
  });
}

template <>
void compute(const OpContext&, const CausalConvolutionAt& t) {
  parallel_rows(t.x.shape[0], t.x.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rows_at)(t.x, t.w, t.sequences, t.positions, t.recent, t.y, begin, end);
  });
}

}  // namespace longstride::cpu
#endif
