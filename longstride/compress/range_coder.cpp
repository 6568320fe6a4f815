#include "longstride/compress/range_coder.h"

#include <algorithm>
#include <utility>

namespace longstride {

namespace {

constexpr uint64_t kSmallestRange = uint64_t{1} << 56;

// The last alternative also gets what rounding leaves over of the range.
uint64_t share_of(uint64_t range, uint64_t unit, uint32_t start, uint32_t frequency) {
  return start + frequency == kFrequencyTotal ? range - start * unit : frequency * unit;
}

}  // namespace

// The interval never reaches 1, so there is always a byte that takes the carry.
void RangeEncoder::carry() {
  for (size_t at = code_.size(); at-- > 0;)
    if (++code_[at] != 0) return;
}

void RangeEncoder::encode(uint32_t start, uint32_t frequency) {
  const uint64_t unit = range_ >> kFrequencyBits, before = low_;
  low_ += start * unit;
  if (low_ < before) carry();
  range_ = share_of(range_, unit, start, frequency);
  for (; range_ < kSmallestRange; range_ <<= 8, low_ <<= 8) code_.push_back(static_cast<uint8_t>(low_ >> 56));
}

std::vector<uint8_t> RangeEncoder::finish() {
  // One more byte names a number in the interval, which is at least one step of that byte wide. The decoder
  // reads zeros after it.
  const uint64_t rounded = low_ + (kSmallestRange - 1);
  if (rounded < low_) carry();
  code_.push_back(static_cast<uint8_t>(rounded >> 56));
  low_ = 0, range_ = ~uint64_t{0};
  return std::exchange(code_, {});
}

RangeDecoder::RangeDecoder(std::span<const uint8_t> code) : code_(code) {
  for (int i = 0; i < 8; ++i) offset_ = offset_ << 8 | next();
}

uint32_t RangeDecoder::target() const {
  return static_cast<uint32_t>(std::min<uint64_t>(offset_ / (range_ >> kFrequencyBits), kFrequencyTotal - 1));
}

void RangeDecoder::consume(uint32_t start, uint32_t frequency) {
  const uint64_t unit = range_ >> kFrequencyBits;
  offset_ -= start * unit;
  range_ = share_of(range_, unit, start, frequency);
  for (; range_ < kSmallestRange; range_ <<= 8) offset_ = offset_ << 8 | next();
}

}  // namespace longstride
