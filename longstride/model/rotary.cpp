#include "longstride/model/rotary.h"

#include <algorithm>
#include <cmath>

#include "longstride/base/threads.h"

namespace longstride {

namespace {
constexpr double kPublishedBase = 10000;
}

std::vector<int64_t> axis_strides(const ModelConfig& config) {
  const std::vector<int64_t> extents = config.axes();
  constexpr int64_t kMost = int64_t{1} << 32;
  std::vector<int64_t> strides(extents.size(), 1);
  for (size_t axis = extents.size(); axis-- > 1;)
    strides[axis - 1] = std::min(strides[axis] * extents[axis], kMost);
  return strides;
}

RotaryPair rotary_pair(const ModelConfig& config, int64_t pair) {
  const std::vector<int64_t> extents = config.axes();
  const int64_t pairs = config.qk_head() / 2, axes = std::ssize(extents), axis = pair % axes;
  const auto extent = static_cast<double>(extents[axis]);
  const double base = config.rotary_base > 0 ? config.rotary_base
                      : axes == 1            ? std::max(kPublishedBase, extent)
                                             : std::max(2.0, extent);
  return {axis, pair / axes, (pairs - axis + axes - 1) / axes, base};
}

RotaryAngles::RotaryAngles(const ModelConfig& config)
    : extents_(config.axes()), strides_(axis_strides(config)) {
  for (int64_t i = 0; i < config.qk_head() / 2; ++i) {
    const RotaryPair pair = rotary_pair(config, i);
    axis_.push_back(static_cast<size_t>(pair.axis));
    frequency_.push_back(
        std::pow(pair.base, -static_cast<double>(pair.index) / static_cast<double>(pair.count)));
  }
}

double RotaryAngles::operator()(int64_t position, int64_t pair) const {
  const size_t axis = axis_[pair];
  const int64_t coordinate = position / strides_[axis] % extents_[axis];
  return static_cast<double>(coordinate) * frequency_[pair];
}

Tensor allocate_rotation(const ModelConfig& config, int64_t positions, Arena& arena) {
  if (config.positions != "rotary") return {};
  return arena.allocate(DType::f32, {positions, config.qk_head()});
}

void fill_rotation(const ModelConfig& config, const Tensor& rotation, int64_t first) {
  if (!rotation) return;
  const RotaryAngles angles(config);
  const int64_t n = rotation.shape[0], width = config.qk_head(), half = width / 2;
  std::vector<float> made;
  const bool on_cpu = rotation.device == DeviceKind::cpu;
  if (!on_cpu) made.resize(n * width);
  float* const table = on_cpu ? rotation.as<float>() : made.data();
  constexpr int64_t kPositions = 256;
  parallel_for((n + kPositions - 1) / kPositions, [&](int64_t piece) {
    for (int64_t i = piece * kPositions; i < std::min(n, (piece + 1) * kPositions); ++i)
      for (int64_t pair = 0; pair < half; ++pair) {
        const double angle = angles(first + i, pair);
        table[i * width + pair] = static_cast<float>(std::cos(angle));
        table[i * width + half + pair] = static_cast<float>(std::sin(angle));
      }
  });
  if (!on_cpu) copy(Tensor(table, DType::f32, {n, width}), rotation);
}

}  // namespace longstride
