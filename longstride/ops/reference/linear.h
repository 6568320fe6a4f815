// y = x w^T + b in any precision, contiguous matrices: x (m, k), w (n, k), b (n) or null, y (m, n).
#pragma once

#include <cstdint>

namespace longstride::reference {

template <class T>
void linear_forward(const T* x, const T* w, const T* b, int64_t m, int64_t k, int64_t n, T* y) {
  for (int64_t row = 0; row < m; ++row)
    for (int64_t column = 0; column < n; ++column) {
      T sum{};
      for (int64_t i = 0; i < k; ++i) sum += x[row * k + i] * w[column * k + i];
      y[row * n + column] = b ? sum + b[column] : sum;
    }
}

template <class T>
void linear_backward_input(const T* dy, const T* w, int64_t m, int64_t k, int64_t n, T* dx) {
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t i = 0; i < k; ++i) dx[row * k + i] = T{};
    for (int64_t column = 0; column < n; ++column)
      for (int64_t i = 0; i < k; ++i) dx[row * k + i] += dy[row * n + column] * w[column * k + i];
  }
}

// Adds to dw.
template <class T>
void linear_backward_weight(const T* dy, const T* x, int64_t m, int64_t k, int64_t n, T* dw) {
  for (int64_t row = 0; row < m; ++row)
    for (int64_t column = 0; column < n; ++column)
      for (int64_t i = 0; i < k; ++i) dw[column * k + i] += dy[row * n + column] * x[row * k + i];
}

// Adds to db.
template <class T>
void linear_backward_bias(const T* dy, int64_t m, int64_t n, T* db) {
  for (int64_t row = 0; row < m; ++row)
    for (int64_t column = 0; column < n; ++column) db[column] += dy[row * n + column];
}

}  // namespace longstride::reference
