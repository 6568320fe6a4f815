#include "longstride/compress/frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "longstride/base/check.h"
#include "longstride/compress/power_table.h"
#include "longstride/compress/range_coder.h"

namespace longstride {

namespace {

constexpr int kSymbols = 256;

}  // namespace

Frequencies::Frequencies(std::span<const float> logits) {
  const PowerTable& power = PowerTable::get();
  LONGSTRIDE_CHECK(logits.size() == kSymbols, "{} logits, must be {}", logits.size(), kSymbols);
  for (int b = 0; b < kSymbols; ++b)
    LONGSTRIDE_CHECK(std::isfinite(logits[b]),
                     "the model's prediction is not finite: its weights are damaged, or training diverged");
  const auto likeliest = std::max_element(logits.begin(), logits.end()) - logits.begin();

  // The difference of two floats is exact in double, except for differences so large that they do not matter
  // here. The product with a constant is rounded once, the same on every machine.
  constexpr double kToExponent = std::numbers::log2e * (1 << PowerTable::kFractionBits);
  constexpr double kFarthest = double{PowerTable::kOneBits + 1} * (1 << PowerTable::kFractionBits);
  std::array<uint64_t, kSymbols> weights;
  uint64_t sum = 0;
  for (int b = 0; b < kSymbols; ++b) {
    const double below = double{logits[likeliest]} - double{logits[b]};
    weights[b] = power(static_cast<uint64_t>(std::min(below * kToExponent, kFarthest)));
    sum += weights[b];
  }
  const uint64_t scale = (uint64_t{kFrequencyTotal - kSymbols} << 32) / sum;
  std::array<uint32_t, kSymbols> frequencies;
  uint32_t given = 0;
  for (int b = 0; b < kSymbols; ++b)
    given += frequencies[b] = static_cast<uint32_t>((weights[b] * scale) >> 32) + 1;
  frequencies[likeliest] += kFrequencyTotal - given;
  starts_[0] = 0;
  for (int b = 0; b < kSymbols; ++b) starts_[b + 1] = starts_[b] + frequencies[b];
}

uint8_t Frequencies::byte_at(uint32_t target) const {
  const auto after = std::upper_bound(starts_.begin() + 1, starts_.end() - 1, target);
  return static_cast<uint8_t>(after - starts_.begin() - 1);
}

double bits_of(std::span<const float> logits, uint8_t byte) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return (std::log(sum) + most - logits[byte]) * std::numbers::log2e;
}

}  // namespace longstride
