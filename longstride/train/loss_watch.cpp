#include "longstride/train/loss_watch.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace longstride {

namespace {
constexpr int kRecent = 5, kBefore = 20;
constexpr double kUniform = 8, kAbove = 0.25, kRise = 1, kNoise = 4, kForgets = 0.998;
}  // namespace

std::optional<LossWatch::Rise> LossWatch::add(double bits) {
  losses_.push_back(bits);
  if (losses_.size() > kRecent + kBefore) losses_.pop_front();
  if (said_ || losses_.size() < kRecent) return {};
  const auto recent = losses_.end() - kRecent;
  const double now = std::accumulate(recent, losses_.end(), 0.0) / kRecent;
  if (losses_.size() == kRecent + kBefore) {
    const double mean = std::accumulate(losses_.begin(), recent, 0.0) / kBefore;
    // By the differences between neighbours: the fall of the losses hardly changes them.
    double squares = 0;
    for (auto loss = losses_.begin() + 1; loss != recent; ++loss)
      squares += (*loss - *(loss - 1)) * (*loss - *(loss - 1));
    spread_ = std::max(spread_ * kForgets, std::sqrt(squares / 2 / (kBefore - 1)));
    const double noise = kNoise * spread_ * (1 / std::sqrt(double{kRecent}) + 1 / std::sqrt(double{kBefore}));
    if (has_lowest_ && now > lowest_ + std::max(kRise, noise)) return said_ = true, Rise{lowest_, now};
    lowest_ = has_lowest_ ? std::min(lowest_, mean) : mean;
    has_lowest_ = true;
  }
  if (now > kUniform + kAbove) return said_ = true, Rise{has_lowest_ ? lowest_ : kUniform, now};
  return {};
}

void LossWatch::restart() {
  losses_.clear();
  has_lowest_ = false;
  lowest_ = spread_ = 0;
}

}  // namespace longstride
