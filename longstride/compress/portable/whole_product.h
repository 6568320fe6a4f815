// Products of weights with rows of activations, by all threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "longstride/base/threads.h"
#include "longstride/ops/whole_products.h"

namespace longstride::portable {

// Of x in whole_product.
inline constexpr int64_t kMostWholeRows = 64;

// Calls take(n, m, sum) for each of the `rows` rows n of w (rows, columns) in [-127, 127] and each of the `count`
// rows m of x (count, columns) of 15 bits, with the sum of w[n][k] x[m][k]. Rows of w are shared by threads.
template <class Take>
void whole_product(const int8_t* w, int64_t rows, int64_t columns, const int16_t* x, int64_t count,
                   const Take& take) {
  constexpr int64_t kRows = 16;
  parallel_for((rows + kRows - 1) / kRows, [&](int64_t piece) {
    std::array<int64_t, kRows * kMostWholeRows> sums;
    const int64_t first = piece * kRows, here = std::min(kRows, rows - first);
    whole_products(w + first * columns, here, columns, x, count, sums.data());
    for (int64_t m = 0; m < count; ++m)
      for (int64_t n = 0; n < here; ++n) take(first + n, m, sums[n * count + m]);
  });
}

}  // namespace longstride::portable
