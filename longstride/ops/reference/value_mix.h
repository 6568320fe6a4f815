// Values mixed with the first block's, in any precision, std::complex included.
#pragma once

#include <cstdint>

namespace longstride::reference {

// x = (1 - share) x + share first.
template <class T>
void value_mix_forward(const T* first, T share, int64_t count, T* x) {
  for (int64_t i = 0; i < count; ++i) x[i] = (T(1) - share) * x[i] + share * first[i];
}

// Adds to d_first.
template <class T>
void value_mix_backward(T share, int64_t count, T* dx, T* d_first) {
  for (int64_t i = 0; i < count; ++i) {
    d_first[i] += share * dx[i];
    dx[i] = (T(1) - share) * dx[i];
  }
}

}  // namespace longstride::reference
