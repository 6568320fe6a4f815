// Comparisons of the fast paths with the fp64 reference, run by `longstride selftest` on the user's machine
// and, with more shapes, by the tests.
//
// The rule for every comparison: the error of the fast path is at most twice that of the naive computation in
// the same precision, plus a rounding floor, which is doubled where the instructions that may be used have no
// fused multiply-add. Errors are the largest absolute difference over the largest
// reference magnitude.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "longstride/device/device.h"

namespace longstride::verify {

struct Check {
  std::string name;    // "attention backward dk, window:5+prefix:2, n 17, D 8/4"
  double error = 0;    // of the fast path; infinity if it holds a NaN where the reference does not
  double allowed = 0;  // 2 * naive error + floor
  bool passed() const { return error <= allowed; }
};

enum class Effort { quick, thorough };  // seconds for selftest | what the tests run

// max |ours - reference| / max |reference| (the divisor is at least `smallest`). NaN on either side counts as
// infinity, equal infinities as no difference.
double relative_error(std::span<const float> ours, std::span<const double> reference,
                      double smallest = 1e-30);

// `floor`, doubled where the instructions that may be used have no fused multiply-add: each product of a sum
// is then rounded as well.
double rounding_floor(double floor);

// Applies the rule; `naive` is the same-precision naive result.
Check compare(std::string name, std::span<const float> ours, std::span<const float> naive,
              std::span<const double> reference, double floor = 1e-6);

}  // namespace longstride::verify
