// From logits to the integers that an arithmetic coder shares its range by.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace longstride {

// Cumulative frequencies of the 256 bytes, each of which has at least 1; byte b has [start(b), start(b + 1)).
class Frequencies {
 public:
  // logits (256). Of them only max - logit is a floating-point number; the rest is integer arithmetic with
  // tables that are made of integers, so that equal logits give equal frequencies on every machine. What
  // rounding leaves goes to the likeliest byte. Throws Error if a logit is not finite.
  explicit Frequencies(std::span<const float> logits);

  uint32_t start(int byte) const { return starts_[byte]; }
  uint32_t of(int byte) const { return starts_[byte + 1] - starts_[byte]; }
  // The byte in whose share `target`, below the total, lies.
  uint8_t byte_at(uint32_t target) const;

 private:
  std::array<uint32_t, 257> starts_;
};

// -log2 of the byte's probability by the softmax of the logits, in double.
double bits_of(std::span<const float> logits, uint8_t byte);

}  // namespace longstride
