// Comparisons of the fast paths with the fp64 reference. `longstride selftest` runs them on the user's
// machine, and the tests run them with more shapes.
//
// The rule for every comparison: the error of the fast path is at most twice that of the naive computation
// in the same precision, plus a rounding floor. The floor is doubled if the instructions that may be used
// have no fused multiply-add. The error is the largest absolute difference over the largest reference
// magnitude.
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

// max |ours - reference| / max |reference|, where the divisor is at least `smallest`. NaN on either side
// counts as infinity, equal infinities as no difference.
double relative_error(std::span<const float> ours, std::span<const double> reference,
                      double smallest = 1e-30);

// `floor`, doubled if the instructions that may be used have no fused multiply-add: then each product of a
// sum is rounded as well.
double rounding_floor(double floor);

// Applies the rule. `naive` is the result of the naive computation in the same precision.
Check compare(std::string name, std::span<const float> ours, std::span<const float> naive,
              std::span<const double> reference, double floor = 1e-6);

}  // namespace longstride::verify
