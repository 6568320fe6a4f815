#include "longstride/pattern/boxes.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace longstride {

BoxOrder::BoxOrder(const TileGrid& grid) : kind(grid.order.kind) {
  const TokenOrder& order = grid.order;
  constexpr int kNever = std::numeric_limits<int>::max();
  split = kNever;
  tiles_per_lane = static_cast<int>(grid.tiles_per_lane());
  by_tiles_per_lane = Divisor(tiles_per_lane);
  if (kind == TokenOrder::Kind::lanes && order.n % order.width != 0)
    split = static_cast<int>(order.n % order.width);
  if (kind == TokenOrder::Kind::summary) {
    count = static_cast<int>(order.count);
    by_count = Divisor(count);
    box_rows = static_cast<int>(std::gcd(order.count, kMaskTile));
    if (order.lane_length() % order.count != 0) split = static_cast<int>(order.lane_length() / order.count);
  }
}

BoxViews box_views(const TokenOrder& order) {
  const int64_t n = order.n, length = order.lane_length();
  const LaneSteps steps = order.lane(0);
  const int64_t apart = steps.count + steps.leap;
  BoxViews views;
  if (order.kind == TokenOrder::Kind::natural) {
    views.whole = views.tail = {n, 1, 1, n, 0};
  } else if (order.kind == TokenOrder::Kind::lanes) {
    // The first n % apart lanes have a position more than the others.
    const int64_t longer = n % apart;
    views.whole = {longer == 0 ? apart : longer, length, 1, apart, 0};
    views.tail = {std::min(apart, n), std::max<int64_t>(n / apart, 1), 1, apart, 0};
    if (longer == 0) views.tail = views.whole;
  } else {
    const int64_t runs = length / steps.count, rest = length % steps.count;
    views.whole = {steps.count, runs, 1, apart, steps.first};
    views.tail = {rest, 1, 1, apart, steps.first + runs * apart};
    if (runs == 0) views.whole = views.tail;
    if (rest == 0) views.tail = views.whole;
  }
  return views;
}

}  // namespace longstride
