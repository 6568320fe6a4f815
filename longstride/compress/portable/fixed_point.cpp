#include "longstride/compress/portable/fixed_point.h"

#include <bit>

#include "longstride/base/check.h"

namespace longstride::portable {

namespace {

constexpr int kMantissaBits = 52;  // of a double, without the first
constexpr int kInfinite = 0x7FF;   // the exponent of what is not finite

struct Parts {
  bool negative;
  uint64_t mantissa;
  int exponent;  // the value is mantissa * 2^exponent
};

Parts parts_of(double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  const int exponent = static_cast<int>(bits >> kMantissaBits) & kInfinite;
  LONGSTRIDE_CHECK(exponent != kInfinite, "a number of the model is not finite");
  const uint64_t fraction = bits & ((uint64_t{1} << kMantissaBits) - 1);
  constexpr int kBias = 1023 + kMantissaBits;
  if (exponent == 0) return {bits >> 63 != 0, fraction, 1 - kBias};
  return {bits >> 63 != 0, fraction | uint64_t{1} << kMantissaBits, exponent - kBias};
}

uint64_t size_of_fixed(Fixed value) { return static_cast<uint64_t>(value < 0 ? -value : value); }

// log2 of `base` >= 1 in units of 2^-kLogBits: the bits after the point by repeated squares.
constexpr int kLogBits = 52;
int64_t logarithm(double base) {
  const Parts parts = parts_of(base);
  int64_t log = parts.exponent + kMantissaBits;
  uint64_t rest = parts.mantissa << (63 - kMantissaBits);  // in [1, 2), a unit is 2^-63
  for (int bit = 0; bit < kLogBits; ++bit) {
    const uint64_t square = high_product(rest, rest);  // a unit is 2^-62
    const bool two = square >> 63 != 0;
    rest = two ? square : square << 1;
    log = log * 2 + (two ? 1 : 0);
  }
  return log;
}

// 2^-(exponent / 2^kLogBits) in units of 2^-63, for exponent >= 0: the series of e^-x.
uint64_t negative_power(int64_t exponent) {
  constexpr uint64_t kLog2 = 0xB17217F7D1CF79AB;  // ln 2, in units of 2^-64
  constexpr uint64_t kOne = uint64_t{1} << 63;
  constexpr int kTerms = 24;
  const int64_t whole = exponent >> kLogBits;
  if (whole > 63) return 0;
  const auto fraction = static_cast<uint64_t>(exponent) << (64 - kLogBits);
  const uint64_t x = high_product(fraction, kLog2);
  uint64_t sum = kOne;
  for (int n = kTerms; n > 0; --n) sum = kOne - high_product(x, sum) / static_cast<uint64_t>(n);
  return sum >> whole;
}

}  // namespace

int64_t fixed_of(double value, int fraction, int64_t most) {
  const auto [negative, mantissa, exponent] = parts_of(value);
  const int left = exponent + fraction;
  int64_t size = 0;
  // The mantissa has up to 53 bits, and so more than any `most` where it goes ten further to the left.
  if (left > 9)
    size = mantissa == 0 ? 0 : most;
  else if (left >= 0)
    size = static_cast<int64_t>(mantissa << left);
  else if (left > -63)
    size = static_cast<int64_t>((mantissa + (uint64_t{1} << (-left - 1))) >> -left);
  size = std::min(size, most);
  return negative ? -size : size;
}

int to_whole(std::span<const Fixed> row, int bits, int16_t* whole) {
  uint64_t any = 0;
  for (const Fixed value : row) any |= size_of_fixed(value);
  const int exponent = std::max(0, static_cast<int>(std::bit_width(any)) - bits);
  const int64_t half = exponent > 0 ? int64_t{1} << (exponent - 1) : 0, most = (int64_t{1} << bits) - 1;
  for (size_t i = 0; i < row.size(); ++i)
    whole[i] = static_cast<int16_t>(cut((row[i] + half) >> exponent, most));
  return exponent;
}

void normalise(std::span<const Fixed> x, bool centred, uint64_t epsilon, Fixed* y) {
  const auto width = static_cast<int64_t>(x.size());
  int64_t mean = 0;
  if (centred) {
    for (const Fixed value : x) mean += value;
    mean /= width;
  }
  // Rounded so that a square has 42 bits, and a sum of 2^20 squares fits. Where all elements are small,
  // epsilon decides, and is kept from growing out of the same bits.
  constexpr int kBits = 21, kFloorBits = kFraction - 7;
  uint64_t any = uint64_t{1} << (kFloorBits - 1);
  for (const Fixed value : x) any |= size_of_fixed(value - mean);
  const int right = static_cast<int>(std::bit_width(any)) - kBits;
  uint64_t sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t value = shifted(x[i] - mean, right);
    sum += static_cast<uint64_t>(value * value);
    y[i] = value;
  }
  // epsilon, once for each element, in the same units: 2^(right - kFraction) is that of y's elements now.
  constexpr int kEpsilonBits = 40;
  sum += static_cast<uint64_t>(
      shifted(width * static_cast<int64_t>(epsilon), kEpsilonBits - 2 * (kFraction - right)));
  sum = std::max(sum, uint64_t{1});
  const int twice = std::countl_zero(sum) / 2;
  const uint64_t root = square_root(sum << (2 * twice));                           // 32 bits
  const uint64_t root_of_width = square_root(static_cast<uint64_t>(width) << 40);  // a unit is 2^-20
  const auto factor = static_cast<int64_t>((root_of_width << 32) / root);
  for (size_t i = 0; i < x.size(); ++i) y[i] = cut(shifted(y[i] * factor, 20 + 32 - kFraction - twice));
}

