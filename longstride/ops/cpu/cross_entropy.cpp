// Softmax cross-entropy by rows in f32, shifted by the row's maximum (contract:
// longstride/ops/cross_entropy.h). The same bits for any number of threads. No scratch.
#include "longstride/ops/cross_entropy.h"

#include <cmath>
#include <limits>

#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/cross_entropy.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

float row_maximum(const float* row, int64_t width) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float highest = -std::numeric_limits<float>::infinity();
  auto highest_lanes = hn::Set(d, highest);
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) highest_lanes = hn::Max(highest_lanes, hn::LoadU(d, row + i));
  for (; i < width; ++i) highest = row[i] > highest ? row[i] : highest;
  const float of_lanes = hn::GetLane(hn::MaxOfLanes(d, highest_lanes));
  return of_lanes > highest ? of_lanes : highest;
}

// The sum of exp(row - shift), each term also handed to keep(tag, i, term).
template <class Keep>
HWY_INLINE float sum_of_exponentials(const float* row, int64_t width, float shift, const Keep& keep) {
  const hn::ScalableTag<float> d;
  auto sum = hn::Zero(d);
  float rest = 0;
  for_each_vector(width, [&](auto tag, int64_t i) HWY_ATTR {
    const auto term = exponential(tag, hn::Sub(hn::LoadU(tag, row + i), hn::Set(tag, shift)));
    keep(tag, i, term);
    if constexpr (std::is_same_v<decltype(term), const hn::Vec<decltype(d)>>)
      sum = hn::Add(sum, term);
    else
      rest += hn::GetLane(term);
  });
  return hn::GetLane(hn::SumOfLanes(d, sum)) + rest;
}

float loss_of(float sum, float target, float maximum) { return std::log(sum) - (target - maximum); }

void losses(const float* logits, const uint8_t* targets, int64_t rows, int64_t width, float* loss) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = logits + r * width;
    const float maximum = row_maximum(row, width);
    const float sum = sum_of_exponentials(row, width, maximum, [](auto, int64_t, auto) HWY_ATTR {});
    loss[r] = loss_of(sum, row[targets[r]], maximum);
  }
}

void losses_and_gradients(const float* logits, const uint8_t* targets, int64_t rows, int64_t width,
                          float scale, float* loss, float* dlogits) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = logits + r * width;
    float* d_row = dlogits + r * width;
    const float maximum = row_maximum(row, width);
    const float target = row[targets[r]];  // read before d_row, which may be row, is written
    const float sum = sum_of_exponentials(
        row, width, maximum, [&](auto d, int64_t i, auto term) HWY_ATTR { hn::StoreU(term, d, d_row + i); });
    loss[r] = loss_of(sum, target, maximum);
    const float d_target = scale * (d_row[targets[r]] / sum - 1.0f);
    const float factor = scale / sum;
    for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, d_row + i), hn::Set(d, factor)), d, d_row + i);
    });
    d_row[targets[r]] = d_target;
  }
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(losses);
HWY_EXPORT(losses_and_gradients);

template <>
void compute(const OpContext& context, const CrossEntropyForward& t) {
  const int64_t width = t.logits.shape[1];
  parallel_rows(t.logits.shape[0], width, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(losses)
    (t.logits.as<float>() + begin * width, t.targets.as<uint8_t>() + begin, end - begin, width,
     t.loss.as<float>() + begin);
  });
}

template <>
void compute(const OpContext& context, const CrossEntropyBackward& t) {
  const int64_t width = t.logits.shape[1];
  parallel_rows(t.logits.shape[0], width, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(losses_and_gradients)
    (t.logits.as<float>() + begin * width, t.targets.as<uint8_t>() + begin, end - begin, width,
     t.times ? t.scale * *t.times.as<float>() : t.scale, t.loss.as<float>() + begin,
     t.dlogits.as<float>() + begin * width);
  });
}

}  // namespace longstride::cpu
#endif
