// Sums in a fixed order, in any precision.
#pragma once

#include <cstdint>

namespace longstride::reference {

// sum = parts[0] + .. + parts[place - 1] + sum + parts[place] + .., from the left; parts (count, n).
template <class T>
void ordered_sum(const T* parts, int64_t count, int64_t n, int64_t place, T* sum) {
  for (int64_t i = 0; i < n; ++i) {
    T total = place > 0 ? parts[i] : sum[i];
    for (int64_t p = 1; p < place; ++p) total += parts[p * n + i];
    if (place > 0) total += sum[i];
    for (int64_t p = place; p < count; ++p) total += parts[p * n + i];
    sum[i] = total;
  }
}

}  // namespace longstride::reference
