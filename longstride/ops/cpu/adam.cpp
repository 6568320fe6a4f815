// Adam in one pass, and the sum of squares that clipping needs (contract: longstride/ops/adam.h). The same
// bits for any number of threads. No scratch.
#include "longstride/ops/adam.h"

#include <array>
#include <cmath>

#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/adam.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

#ifndef LONGSTRIDE_OPS_CPU_ADAM_TYPES
#define LONGSTRIDE_OPS_CPU_ADAM_TYPES
namespace longstride::cpu {

// The step's numbers as the loop wants them, computed in double.
struct AdamFactors {
  float gradient_scale, beta1, rest1, beta2, rest2;
  float step_size;       // rate / (1 - b1^t)
  float root_scale;      // 1 / sqrt(1 - b2^t)
  float epsilon, decay;  // decay is rate * decay
  float ema_rest;        // 1 - ema
};

struct AdamPointers {
  float* w;
  const float* g;
  float *m, *v;
  float* average;  // or null
  Bf16* compute;   // or null
};

}  // namespace longstride::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

void adam(const AdamFactors& f, const AdamPointers& p, int64_t begin, int64_t end) {
  for_each_vector(end - begin, [&](auto d, int64_t offset) HWY_ATTR {
    const int64_t i = begin + offset;
    const auto g = hn::Mul(hn::LoadU(d, p.g + i), hn::Set(d, f.gradient_scale));
    const auto m = hn::MulAdd(hn::Set(d, f.beta1), hn::LoadU(d, p.m + i), hn::Mul(hn::Set(d, f.rest1), g));
    const auto v =
        hn::MulAdd(hn::Set(d, f.beta2), hn::LoadU(d, p.v + i), hn::Mul(hn::Set(d, f.rest2), hn::Mul(g, g)));
    hn::StoreU(m, d, p.m + i);
    hn::StoreU(v, d, p.v + i);
    const auto root = hn::MulAdd(hn::Sqrt(v), hn::Set(d, f.root_scale), hn::Set(d, f.epsilon));
    auto w = hn::LoadU(d, p.w + i);
    w = hn::NegMulAdd(hn::Set(d, f.step_size), hn::Div(m, root), hn::NegMulAdd(hn::Set(d, f.decay), w, w));
    hn::StoreU(w, d, p.w + i);
    if (p.average) {
      const auto e = hn::LoadU(d, p.average + i);
      hn::StoreU(hn::MulAdd(hn::Set(d, f.ema_rest), hn::Sub(w, e), e), d, p.average + i);
    }
    if (p.compute) store(w, d, p.compute + i);
  });
}

double squares(const float* x, int64_t count) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const auto a = hn::PromoteTo(d, hn::LoadU(df, x + i));
    const auto b = hn::PromoteTo(d, hn::LoadU(df, x + i + lanes));
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  double rest = 0;
  for (; i < count; ++i) rest += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1))) + rest;
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(adam);
HWY_EXPORT(squares);

template <>
void compute(const OpContext& context, const AdamUpdate& t) {
  const AdamStep& step = t.step;
  const double steps = static_cast<double>(step.step);
  AdamFactors f;
  f.gradient_scale = static_cast<float>(step.gradient_scale);
  f.beta1 = static_cast<float>(step.beta1);
  f.rest1 = static_cast<float>(1 - step.beta1);
  f.beta2 = static_cast<float>(step.beta2);
  f.rest2 = static_cast<float>(1 - step.beta2);
  f.step_size = static_cast<float>(step.rate / (1 - std::pow(step.beta1, steps)));
  f.root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(step.beta2, steps)));
  f.epsilon = static_cast<float>(step.epsilon);
  f.decay = static_cast<float>(step.rate * step.decay);
  f.ema_rest = static_cast<float>(1 - step.ema);
  AdamPointers p{t.w.as<float>(), t.g.as<float>(), t.m.as<float>(), t.v.as<float>(), nullptr, nullptr};
  if (t.average) p.average = t.average.as<float>();
  if (t.compute) p.compute = t.compute.as<Bf16>();
  parallel_pieces(t.w.count(), kElementsPerPiece, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adam)(f, p, begin, end);
  });
}

template <>
void compute(const OpContext& context, const SumOfSquares& t) {
  // At most 256 pieces, whatever the size and the number of threads, summed in order.
  std::array<double, 256> partial{};
  const int64_t count = t.x.count();
  const int64_t size = std::max(kElementsPerPiece, (count + 255) / 256);
  const float* from = t.x.as<float>();
  parallel_pieces(count, size, [&](int64_t begin, int64_t end) {
    partial[static_cast<size_t>(begin / size)] = HWY_DYNAMIC_DISPATCH(squares)(from + begin, end - begin);
  });
  double sum = 0;
  for (double value : partial) sum += value;
  *t.sum = sum;
}

}  // namespace longstride::cpu
#endif
