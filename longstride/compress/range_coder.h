// A range coder: turns symbols with integer frequencies into bytes and back. The code is a number in an
// interval of [0, 1); each symbol narrows the interval to the symbol's share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace longstride {

// The frequencies of all alternatives of a symbol add up to 2^kFrequencyBits. The range stays above 2^56, so
// that a share is exact to 2^-26.
inline constexpr int kFrequencyBits = 30;
inline constexpr uint32_t kFrequencyTotal = uint32_t{1} << kFrequencyBits;

class RangeEncoder {
 public:
  // Codes a symbol whose share of the total is [start, start + frequency); frequency >= 1.
  void encode(uint32_t start, uint32_t frequency);
  // Returns the code. The next symbol begins a new one.
  std::vector<uint8_t> finish();

 private:
  void carry();
  std::vector<uint8_t> code_;
  uint64_t low_ = 0, range_ = ~uint64_t{0};
};

// Any bytes can be read without harm. Bytes that no encoder wrote give arbitrary symbols, and zeros follow the
// end of the code.
class RangeDecoder {
 public:
  explicit RangeDecoder(std::span<const uint8_t> code);
  // A number in [0, kFrequencyTotal) within the share of the next symbol. Call consume() with that share
  // next.
  uint32_t target() const;
  void consume(uint32_t start, uint32_t frequency);

 private:
  uint8_t next() { return at_ < code_.size() ? code_[at_++] : uint8_t{0}; }
  std::span<const uint8_t> code_;
  size_t at_ = 0;
  uint64_t offset_ = 0;  // of the code in the range
  uint64_t range_ = ~uint64_t{0};
};

}  // namespace longstride
