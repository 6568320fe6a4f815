#include "longstride/compress/power_table.h"

namespace longstride {

uint64_t square_root(uint64_t value) {
  uint64_t root = 0;
  for (uint64_t bit = uint64_t{1} << 31; bit > 0; bit >>= 1)
    if ((root + bit) * (root + bit) <= value) root += bit;
  return root;
}

const PowerTable& PowerTable::get() {
  static const PowerTable table;
  return table;
}

PowerTable::PowerTable() {
  constexpr uint64_t kOne = uint64_t{1} << kOneBits;
  // Bit b of the fraction stands for the factor 2^-2^(b - kFractionBits): repeated square roots of 2^-1.
  std::array<uint64_t, kFractionBits> roots;
  uint64_t root = kOne / 2;
  for (int bit = kFractionBits; bit-- > 0;) roots[bit] = root = square_root(root << kOneBits);
  for (int i = 0; i < 1 << kTableBits; ++i) {
    coarse_[i] = fine_[i] = kOne;
    for (int bit = 0; bit < kTableBits; ++bit) {
      if (!(i >> bit & 1)) continue;
      fine_[i] = (fine_[i] * roots[bit]) >> kOneBits;
      coarse_[i] = (coarse_[i] * roots[bit + kTableBits]) >> kOneBits;
    }
  }
}

}  // namespace longstride
