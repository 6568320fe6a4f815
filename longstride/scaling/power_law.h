// The law L(x) = L_inf + (x0 / x)^a by which losses fall with parameters, data or compute (Kaplan et al., "Scaling laws
// for neural language models", 2020; with the floor L_inf: Henighan et al., "Scaling laws for autoregressive generative
// modeling", 2020), fitted to runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace longstride {

struct PowerLaw {
  double floor = 0;      // L_inf, what no x goes below
  double log_scale = 0;  // ln x0; x0 itself may be beyond the range of numbers
  double exponent = 0;   // a
  double at(double x) const;
};

// Holds 95 % of the values of resampled fits.
struct FitInterval {
  double low = 0, high = 0;
};

struct PowerLawFit {
  PowerLaw law;
  std::vector<PowerLaw> resampled;  // fits of the law's own values with its residuals dealt out anew
  FitInterval floor, log_scale, exponent;
  double spread = 0;  // root mean square of the residuals of ln L: 0.01 is one per cent
  // Of the law's value at x.
  FitInterval at(double x) const;
};

// At least so many different x are needed: the law has three numbers.
inline constexpr size_t kFewestForPowerLaw = 4;

// Fits the law to the points (x[i], loss[i]), all above 0. What is made small is the sum over the points of Huber's
// function of the residual of ln L, which is its square near 0 and grows like its absolute value for points far off,
// so that one bad run does not turn the law. For each of a row of floors below the lowest loss the other two numbers follow
// by damped Gauss-Newton steps from a straight line; the best floor is then searched by golden sections. No random
// number is in it, and those of the resampling depend on `seed` alone. Throws Error for fewer than
// kFewestForPowerLaw different x, and for losses that do not fall with x.
PowerLawFit fit_power_law(const std::vector<double>& x, const std::vector<double>& loss, int resamples = 1000,
                          uint64_t seed = 1);

}  // namespace longstride
