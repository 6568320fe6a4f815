#include "longstride/scaling/power_law.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "longstride/base/check.h"
#include "longstride/base/rng.h"

namespace longstride {

namespace {

constexpr uint32_t kStream = 7;             // of resampling
constexpr double kSteepest = 20;            // exponents above are none that losses have
constexpr double kHighestFloor = 1 - 1e-6;  // of the lowest loss
constexpr double kFirstKink =
    1e-3;  // of Huber's function, before the spread is known: nearly absolute values
constexpr double kLeastKink = 1e-4;
constexpr int kGoldenSteps = 24, kGaussNewtonSteps = 30;

// Quadratic up to the kink, then linear.
double huber(double residual, double kink) {
  const double size = std::abs(residual);
  return size <= kink ? 0.5 * size * size : kink * (size - 0.5 * kink);
}
double huber_weight(double residual, double kink) {
  const double size = std::abs(residual);
  return size <= kink ? 1 : kink / size;
}

struct Points {
  std::vector<double> log_x, log_loss;  // log_x has the mean 0
};

// L = floor + exp(height - slope log_x)
struct Course {
  double floor = 0, height = 0, slope = 0, cost = std::numeric_limits<double>::infinity();
  double log_at(double log_x) const { return std::log(floor + std::exp(height - slope * log_x)); }
};

double cost_of(const Points& points, const Course& course, double kink) {
  double cost = 0;
  for (size_t i = 0; i < points.log_x.size(); ++i)
    cost += huber(points.log_loss[i] - course.log_at(points.log_x[i]), kink);
  return cost;
}

// The straight line of ln (L - floor) against ln x by least squares.
Course straight_line(const Points& points, double floor) {
  Course line;
  line.floor = floor;
  double over = 0, under = 0;
  for (size_t i = 0; i < points.log_x.size(); ++i) {
    const double above = std::log(std::max(std::exp(points.log_loss[i]) - floor, 1e-9));
    line.height += above / static_cast<double>(points.log_x.size());
    over -= above * points.log_x[i];
    under += points.log_x[i] * points.log_x[i];
  }
  line.slope = std::clamp(over / under, 0.0, kSteepest);
  return line;
}

// Height and slope for one floor.
Course fit_above(const Points& points, double floor, double kink) {
  Course best = straight_line(points, floor);
  best.cost = cost_of(points, best, kink);
  double damping = 1e-3;
  for (int step = 0; step < kGaussNewtonSteps; ++step) {
    // The normal equations of both numbers: (h h, h s; h s, s s) change = (gh, gs).
    double hh = 0, hs = 0, ss = 0, gh = 0, gs = 0;
    for (size_t i = 0; i < points.log_x.size(); ++i) {
      const double above = std::exp(best.height - best.slope * points.log_x[i]);
      const double residual = points.log_loss[i] - std::log(floor + above);
      const double weight = huber_weight(residual, kink);
      const double by_height = above / (floor + above), by_slope = -points.log_x[i] * by_height;
      hh += weight * by_height * by_height, hs += weight * by_height * by_slope,
          ss += weight * by_slope * by_slope;
      gh += weight * by_height * residual, gs += weight * by_slope * residual;
    }
    hh *= 1 + damping, ss *= 1 + damping;
    const double determinant = hh * ss - hs * hs;
    if (!(determinant > 1e-300)) break;
    Course next = best;
    next.height += (ss * gh - hs * gs) / determinant;
    next.slope = std::clamp(best.slope + (hh * gs - hs * gh) / determinant, 0.0, kSteepest);
    next.cost = cost_of(points, next, kink);
    if (!(next.cost < best.cost)) {
      damping *= 10;
      if (damping > 1e6) break;
      continue;
    }
    const bool settled = best.cost - next.cost < 1e-12 * best.cost;
    best = next;
    damping = std::max(damping / 10, 1e-9);
    if (settled) break;
  }
  return best;
}

// All three numbers; `floors` is how many are tried before the search.
Course fit_course(const Points& points, double kink, int floors) {
  const double highest =
      kHighestFloor * std::exp(*std::min_element(points.log_loss.begin(), points.log_loss.end()));
  // Floors near the lowest loss differ more from each other than those near 0.
  const auto floor_at = [&](double t) { return highest * (1 - (1 - t) * (1 - t)); };
  const auto course_at = [&](double t) { return fit_above(points, floor_at(t), kink); };
  Course best;
  double at = 0;
  const double step = 1.0 / (floors - 1);
  for (int i = 0; i < floors; ++i) {
    const Course course = course_at(i * step);
    if (course.cost < best.cost) best = course, at = i * step;
  }
  const double golden = (std::sqrt(5.0) - 1) / 2;
  double low = std::max(0.0, at - step), high = std::min(1.0, at + step);
  double left = high - golden * (high - low), right = low + golden * (high - low);
  Course of_left = course_at(left), of_right = course_at(right);
  for (int i = 0; i < kGoldenSteps; ++i) {
    if (of_left.cost <= of_right.cost) {
      high = right, right = left, of_right = of_left;
      left = high - golden * (high - low), of_left = course_at(left);
    } else {
      low = left, left = right, of_left = of_right;
      right = low + golden * (high - low), of_right = course_at(right);
    }
  }
  for (const Course& course : {of_left, of_right})
    if (course.cost < best.cost) best = course;
  return best;
}

std::vector<double> residuals_of(const Points& points, const Course& course) {
  std::vector<double> residuals;
  for (size_t i = 0; i < points.log_x.size(); ++i)
    residuals.push_back(points.log_loss[i] - course.log_at(points.log_x[i]));
  return residuals;
}

// Where Huber's function turns from square to line: 1.345 of a spread that far points do not change, the median of the
// absolute residuals times 1.4826 (which makes it the deviation of normal ones).
double kink_of(std::vector<double> residuals) {
  for (double& residual : residuals) residual = std::abs(residual);
  std::sort(residuals.begin(), residuals.end());
  const size_t half = residuals.size() / 2;
  const double median =
      residuals.size() % 2 == 1 ? residuals[half] : (residuals[half - 1] + residuals[half]) / 2;
  return std::max(1.345 * 1.4826 * median, kLeastKink);
}

FitInterval middle_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double part) {
    const double place = part * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(place);
    const double rest = place - static_cast<double>(below);
    return rest > 0 ? values[below] * (1 - rest) + values[below + 1] * rest : values[below];
  };
  return {at(0.025), at(0.975)};
}

}  // namespace

