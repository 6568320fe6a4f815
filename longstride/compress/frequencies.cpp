#include "longstride/compress/frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "longstride/base/check.h"
#include "longstride/compress/range_coder.h"

namespace longstride {

namespace {

constexpr int kSymbols = 256;
constexpr int kTableBits = 10;
constexpr int kFractionBits = 2 * kTableBits;  // of a power's exponent
constexpr int kWeightBits = 31;                // a weight of 1 is 2^31
constexpr uint64_t kOne = uint64_t{1} << kWeightBits;

uint64_t square_root(uint64_t value) {
  uint64_t root = 0;
  for (uint64_t bit = uint64_t{1} << 31; bit > 0; bit >>= 1)
    if ((root + bit) * (root + bit) <= value) root += bit;
  return root;
}

// 2^-x for x in [0, 1): coarse[high bits of x] * fine[low bits of x].
struct PowerTables {
  std::array<uint64_t, 1 << kTableBits> coarse, fine;

  PowerTables() {
    // Bit b of the fraction stands for the factor 2^-2^(b - kFractionBits): repeated square roots of 2^-1.
    std::array<uint64_t, kFractionBits> roots;
    uint64_t root = kOne / 2;
    for (int bit = kFractionBits; bit-- > 0;) roots[bit] = root = square_root(root << kWeightBits);
    for (int i = 0; i < 1 << kTableBits; ++i) {
      coarse[i] = fine[i] = kOne;
      for (int bit = 0; bit < kTableBits; ++bit) {
        if (!(i >> bit & 1)) continue;
        fine[i] = (fine[i] * roots[bit]) >> kWeightBits;
        coarse[i] = (coarse[i] * roots[bit + kTableBits]) >> kWeightBits;
      }
    }
  }

  // 2^-(exponent / 2^kFractionBits), in units of 1 / kOne.
  uint64_t operator()(uint64_t exponent) const {
    const uint64_t whole = exponent >> kFractionBits, mask = coarse.size() - 1;
    if (whole > kWeightBits) return 0;
    return (coarse[exponent >> kTableBits & mask] * fine[exponent & mask]) >> (kWeightBits + whole);
  }
};

}  // namespace

Frequencies::Frequencies(std::span<const float> logits) {
  static const PowerTables power;
  LONGSTRIDE_CHECK(logits.size() == kSymbols, "{} logits, must be {}", logits.size(), kSymbols);
  for (int b = 0; b < kSymbols; ++b)
    LONGSTRIDE_CHECK(std::isfinite(logits[b]),
                     "the model's prediction is not finite: its weights are damaged, or training diverged");
  const auto likeliest = std::max_element(logits.begin(), logits.end()) - logits.begin();

  // The difference of two floats is exact in double, except for differences so large that they do not matter
  // here. The product with a constant is rounded once, the same on every machine.
  constexpr double kToExponent = std::numbers::log2e * (1 << kFractionBits);
  constexpr double kFarthest = double{kWeightBits + 1} * (1 << kFractionBits);
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
