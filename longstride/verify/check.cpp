#include "longstride/verify/check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "longstride/base/check.h"
#include "longstride/device/instructions.h"

namespace longstride::verify {

double relative_error(std::span<const float> ours, std::span<const double> reference, double smallest) {
  LONGSTRIDE_CHECK(ours.size() == reference.size(), "relative_error of {} results and {} references",
                   ours.size(), reference.size());
  double difference = 0, magnitude = smallest;
  for (size_t i = 0; i < ours.size(); ++i) {
    if (static_cast<double>(ours[i]) == reference[i] && std::isinf(reference[i])) continue;
    if (!std::isfinite(ours[i]) || !std::isfinite(reference[i]))
      return std::numeric_limits<double>::infinity();
    difference = std::max(difference, std::abs(static_cast<double>(ours[i]) - reference[i]));
    magnitude = std::max(magnitude, std::abs(reference[i]));
  }
  return difference / magnitude;
}

double rounding_floor(double floor) {
  const bool fused = may_use(Instructions::avx2) || may_use(Instructions::neon);
  return (fused ? 1 : 2) * floor;
}

Check compare(std::string name, std::span<const float> ours, std::span<const float> naive,
              std::span<const double> reference, double floor) {
  Check check;
  check.name = std::move(name);
  check.error = relative_error(ours, reference);
  // A naive result that overflowed allows no error: only the floor is left.
  const double naive_error = relative_error(naive, reference);
  check.allowed = (std::isfinite(naive_error) ? 2 * naive_error : 0) + rounding_floor(floor);
  return check;
}

}  // namespace longstride::verify
