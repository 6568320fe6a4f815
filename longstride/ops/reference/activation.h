// f(x) = x sigmoid(1.702 x) and its derivative, in any precision, std::complex included.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>

namespace longstride::reference {

template <class T>
T activation_gate(T x) {
  using std::exp;
  return T(1) / (T(1) + exp(T(-1.702) * x));
}

template <class T>
void activation_forward(const T* x, int64_t count, T* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * activation_gate(x[i]);
}

template <class T>
void activation_backward(const T* dy, const T* x, int64_t count, T* dx) {
  for (int64_t i = 0; i < count; ++i) {
    const T s = activation_gate(x[i]);
    dx[i] = dy[i] * (s + T(1.702) * x[i] * s * (T(1) - s));
  }
}

}  // namespace longstride::reference
