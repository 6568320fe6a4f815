#include "longstride/train/spike_watch.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/checkpoint/checkpoint.h"

namespace longstride {

namespace {

constexpr size_t kWindow = 64, kFewest = 16;
constexpr double kNormal = 1.4826, kLeastDeviation = 0.01;

// The upper of the two in the middle of an even number.
double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

double SpikeWatch::limit(double deviations) const {
  if (losses_.size() < kFewest) return std::numeric_limits<double>::infinity();
  const double middle = median(losses_);
  std::vector<double> distances;
  for (const double loss : losses_) distances.push_back(std::abs(loss - middle));
  return middle + deviations * std::max(kLeastDeviation, kNormal * median(std::move(distances)));
}

void SpikeWatch::add(double bits) {
  if (losses_.size() == kWindow) losses_.erase(losses_.begin());
  losses_.push_back(bits);
}

double SpikeWatch::middle() const { return losses_.empty() ? 8 : median(losses_); }

std::string SpikeWatch::to_text() const {
  std::string text;
  for (const double loss : losses_) text += fmt::format("{}{:a}", text.empty() ? "" : " ", loss);
  return text;
}

SpikeWatch SpikeWatch::from_text(const std::string& text) {
  SpikeWatch watch;
  if (text.empty()) return watch;
  const std::string what = "the checkpoint's state: train.recent_losses";
  const std::vector<std::string> parts = split(text, ' ');
  LONGSTRIDE_CHECK(parts.size() <= kWindow, "{} has {} losses, more than {}", what, parts.size(), kWindow);
  for (const std::string& part : parts) {
    const double loss = parse_exact_number(part, what);
    LONGSTRIDE_CHECK(loss >= 0, "{} has {}, must not be negative", what, loss);
    watch.losses_.push_back(loss);
  }
  return watch;
}

}  // namespace longstride
