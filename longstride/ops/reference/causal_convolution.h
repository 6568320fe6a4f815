// The causal convolution in any precision, std::complex included.
#pragma once

#include <cstdint>

namespace longstride::reference {

// x and y (sequences * positions, width), w (taps, width). y is not x.
template <class T>
void causal_convolution_forward(const T* x, const T* w, int64_t taps, int64_t sequences, int64_t positions,
                                int64_t width, T* y) {
  for (int64_t row = 0; row < sequences * positions; ++row)
    for (int64_t i = 0; i < width; ++i) {
      T sum = x[row * width + i];
      for (int64_t tap = 0; tap < taps && tap <= row % positions; ++tap)
        sum += w[tap * width + i] * x[(row - tap) * width + i];
      y[row * width + i] = sum;
    }
}

// dx = ..., dw += ...; dx is not dy.
template <class T>
void causal_convolution_backward(const T* dy, const T* x, const T* w, int64_t taps, int64_t sequences,
                                 int64_t positions, int64_t width, T* dx, T* dw) {
  for (int64_t row = 0; row < sequences * positions; ++row)
    for (int64_t i = 0; i < width; ++i) {
      T sum = dy[row * width + i];
      for (int64_t tap = 0; tap < taps && tap < positions - row % positions; ++tap) {
        const T& later = dy[(row + tap) * width + i];
        sum += w[tap * width + i] * later;
        dw[tap * width + i] += x[row * width + i] * later;
      }
      dx[row * width + i] = sum;
    }
}

}  // namespace longstride::reference
