#include "longstride/data/mulaw.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace longstride {

uint8_t mulaw_encode(float sample) {
  const double x = std::clamp(static_cast<double>(sample), -1.0, 1.0);
  const double compressed = std::copysign(std::log1p(255.0 * std::abs(x)) / std::log(256.0), x);
  return static_cast<uint8_t>(std::lround((compressed + 1.0) * 127.5));
}

float mulaw_decode(uint8_t byte) {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> values{};
    for (int code = 0; code < 256; ++code) {
      const double compressed = 2.0 * code / 255.0 - 1.0;
      const double magnitude = std::expm1(std::abs(compressed) * std::log(256.0)) / 255.0;
      values[static_cast<size_t>(code)] = static_cast<float>(std::copysign(magnitude, compressed));
    }
    return values;
  }();
  return table[byte];
}

}  // namespace longstride
