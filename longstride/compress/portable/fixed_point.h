// Numbers in fixed point, and what a model needs of them by integer arithmetic alone, so that each result is
// the same on every machine. No floating-point number takes part but as the bits of a float or a double.
//
// A Fixed is a multiple of 2^-kFraction of at most 2^16 in size; larger results are cut to that, so that no sum
// or product of a model can overflow, whatever its weights are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "longstride/compress/power_table.h"

namespace longstride::portable {

using Fixed = int64_t;
inline constexpr int kFraction = 24;
inline constexpr Fixed kMost = Fixed{1} << 40;

inline Fixed cut(int64_t value, int64_t most = kMost) { return std::clamp(value, -most, most); }

// value * 2^-right, rounded to nearest, halves upwards. With right < 0 what would not fit is cut to 2^62.
// |value| is at most 2^62.5.
inline int64_t shifted(int64_t value, int right) {
  if (right > 62) return 0;
  if (right > 0) return (value + (int64_t{1} << (right - 1))) >> right;
  if (right == 0) return value;
  constexpr int64_t kFarthest = int64_t{1} << 62;
  const int left = std::min(-right, 62);
  return cut(value, kFarthest >> left) * (int64_t{1} << left);
}

// The multiple of 2^-fraction next to `value`, of at most `most` in size; halves away from 0. Throws Error if
// the value is not finite.
int64_t fixed_of(double value, int fraction = kFraction, int64_t most = kMost);

// Integers with one scale for all: value i is whole[i] * 2^exponent in units of a Fixed. A row of values is
// rounded to `bits` bits beside the sign, fewer than 16, or kept exactly if it needs no more. Returns the
// exponent.
int to_whole(std::span<const Fixed> row, int bits, int16_t* whole);

// y = (x - mean) / sqrt(mean square of that + epsilon), where the mean is 0 unless `centred`. epsilon is in units
// of 2^-40 and at most 2^24. y may be x; it has at most 2^20 elements.
void normalise(std::span<const Fixed> x, bool centred, uint64_t epsilon, Fixed* y);
inline constexpr uint64_t kEpsilon5 = 10'995'116, kEpsilon6 = 1'099'512;  // 1e-5 and 1e-6

// x sigmoid(1.702 x), from a table of the sigmoid with straight lines between its entries.
class Activation {
 public:
  static const Activation& get();
  Fixed operator()(Fixed x) const;

 private:
  Activation();
  static constexpr int kPerPowerBits = 7, kFarthest = 32, kGateBits = 22;
  std::vector<int32_t> gate_;  // 1 / (1 + 2^-z) for z = i / 2^kPerPowerBits up to kFarthest
};

// ---- angles ----

// The high half of a product.
uint64_t high_product(uint64_t a, uint64_t b);
// base^-(numerator / denominator) radians as part of a turn, in units of 2^-64 of a turn. base >= 1 is finite;
// 0 <= numerator < denominator <= 2^20.
uint64_t turn_of_power(double base, int64_t numerator, int64_t denominator);
// Cosine and sine of an angle in units of 2^-64 of a turn, in units of 2^-kTurnBits.
struct Turn {
  int32_t cosine, sine;
};
inline constexpr int kTurnBits = 20;
Turn turn_by(uint64_t angle);

}  // namespace longstride::portable
