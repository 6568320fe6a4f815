#include "longstride/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace longstride {

double learning_rate(const TrainConfig& config, int64_t step, int64_t total, double progress) {
  // A run shorter than the warm-up would never reach its rate: warm up over at most a tenth of it.
  const int64_t warmup = std::min(config.warmup, std::max<int64_t>(1, total / 10));
  double rate = config.learning_rate *
                std::min(1.0, static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup)));
  if (config.decay == "cosine") {
    const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * std::clamp(progress, 0.0, 1.0)));
    rate *= config.final_rate + (1 - config.final_rate) * cosine;
  }
  return rate;
}

}  // namespace longstride