double PowerLaw::at(double x) const { return floor + std::exp(exponent * (log_scale - std::log(x))); }

FitInterval PowerLawFit::at(double x) const {
  std::vector<double> values;
  for (const PowerLaw& law_again : resampled) values.push_back(law_again.at(x));
  return middle_of(std::move(values));
}

PowerLawFit fit_power_law(const std::vector<double>& x, const std::vector<double>& loss, int resamples,
                          uint64_t seed) {
  LONGSTRIDE_CHECK(x.size() == loss.size(), "{} values of x, {} losses", x.size(), loss.size());
  const size_t different = std::set<double>(x.begin(), x.end()).size();
  LONGSTRIDE_CHECK(different >= kFewestForPowerLaw, "{} different values, at least {} are needed", different,
                   kFewestForPowerLaw);
  Points points;
  for (size_t i = 0; i < x.size(); ++i) {
    LONGSTRIDE_CHECK(x[i] > 0 && std::isfinite(x[i]) && loss[i] > 0 && std::isfinite(loss[i]),
                     "x = {} with loss {}: both must be above 0", x[i], loss[i]);
    points.log_x.push_back(std::log(x[i]));
    points.log_loss.push_back(std::log(loss[i]));
  }
  const auto count = static_cast<double>(x.size());
  const double mean = std::accumulate(points.log_x.begin(), points.log_x.end(), 0.0) / count;
  for (double& value : points.log_x) value -= mean;

  double kink = kFirstKink;
  Course course = fit_course(points, kink, 65);
  for (int i = 0; i < 2; ++i) {
    kink = kink_of(residuals_of(points, course));
    course = fit_course(points, kink, 65);
  }
  LONGSTRIDE_CHECK(course.slope > 1e-6, "the loss does not fall");

  const auto as_law = [&](const Course& fitted) {
    const double slope = std::max(fitted.slope, 1e-6);
    return PowerLaw{fitted.floor, mean + fitted.height / slope, slope};
  };
  PowerLawFit fit;
  fit.law = as_law(course);
  std::vector<double> residuals = residuals_of(points, course);
  double squares = 0;
  for (const double residual : residuals) squares += residual * residual;
  fit.spread = std::sqrt(squares / count);
  // Three numbers were fitted, so residuals are smaller than what the runs vary by.
  for (double& residual : residuals) residual *= std::sqrt(count / std::max(1.0, count - 3));
  Points again = points;
  std::vector<double> floors, scales, exponents;
  for (int resample = 0; resample < resamples; ++resample) {
    const RandomStream random{seed, kStream, static_cast<uint32_t>(resample)};
    for (size_t i = 0; i < residuals.size(); ++i) {
      const auto drawn = static_cast<size_t>(random.uniform(i) * count);
      again.log_loss[i] = course.log_at(points.log_x[i]) + residuals[drawn];
    }
    fit.resampled.push_back(as_law(fit_course(again, kink, 17)));
    floors.push_back(fit.resampled.back().floor);
    scales.push_back(fit.resampled.back().log_scale);
    exponents.push_back(fit.resampled.back().exponent);
  }
  fit.floor = middle_of(std::move(floors));
  fit.log_scale = middle_of(std::move(scales));
  fit.exponent = middle_of(std::move(exponents));
  return fit;
}

}  // namespace longstride
