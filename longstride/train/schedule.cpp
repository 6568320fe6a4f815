#include "longstride/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "longstride/base/check.h"

namespace longstride {

int64_t total_steps(const TrainConfig& config, int64_t windows) {
  if (config.epochs <= 0) return config.steps;
  const double steps = config.epochs * static_cast<double>(windows) / static_cast<double>(config.batch);
  LONGSTRIDE_CHECK(steps <= static_cast<double>(kMostSteps),
                   "train.epochs = {} are {} steps, at most {} can be", config.epochs, steps, kMostSteps);
  return std::max<int64_t>(1, std::llround(steps));
}

int64_t warmup_steps(const TrainConfig& config, int64_t total) {
  if (config.warmup < 0) return std::clamp<int64_t>(total / 10, 1, 100);
  // The first runs used schedule 1.
  return config.schedule == 1 ? std::min(config.warmup, std::max<int64_t>(1, total / 10)) : config.warmup;
}

namespace {

double scheduled(double peak, const TrainConfig& config, int64_t step, int64_t total, double progress,
                 double warmup_end) {
  // In the first runs the cosine begins at the first step, not after the warm-up.
  const bool first = config.schedule == 1;
  const int64_t warmup = warmup_steps(config, total);
  double rate =
      peak * std::min(1.0, static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup)));
  if (config.decay != "constant" && (first || step > warmup)) {
    const double part = first ? progress : (progress - warmup_end) / std::max(1e-12, 1 - warmup_end);
    const double over = std::clamp(part, 0.0, 1.0);
    const double left = config.decay == "linear" ? 1 - over : 0.5 * (1 + std::cos(std::numbers::pi * over));
    rate *= config.final_rate + (1 - config.final_rate) * left;
  }
  return rate;
}

}  // namespace

double learning_rate(const TrainConfig& config, int64_t step, int64_t total, double progress,
                     double warmup_end) {
  return scheduled(config.learning_rate, config, step, total, progress, warmup_end);
}

double muon_rate(const TrainConfig& config, int64_t step, int64_t total, double progress, double warmup_end) {
  return scheduled(config.muon_rate, config, step, total, progress, warmup_end);
}

}  // namespace longstride
