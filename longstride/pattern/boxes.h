// An order of tokens as boxes of a tensor: how hardware that copies boxes, such as the tensor memory accelerator (TMA)
// of NVIDIA's Hopper, finds the rows of a tile.
//
// The positions of a sequence are seen as two axes, inner and outer: in natural order as (position, one), in that of
// lanes as (lane, index in the lane), in that of a summary as (offset in the run, block). Where the sequence ends inside
// of a lane's last row or of a block, one view cannot hold all of it. Then there are two.
#pragma once

#include <cstdint>

#include "longstride/pattern/visits.h"

namespace longstride {

// The position of (inner, outer) is first + inner * inner_stride + outer * outer_stride. Extents are at least 1.
struct BoxView {
  int64_t inner = 1, outer = 1, inner_stride = 1, outer_stride = 1, first = 0;
};
struct BoxViews {
  BoxView whole, tail;  // tail is as whole where one view is enough
};

// Where a row stands in its view. Beyond the view's extents there is no position.
struct BoxPlace {
  int inner = 0, outer = 0;
  bool in_tail = false;
};

// A TileGrid of kMaskTile in 32 bits. A tile is copied by boxes of `box_rows` rows, along inner or, in lanes, outer.
struct BoxOrder {
  TokenOrder::Kind kind = TokenOrder::Kind::natural;
  int box_rows = static_cast<int>(kMaskTile);
  int split = 0;  // from this lane or block on rows are in the tail
  int count = 1;  // of summary
  Divisor by_count, by_tiles_per_lane;
  int tiles_per_lane = 1;

  BoxOrder() = default;
  explicit BoxOrder(const TileGrid& grid);  // of one tile at least

  // The first row of tile `tile`, as its lane and the index in that.
  LONGSTRIDE_HOST_DEVICE int lane(int tile) const {
    return static_cast<int>(by_tiles_per_lane.divide(static_cast<uint32_t>(tile)));
  }
  LONGSTRIDE_HOST_DEVICE int begin_in_lane(int tile, int lane) const {
    return (tile - lane * tiles_per_lane) * static_cast<int>(kMaskTile);
  }
  // The place of a box's first row. The others follow it along the axis.
  LONGSTRIDE_HOST_DEVICE BoxPlace place(int lane, int index) const {
    if (kind == TokenOrder::Kind::lanes) return {lane, index, lane >= split};
    if (kind == TokenOrder::Kind::natural) return {index, 0, false};
    const auto block = static_cast<int>(by_count.divide(static_cast<uint32_t>(index)));
    const bool in_tail = block >= split;
    return {index - block * count, in_tail ? block - split : block, in_tail};
  }
};

// Of an order with one index at least.
BoxViews box_views(const TokenOrder& order);

}  // namespace longstride
