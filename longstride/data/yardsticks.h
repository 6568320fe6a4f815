// What simple models and a well-known compressor make of some bytes, to compare a trained model with.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace longstride {

struct Yardsticks {
  // Bits a byte if the 0, 1, 2 or 3 bytes before it are known, by counts of these very bytes. So the higher
  // orders flatter small data, which they nearly list.
  std::array<double, 4> entropies{};
  double xz_bits = 0;  // bits a byte of `xz -9`
};

// Throws Error for no bytes.
Yardsticks measure_yardsticks(std::span<const uint8_t> bytes);

}  // namespace longstride
