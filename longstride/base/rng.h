// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy
// as 1, 2, 3", SC 2011). The value at (seed, stream, step, index) never depends on how many were drawn
// before. So recomputation and resuming replay the same dropout, and every device draws the same numbers.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "longstride/base/host_device.h"

namespace longstride {

using PhiloxBlock = std::array<uint32_t, 4>;

// One block of four 32-bit words for a 128-bit counter and a 64-bit key.
LONGSTRIDE_HOST_DEVICE inline PhiloxBlock philox(PhiloxBlock counter, uint64_t key) {
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// A named sequence of random numbers. `stream` tells apart the uses of one seed (a layer's dropout,
// initialisation, batches, sampling); `step` tells apart the times. Distinct (stream, step, index) give
// independent numbers.
struct RandomStream {
  uint64_t seed = 0;
  uint32_t stream = 0;
  uint32_t step = 0;

  // Four 32-bit words for block `index`.
  LONGSTRIDE_HOST_DEVICE PhiloxBlock block(uint64_t index) const {
    return philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), stream, step}, seed);
  }
  // Uniform in [0, 1) with 53 random bits.
  LONGSTRIDE_HOST_DEVICE double uniform(uint64_t index) const {
    const PhiloxBlock b = block(index);
    return static_cast<double>(((uint64_t{b[0]} << 32) | b[1]) >> 11) * 0x1p-53;
  }
  // Standard normal by Box and Muller.
  double normal(uint64_t index) const {
    const PhiloxBlock b = block(index);
    const double u = (static_cast<double>(((uint64_t{b[0]} << 32) | b[1]) >> 11) + 1.0) * 0x1p-53;  // (0, 1]
    const double v = static_cast<double>(((uint64_t{b[2]} << 32) | b[3]) >> 11) * 0x1p-53;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
};

// The streams of one seed.
namespace random_stream {
inline constexpr uint32_t kInitialise = 1;  // step = parameter index
inline constexpr uint32_t kBatch = 2;
inline constexpr uint32_t kSample = 3;
inline constexpr uint32_t kDropout = 1024;  // + 2 * layer + {0 attention, 1 feed-forward}
}  // namespace random_stream

}  // namespace longstride
