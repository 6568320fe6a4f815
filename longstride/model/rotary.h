// Rotary positions (Su and others, 2021): the angle by which each pair of a head's channels turns at a
// position.
//
// With one axis, pair i of D / 2 turns by position * base^(-2i / D), as published. With several, the pairs
// are distributed over the axes in turn. Those of one axis turn by the position's coordinate there (as in
// embedding.h) times frequencies from 1 down to about 1 / base. The base is model.rotary_base. Where that is
// 0, it is the extent of the axis, so that the slowest pair turns once over about six times the axis; with
// only one axis it is at least 10,000, as published.
#pragma once

#include <vector>

#include "longstride/device/memory.h"
#include "longstride/model/config.h"

namespace longstride {

// Position p has the coordinate p / strides[axis] % extents[axis]. A stride beyond all positions is cut, since
// the product of the extents that a config names may be beyond every integer.
std::vector<int64_t> axis_strides(const ModelConfig& config);

// How pair `pair` of D / 2 turns: by base^-(index / count) radians for a step of the axis' coordinate. The pairs take
// turns over the axes.
struct RotaryPair {
  int64_t axis = 0, index = 0, count = 1;
  double base = 1;
};
RotaryPair rotary_pair(const ModelConfig& config, int64_t pair);

// Angle of pair `pair` of D / 2 at `position`, in radians. For models with positions = "rotary".
class RotaryAngles {
 public:
  explicit RotaryAngles(const ModelConfig& config);
  double operator()(int64_t position, int64_t pair) const;

 private:
  std::vector<int64_t> extents_, strides_;  // of the axes
  std::vector<size_t> axis_;                // of each pair
  std::vector<double> frequency_;           // of each pair
};

// What QueryKey::rotation needs for so many positions: (positions, D) f32, cosines then sines. Empty where the
// model has no rotary positions.
Tensor allocate_rotation(const ModelConfig& config, int64_t positions, Arena& arena);
// Fills that tensor for the positions from `first` on. Computed in double.
void fill_rotation(const ModelConfig& config, const Tensor& rotation, int64_t first = 0);

}  // namespace longstride
