#include "longstride/report/thin_curve.h"

#include <algorithm>
#include <cmath>

namespace longstride {

void ThinCurve::add(int64_t step, double value) {
  ++count_;
  if (stretches_.empty() || stretches_.back().index != step / length_) {
    stretches_.push_back({.index = step / length_});
    while (std::ssize(stretches_) > kMostStretches) halve();
  }
  Stretch& stretch = stretches_.back();
  if (!std::isfinite(value)) {
    if (not_finite_++ == 0) first_not_finite_ = step;
    stretch.gap = true;
    return;
  }
  if (stretch.low.step < 0 || value < stretch.low.value) stretch.low = {step, value};
  if (stretch.high.step < 0 || value > stretch.high.value) stretch.high = {step, value};
  if (first_.step < 0) first_ = {step, value};
  last_ = {step, value};
  if (value < lowest_.value) lowest_ = {step, value};
}

void ThinCurve::halve() {
  length_ *= 2;
  std::vector<Stretch> merged;
  for (const Stretch& half : stretches_) {
    if (merged.empty() || merged.back().index != half.index / 2) {
      merged.push_back(half);
      merged.back().index = half.index / 2;
      continue;
    }
    Stretch& whole = merged.back();
    whole.gap |= half.gap;
    if (half.low.step < 0) continue;
    if (whole.low.step < 0 || half.low.value < whole.low.value) whole.low = half.low;
    if (whole.high.step < 0 || half.high.value > whole.high.value) whole.high = half.high;
  }
  stretches_ = std::move(merged);
}

std::vector<CurveSample> ThinCurve::samples() const {
  std::vector<CurveSample> samples;
  const auto push = [&](const CurveSample& sample) {
    if (samples.empty() || samples.back().step < sample.step) samples.push_back(sample);
  };
  push(first_);
  if (first_.step < 0) samples.clear();
  for (const Stretch& stretch : stretches_) {
    if (stretch.low.step >= 0) {
      push(stretch.low.step < stretch.high.step ? stretch.low : stretch.high);
      push(stretch.low.step < stretch.high.step ? stretch.high : stretch.low);
    }
    if (stretch.gap)
      samples.push_back({samples.empty() ? stretch.index * length_ : samples.back().step,
                         std::numeric_limits<double>::quiet_NaN()});
  }
  if (last_.step >= 0) push(last_);
  return samples;
}

void ThinClock::add(const ClockSample& sample) {
  if (!samples_.empty() && samples_.back().step / length_ == sample.step / length_)
    samples_.back() = sample;
  else
    samples_.push_back(sample);
  while (std::ssize(samples_) > kMostSamples) {
    length_ *= 2;
    std::vector<ClockSample> kept;
    for (const ClockSample& s : samples_) {
      if (!kept.empty() && kept.back().step / length_ == s.step / length_)
        kept.back() = s;
      else
        kept.push_back(s);
    }
    samples_ = std::move(kept);
  }
}

}  // namespace longstride
