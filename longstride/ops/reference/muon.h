// Muon in any precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "longstride/ops/muon.h"

namespace longstride::reference {

// c (m, n) = a (m, k) b (k, n), row after row.
template <class T>
std::vector<T> product(const std::vector<T>& a, const std::vector<T>& b, int64_t m, int64_t k, int64_t n) {
  std::vector<T> c(m * n);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t l = 0; l < k; ++l)
      for (int64_t j = 0; j < n; ++j) c[i * n + j] += a[i * k + l] * b[l * n + j];
  return c;
}

template <class T>
std::vector<T> transposed(const std::vector<T>& a, int64_t rows, int64_t columns) {
  std::vector<T> t(a.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) t[j * rows + i] = a[i * columns + j];
  return t;
}

// `stored` rounds what is kept between products: X, A and b A + c A^2.
template <class T, class Stored>
std::vector<T> newton_schulz(NewtonSchulz kind, std::vector<T> x, int64_t rows, int64_t columns,
                             const Stored& stored) {
  if (rows > columns)
    return transposed(newton_schulz(kind, transposed(x, rows, columns), columns, rows, stored), columns,
                      rows);
  const auto rounded = [&](std::vector<T> values) {
    for (T& value : values) value = stored(value);
    return values;
  };
  x = rounded(x);
  for (const NewtonSchulzStep& step : steps_of(kind)) {
    const std::vector<T> gram = rounded(product(x, transposed(x, rows, columns), rows, columns, rows));
    std::vector<T> factor = product(gram, gram, rows, rows, rows);
    for (size_t i = 0; i < factor.size(); ++i) factor[i] = T(step.b) * gram[i] + T(step.c) * factor[i];
    const std::vector<T> moved = product(rounded(factor), x, rows, rows, columns);
    for (size_t i = 0; i < x.size(); ++i) x[i] = T(step.a) * x[i] + moved[i];
    x = rounded(x);
  }
  return x;
}

// One matrix; g is scaled by `gradient_scale`, `average` may be null and has the decay `ema`.
template <class T, class Stored>
void muon_step(const MuonStep& step, NewtonSchulz kind, double gradient_scale, double ema, int64_t rows,
               int64_t columns, T* w, const T* g, T* m, T* average, const Stored& stored) {
  using std::sqrt;
  std::vector<T> u(rows * columns);
  T squares = 0;
  for (size_t i = 0; i < u.size(); ++i) {
    const T gradient = T(gradient_scale) * g[i];
    m[i] += T(1 - step.momentum) * (gradient - m[i]);
    u[i] = gradient + T(step.momentum) * (m[i] - gradient);
    squares += u[i] * u[i];
  }
  const T divisor = sqrt(squares) + T(kMuonEpsilon);
  for (T& value : u) value /= divisor;
  const std::vector<T> x = newton_schulz(kind, std::move(u), rows, columns, stored);
  for (size_t i = 0; i < x.size(); ++i) {
    w[i] -= T(step.rate) * (T(muon_scale(rows, columns)) * x[i] + T(step.decay) * w[i]);
    if (average) average[i] = T(ema) * average[i] + T(1 - ema) * w[i];
  }
}

}  // namespace longstride::reference