const Activation& Activation::get() {
  static const Activation activation;
  return activation;
}

Activation::Activation() {
  const PowerTable& power = PowerTable::get();
  constexpr uint64_t kOne = uint64_t{1} << PowerTable::kOneBits;
  // One entry more, to which the last line leads.
  for (uint64_t i = 0; i <= (uint64_t{kFarthest} << kPerPowerBits) + 1; ++i)
    gate_.push_back(static_cast<int32_t>((kOne << kGateBits) /
                                         (kOne + power(i << (PowerTable::kFractionBits - kPerPowerBits)))));
}

Fixed Activation::operator()(Fixed x) const {
  // 1.702 log2(e), in units of 2^-20, makes a power of two of e^(-1.702 x).
  constexpr int kBits = 20, kBetweenBits = kBits - kPerPowerBits;
  constexpr int64_t kToPower = 2'574'744;
  const int64_t z = std::min(shifted((x < 0 ? -x : x) * kToPower, kFraction), int64_t{kFarthest} << kBits);
  const int64_t at = z >> kBetweenBits, between = z & ((int64_t{1} << kBetweenBits) - 1);
  int64_t gate = gate_[at] + (((gate_[at + 1] - gate_[at]) * between) >> kBetweenBits);
  if (x < 0) gate = (int64_t{1} << kGateBits) - gate;
  return shifted(x * gate, kGateBits);
}

uint64_t high_product(uint64_t a, uint64_t b) {
  constexpr uint64_t kLow = 0xFFFFFFFF;
  const uint64_t low = (a & kLow) * (b & kLow), cross = (a >> 32) * (b & kLow) + (low >> 32);
  const uint64_t other = (a & kLow) * (b >> 32) + (cross & kLow);
  return (a >> 32) * (b >> 32) + (cross >> 32) + (other >> 32);
}

uint64_t turn_of_power(double base, int64_t numerator, int64_t denominator) {
  constexpr uint64_t kTwoOverPi = 0xA2F9836E4E441529;  // in units of 2^-64
  const int64_t log = logarithm(base);
  const int64_t exponent = log / denominator * numerator + log % denominator * numerator / denominator;
  // A radian is a quarter of 2 / pi of a turn, and the power has 63 bits.
  return high_product(negative_power(exponent), kTwoOverPi) >> 1;
}

Turn turn_by(uint64_t angle) {
  // The angle within its quarter of a turn, in radians in units of 2^-30.
  constexpr int kBits = 30;
  constexpr int64_t kOne = int64_t{1} << kBits, kHalfPi = 1'686'629'713;
  const int64_t x = static_cast<int64_t>(angle << 2 >> 34) * kHalfPi >> kBits, square = x * x >> kBits;
  int64_t cosine = kOne, sine = kOne;
  for (int64_t n = 12; n > 0; n -= 2) {
    cosine = kOne - (square * cosine >> kBits) / (n * (n - 1));
    sine = kOne - (square * sine >> kBits) / (n * (n + 1));
  }
  sine = sine * x >> kBits;
  const auto c = static_cast<int32_t>(shifted(cosine, kBits - kTurnBits)),
             s = static_cast<int32_t>(shifted(sine, kBits - kTurnBits));
  switch (angle >> 62) {
    case 0:
      return {c, s};
    case 1:
      return {-s, c};
    case 2:
      return {-c, -s};
    default:
      return {s, -c};
  }
}

}  // namespace longstride::portable
