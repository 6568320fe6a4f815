// From logits to the integers that an arithmetic coder shares its range by.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace longstride {

// Cumulative frequencies of the 256 bytes, each of which has at least 1; byte b has [start(b), start(b + 1)).
class Frequencies {
 public:
  // logits (256). The only floating-point numbers are max - logit. The rest is integer arithmetic, and its
  // tables are computed with integers too, so that equal logits give equal frequencies on every machine. The
  // likeliest byte gets what rounding leaves over. Throws Error if a logit is not finite.
  explicit Frequencies(std::span<const float> logits);

  uint32_t start(int byte) const { return starts_[byte]; }
  uint32_t of(int byte) const { return starts_[byte + 1] - starts_[byte]; }
  // The byte whose share contains `target`, which is below the total.
  uint8_t byte_at(uint32_t target) const;

 private:
  std::array<uint32_t, 257> starts_;
};

// -log2 of the byte's probability by the softmax of the logits, in double.
double bits_of(std::span<const float> logits, uint8_t byte);

}  // namespace longstride
