// Normalised and rotated queries and keys in any precision, std::complex included. It handles one head's
// channels at one position; cosines and sines are of the head's width / 2 angles.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

namespace longstride::reference {

// y = x / sqrt(mean(x^2) + epsilon), and the reciprocal of the root.
template <class T>
T head_norm_forward(const T* x, int64_t width, T epsilon, T* y) {
  using std::sqrt;
  T squares{};
  for (int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
  const T reciprocal = T(1) / sqrt(squares / T(static_cast<double>(width)) + epsilon);
  for (int64_t i = 0; i < width; ++i) y[i] = x[i] * reciprocal;
  return reciprocal;
}

// dx from dy, for the y and the reciprocal of the forward. dx may be dy.
template <class T>
void head_norm_backward(const T* dy, const T* y, T reciprocal, int64_t width, T* dx) {
  T along{};
  for (int64_t i = 0; i < width; ++i) along += dy[i] * y[i];
  for (int64_t i = 0; i < width; ++i)
    dx[i] = reciprocal * (dy[i] - y[i] * along / T(static_cast<double>(width)));
}

// Turns pairs (x[i], x[i + width / 2]) in place. `back` turns the other way, which is also the gradient.
template <class T, class Angle>
void rotate(T* x, int64_t width, const Angle* cosines, const Angle* sines, bool back) {
  const int64_t half = width / 2;
  for (int64_t i = 0; i < half; ++i) {
    const T a = x[i], b = x[i + half], c = T(cosines[i]), s = back ? T(-sines[i]) : T(sines[i]);
    x[i] = a * c - b * s;
    x[i + half] = b * c + a * s;
  }
}

}  // namespace longstride::reference
