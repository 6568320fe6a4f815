// Layer normalisation by rows (contract: longstride/ops/layer_norm.h). Computed in f32 whatever y and dy
// hold. The mean is corrected in the pass that sums the squares, so that rows with a large mean lose no
// accuracy. The same bits for any number of threads: rows are independent, and dgain and dbias are summed
// over fixed pieces of rows, then over the pieces in order. Scratch in the backward: two rows of d for each
// piece.
#include "longstride/ops/layer_norm.h"

#include <cmath>

#include "longstride/ops/cpu/parallel.h"
#include "longstride/ops/cpu/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/layer_norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

// Two sums over [0, count) at once: add(tag, i, first, second) adds the terms at i to both.
struct Sums {
  float first = 0, second = 0;
};
template <class Add>
HWY_INLINE Sums sum_over(int64_t count, const Add& add) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto first0 = hn::Zero(d), first1 = hn::Zero(d), second0 = hn::Zero(d), second1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    add(d, i, first0, second0);
    add(d, i + lanes, first1, second1);
  }
  if (i + lanes <= count) {
    add(d, i, first0, second0);
    i += lanes;
  }
  auto first_rest = hn::Zero(one), second_rest = hn::Zero(one);
  for (; i < count; ++i) add(one, i, first_rest, second_rest);
  return {hn::GetLane(hn::SumOfLanes(d, hn::Add(first0, first1))) + hn::GetLane(first_rest),
          hn::GetLane(hn::SumOfLanes(d, hn::Add(second0, second1))) + hn::GetLane(second_rest)};
}

// Never inlined, so that forward and apply run the very same instructions.
template <class T>
HWY_NOINLINE void normalise(const float* x, const float* gain, const float* bias, float mean, float rstd,
                            int64_t width, T* y) {
  for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto centred = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean));
    const auto scaled = hn::Mul(centred, hn::Set(d, rstd));
    store(hn::MulAdd(scaled, hn::LoadU(d, gain + i), hn::LoadU(d, bias + i)), d, y + i);
  });
}

void measure(const float* x, int64_t width, float epsilon, float* mean, float* rstd) {
  const float inverse_width = 1.0f / static_cast<float>(width);
  const float first_mean = inverse_width * sum_over(width, [&](auto d, int64_t i, auto& sum, auto&) HWY_ATTR {
                                             sum = hn::Add(sum, hn::LoadU(d, x + i));
                                           }).first;
  const Sums rest = sum_over(width, [&](auto d, int64_t i, auto& sum, auto& squares) HWY_ATTR {
    const auto centred = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, first_mean));
    sum = hn::Add(sum, centred);
    squares = hn::MulAdd(centred, centred, squares);
  });
  const float correction = rest.first * inverse_width;
  // Only rounding could make the difference of squares negative. NaN must pass.
  const float variance = rest.second * inverse_width - correction * correction;
  *mean = first_mean + correction;
  *rstd = 1.0f / std::sqrt((variance < 0 ? 0 : variance) + epsilon);
}

void normalise_rows(const LayerNormForward& t, int64_t begin, int64_t end) {
  const int64_t width = t.x.shape[1];
  const float *x = t.x.as<float>(), *gain = t.gain.as<float>(), *bias = t.bias.as<float>();
  float *mean = t.mean.as<float>(), *rstd = t.rstd.as<float>();
  with_type(t.y.dtype, [&](auto element) HWY_ATTR {
    auto* y = t.y.as<decltype(element)>();
    for (int64_t row = begin; row < end; ++row) {
      measure(x + row * width, width, t.epsilon, mean + row, rstd + row);
      normalise(x + row * width, gain, bias, mean[row], rstd[row], width, y + row * width);
    }
  });
}

void apply_rows(const LayerNormApply& t, int64_t begin, int64_t end) {
  const int64_t width = t.x.shape[1];
  const float *x = t.x.as<float>(), *gain = t.gain.as<float>(), *bias = t.bias.as<float>();
  const float *mean = t.mean.as<float>(), *rstd = t.rstd.as<float>();
  with_type(t.y.dtype, [&](auto element) HWY_ATTR {
    auto* y = t.y.as<decltype(element)>();
    for (int64_t row = begin; row < end; ++row)
      normalise(x + row * width, gain, bias, mean[row], rstd[row], width, y + row * width);
  });
}

