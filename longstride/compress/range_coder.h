// A range coder: symbols with integer frequencies to bytes and back. The code is a number in [0, 1) that lies
// in an interval, which each symbol narrows to its share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace longstride {

// Frequencies of a symbol's alternatives add up to 2^kFrequencyBits. The range stays above 2^56, so that a
// share is exact to 2^-26.
inline constexpr int kFrequencyBits = 30;
inline constexpr uint32_t kFrequencyTotal = uint32_t{1} << kFrequencyBits;

class RangeEncoder {
 public:
  // A symbol that has [start, start + frequency) of the total; frequency >= 1.
  void encode(uint32_t start, uint32_t frequency);
  // The code; the encoder begins anew.
  std::vector<uint8_t> finish();

 private:
  void carry();
  std::vector<uint8_t> code_;
  uint64_t low_ = 0, range_ = ~uint64_t{0};
};

// Reads any bytes without harm: those that no encoder wrote give arbitrary symbols, and behind the end there
// are zeros.
class RangeDecoder {
 public:
  explicit RangeDecoder(std::span<const uint8_t> code);
  // A number in [0, kFrequencyTotal) that belongs to the next symbol; consume() must follow with that
  // symbol's share.
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
