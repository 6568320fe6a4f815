// Exact products of integers. The loops are plain, so that a compiler makes of them the instructions for pairs of
// 16-bit integers that every x86 and ARM CPU has.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "longstride/base/threads.h"

namespace longstride::portable {

// Sum of a[i] b[i] for numbers of so many bits beside the sign.
template <int kBitsA, int kBitsB>
int64_t whole_dot(const int16_t* a, const int16_t* b, int64_t count) {
  // So many products add up in 32 bits.
  constexpr int64_t kPiece = int64_t{1} << (31 - kBitsA - kBitsB);
  static_assert(kPiece >= 16);
  int64_t sum = 0;
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    const int64_t size = std::min(kPiece, count - begin);
    int32_t part = 0;
    for (int64_t i = begin; i < begin + size; ++i) part += int32_t{a[i]} * int32_t{b[i]};
    sum += part;
  }
  return sum;
}

// sums += factor values, for a factor of up to 21 bits.
inline void add_scaled(const int16_t* values, int32_t factor, int64_t count, int64_t* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += int64_t{factor} * values[i];
}

// Calls take(n, m, sum) for each of the `rows` rows n of w (rows, columns) in [-127, 127] and each of the `count` <=
// 64 rows m of x (count, columns) of 15 bits, with the sum of w[n][k] x[m][k]. Rows of w are shared by threads.
template <class Take>
void whole_product(const int8_t* w, int64_t rows, int64_t columns, const int16_t* x, int64_t count,
                   const Take& take) {
  constexpr int64_t kMostCount = 64, kRows = 16;
  constexpr int64_t kPiece = 512;  // 512 * 127 * 32767 < 2^31
  parallel_for((rows + kRows - 1) / kRows, [&](int64_t piece) {
    std::array<int16_t, kPiece> wide;
    for (int64_t n = piece * kRows; n < std::min(rows, (piece + 1) * kRows); ++n) {
      std::array<int64_t, kMostCount> sums{};
      for (int64_t begin = 0; begin < columns; begin += kPiece) {
        const int64_t size = std::min(kPiece, columns - begin);
        const int8_t* const narrow = w + n * columns + begin;
        for (int64_t k = 0; k < size; ++k) wide[k] = narrow[k];
        for (int64_t m = 0; m < count; ++m) {
          const int16_t* const row = x + m * columns + begin;
          int32_t part = 0;
          for (int64_t k = 0; k < size; ++k) part += int32_t{wide[k]} * int32_t{row[k]};
          sums[m] += part;
        }
      }
      for (int64_t m = 0; m < count; ++m) take(n, m, sums[m]);
    }
  });
}

}  // namespace longstride::portable
