// Helpers of the ops' tests.
#pragma once

#include <complex>
#include <functional>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/rng.h"
#include "longstride/ops/context.h"
#include "longstride/verify/check.h"

namespace longstride {

using Complex = std::complex<double>;

inline void expect_all_pass(const std::vector<verify::Check>& checks) {
  ASSERT_FALSE(checks.empty());
  for (const verify::Check& check : checks)
    EXPECT_TRUE(check.passed()) << check.name << ": error " << check.error << ", allowed " << check.allowed;
}

inline std::vector<double> normal_doubles(uint32_t which, int64_t count) {
  const RandomStream random{99, which, 0};
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(random.normal(static_cast<uint64_t>(i)));
  return values;
}

// The derivatives of a real analytic scalar function at `at`, by complex steps: exact up to rounding,
// without a step size to tune.
inline std::vector<double> complex_step_gradient(
    const std::function<Complex(const std::vector<Complex>&)>& function, const std::vector<double>& at) {
  constexpr double kStep = 1e-100;
  std::vector<double> gradient;
  std::vector<Complex> point(at.begin(), at.end());
  for (Complex& coordinate : point) {
    coordinate += Complex(0, kStep);
    gradient.push_back(function(point).imag() / kStep);
    coordinate = coordinate.real();
  }
  return gradient;
}

inline std::vector<Complex> complexified(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

inline Complex dot(const std::vector<Complex>& a, const std::vector<Complex>& b) {
  Complex sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

inline void expect_near_all(const std::vector<double>& ours, const std::vector<double>& truth,
                            double tolerance) {
  ASSERT_EQ(ours.size(), truth.size());
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_NEAR(ours[i], truth[i], tolerance) << "at " << i;
}

template <class T>
Tensor matrix(std::vector<T>& values, int64_t rows, int64_t columns) {
  return {values.data(), dtype_of<T>(), {rows, columns}};
}

template <class T>
Tensor flat(std::vector<T>& values) {
  return {values.data(), dtype_of<T>(), {static_cast<int64_t>(values.size())}};
}

// The message of the Error that `call` throws.
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace longstride