// dx += rstd (g - mean(g) - xhat mean(g xhat)) with g = dy gain and xhat = (x - mean) rstd; dgain += dy xhat;
// dbias += dy.
template <class T>
HWY_INLINE void differentiate(const T* dy, const float* x, const float* gain, float mean, float rstd,
                              int64_t width, float* dx, float* dgain, float* dbias) {
  const float inverse_width = 1.0f / static_cast<float>(width);
  const auto normalised = [&](auto d, int64_t i) HWY_ATTR {
    return hn::Mul(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean)), hn::Set(d, rstd));
  };
  const Sums sums = sum_over(width, [&](auto d, int64_t i, auto& sum, auto& products) HWY_ATTR {
    const auto g = hn::Mul(load(d, dy + i), hn::LoadU(d, gain + i));
    sum = hn::Add(sum, g);
    products = hn::MulAdd(g, normalised(d, i), products);
  });
  const float mean_g = sums.first * inverse_width, mean_product = sums.second * inverse_width;
  for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto d_out = load(d, dy + i);
    const auto xhat = normalised(d, i);
    const auto g = hn::Mul(d_out, hn::LoadU(d, gain + i));
    const auto inner = hn::NegMulAdd(xhat, hn::Set(d, mean_product), hn::Sub(g, hn::Set(d, mean_g)));
    hn::StoreU(hn::MulAdd(inner, hn::Set(d, rstd), hn::LoadU(d, dx + i)), d, dx + i);
    hn::StoreU(hn::MulAdd(d_out, xhat, hn::LoadU(d, dgain + i)), d, dgain + i);
    hn::StoreU(hn::Add(d_out, hn::LoadU(d, dbias + i)), d, dbias + i);
  });
}

// Adds to a piece's own sums of dgain and dbias, not to the tensors of `t`.
void backward_rows(const LayerNormBackward& t, int64_t begin, int64_t end, float* dgain, float* dbias) {
  const int64_t width = t.x.shape[1];
  const float *x = t.x.as<float>(), *gain = t.gain.as<float>();
  const float *mean = t.mean.as<float>(), *rstd = t.rstd.as<float>();
  float* dx = t.dx.as<float>();
  with_type(t.dy.dtype, [&](auto element) HWY_ATTR {
    const auto* dy = t.dy.as<decltype(element)>();
    for (int64_t row = begin; row < end; ++row)
      differentiate(dy + row * width, x + row * width, gain, mean[row], rstd[row], width, dx + row * width,
                    dgain, dbias);
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(normalise_rows);
HWY_EXPORT(apply_rows);
HWY_EXPORT(backward_rows);

void normalise_rows(const LayerNormForward& t, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(normalise_rows)(t, begin, end);
}

template <>
void compute(const OpContext& context, const LayerNormForward& t) {
  parallel_rows(t.x.shape[0], t.x.shape[1],
                [&](int64_t begin, int64_t end) { normalise_rows(t, begin, end); });
}

template <>
void compute(const OpContext& context, const LayerNormApply& t) {
  parallel_rows(t.x.shape[0], t.x.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(apply_rows)(t, begin, end);
  });
}

namespace {
// Pieces that the backward sums separately: at least 32 rows each, at most 128 in number, of whole runs.
int64_t rows_per_piece(int64_t rows) {
  const int64_t least = std::max<int64_t>(32, (rows + 127) / 128);
  return (least + kRunRows - 1) / kRunRows * kRunRows;
}
int64_t piece_count(int64_t rows) { return (rows + rows_per_piece(rows) - 1) / rows_per_piece(rows); }
}  // namespace

void layer_norm_backward(const OpContext& context, const LayerNormBackward& t, const RowsDone& done) {
  const int64_t rows = t.x.shape[0], width = t.x.shape[1], pieces = piece_count(rows),
                size = rows_per_piece(rows);
  Arena::Scope scope(*context.scratch);
  float* partial = context.scratch->allocate(DType::f32, {pieces, 2, width}).as<float>();
  if (context.scratch->is_measuring()) return;
  parallel_pieces(rows, size, [&](int64_t begin, int64_t end) {
    float* d_gain = partial + begin / size * 2 * width;
    std::fill_n(d_gain, 2 * width, 0.0f);
    for (int64_t first = begin; first < end; first += kRunRows) {
      const int64_t last = std::min(end, first + kRunRows);
      HWY_DYNAMIC_DISPATCH(backward_rows)(t, first, last, d_gain, d_gain + width);
      if (done) done(first, last);
    }
  });
  float *d_gain = t.dgain.as<float>(), *d_bias = t.dbias.as<float>();
  for (int64_t column = 0; column < width; ++column) {
    double gain_sum = 0, bias_sum = 0;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      gain_sum += partial[piece * 2 * width + column];
      bias_sum += partial[piece * 2 * width + width + column];
    }
    d_gain[column] = static_cast<float>(d_gain[column] + gain_sum);
    d_bias[column] = static_cast<float>(d_bias[column] + bias_sum);
  }
}

template <>
void compute(const OpContext& context, const LayerNormBackward& t) {
  layer_norm_backward(context, t, {});
}

}  // namespace longstride::cpu
#endif
