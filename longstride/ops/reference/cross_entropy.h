// Softmax cross-entropy in any precision, std::complex included (shifted by the largest real part).
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>

namespace longstride::reference {

// loss (rows) and, unless null, dlogits (rows, classes) = scale * (softmax - onehot).
template <class T>
void cross_entropy(const T* logits, const uint8_t* targets, int64_t rows, int64_t classes, T scale, T* loss,
                   T* dlogits) {
  using std::exp, std::log, std::real;
  for (int64_t row = 0; row < rows; ++row, logits += classes) {
    const T highest = *std::max_element(logits, logits + classes, [](T a, T b) { return real(a) < real(b); });
    T sum{};
    for (int64_t i = 0; i < classes; ++i) sum += exp(logits[i] - highest);
    loss[row] = log(sum) - (logits[targets[row]] - highest);
    if (!dlogits) continue;
    for (int64_t i = 0; i < classes; ++i)
      dlogits[row * classes + i] =
          scale * (exp(logits[i] - highest) / sum - (i == targets[row] ? T(1) : T(0)));
  }
}

}  // namespace longstride::reference
