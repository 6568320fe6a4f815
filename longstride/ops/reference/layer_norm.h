// Layer normalisation in any precision, std::complex included. Mean and variance take two passes; sums go
// from left to right.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>

namespace longstride::reference {

template <class T>
void layer_norm_forward(const T* x, const T* gain, const T* bias, T epsilon, int64_t rows, int64_t width,
                        T* y, T* mean, T* rstd) {
  using std::sqrt;
  for (int64_t row = 0; row < rows; ++row, x += width, y += width) {
    T sum{}, squares{};
    for (int64_t i = 0; i < width; ++i) sum += x[i];
    mean[row] = sum / T(width);
    for (int64_t i = 0; i < width; ++i) squares += (x[i] - mean[row]) * (x[i] - mean[row]);
    rstd[row] = T(1) / sqrt(squares / T(width) + epsilon);
    for (int64_t i = 0; i < width; ++i) y[i] = (x[i] - mean[row]) * rstd[row] * gain[i] + bias[i];
  }
}

// Adds to dx, dgain and dbias.
template <class T>
void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* rstd, int64_t rows,
                         int64_t width, T* dx, T* dgain, T* dbias) {
  for (int64_t row = 0; row < rows; ++row, dy += width, x += width, dx += width) {
    T sum_g{}, sum_gx{};
    for (int64_t i = 0; i < width; ++i) {
      const T xhat = (x[i] - mean[row]) * rstd[row];
      sum_g += dy[i] * gain[i];
      sum_gx += dy[i] * gain[i] * xhat;
      dgain[i] += dy[i] * xhat;
      dbias[i] += dy[i];
    }
    for (int64_t i = 0; i < width; ++i) {
      const T xhat = (x[i] - mean[row]) * rstd[row];
      dx[i] += rstd[row] * (dy[i] * gain[i] - sum_g / T(width) - xhat * sum_gx / T(width));
    }
  }
}

}  // namespace longstride::reference
