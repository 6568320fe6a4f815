// Powers of two by integer arithmetic: the same bits on every machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace longstride {

// The largest root whose square is at most `value`.
uint64_t square_root(uint64_t value);

// 2^-x for x >= 0, from two tables: coarse[high bits of x's fraction] * fine[its low bits].
class PowerTable {
 public:
  static constexpr int kFractionBits = 20;  // of x
  static constexpr int kOneBits = 31;       // the power 1 is 2^31

  // The one table; it is made at the first call.
  static const PowerTable& get();

  // 2^-(exponent / 2^kFractionBits), in units of 2^-kOneBits; 0 if it is less than one of them.
  uint64_t operator()(uint64_t exponent) const {
    const uint64_t whole = exponent >> kFractionBits, mask = coarse_.size() - 1;
    if (whole > kOneBits) return 0;
    return (coarse_[exponent >> kTableBits & mask] * fine_[exponent & mask]) >> (kOneBits + whole);
  }

 private:
  PowerTable();
  static constexpr int kTableBits = kFractionBits / 2;
  std::array<uint64_t, size_t{1} << kTableBits> coarse_, fine_;
};

}  // namespace longstride
