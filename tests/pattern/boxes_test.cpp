// Every row that boxes copy is the row of its tile, and what stands nowhere in the sequence is beyond their views.
#include "longstride/pattern/boxes.h"

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace longstride {
namespace {

// The position that a box reads at `place`, -1 beyond the view.
int64_t read_at(const BoxViews& views, const BoxPlace& place) {
  const BoxView& view = place.in_tail ? views.tail : views.whole;
  if (place.inner >= view.inner || place.outer >= view.outer) return -1;
  return view.first + place.inner * view.inner_stride + place.outer * view.outer_stride;
}

// "" or the first row that is another one than the order says.
std::string fault(const TokenOrder& order) {
  if (order.lane_length() == 0) return "";  // a run that no block of so few positions has
  const TileGrid grid{order, kMaskTile};
  const BoxOrder boxes(grid);
  const BoxViews views = box_views(order);
  for (const BoxView& view : {views.whole, views.tail})
    if (view.inner < 1 || view.outer < 1) return "an empty view";
  for (int64_t tile = 0; tile < grid.count(); ++tile) {
    const int lane = boxes.lane(static_cast<int>(tile)),
              begin = boxes.begin_in_lane(static_cast<int>(tile), lane);
    for (int row = 0; row < kMaskTile; ++row) {
      const int in_box = row % boxes.box_rows;
      BoxPlace place = boxes.place(lane, begin + row - in_box);
      (order.kind == TokenOrder::Kind::lanes ? place.outer : place.inner) += in_box;
      const int64_t position = row < grid.size(tile) ? order.position(grid.begin(tile) + row) : order.n;
      const int64_t expected = position < order.n ? position : -1, read = read_at(views, place);
      if (read != expected)
        return fmt::format("tile {}, row {}: reads {}, not {}", tile, row, read, expected);
    }
  }
  return "";
}

TEST(Boxes, ReadEveryRowOfEveryTile) {
  for (int64_t n = 1; n <= 300; ++n) {
    EXPECT_EQ(fault({TokenOrder::Kind::natural, n}), "") << n;
    for (const int64_t width : {1, 2, 3, 7, 16, 60, 64, 100, 299})
      EXPECT_EQ(fault({TokenOrder::Kind::lanes, n, width}), "") << "lanes of " << width << ", n " << n;
    for (const auto& [width, count] : std::vector<std::pair<int64_t, int64_t>>{
             {8, 8}, {16, 8}, {24, 8}, {40, 16}, {64, 32}, {100, 24}, {128, 32}, {130, 64}})
      for (int64_t run = 0; (run + 1) * count <= width; ++run)
        EXPECT_EQ(fault({TokenOrder::Kind::summary, n, width, count, run}), "")
            << "run " << run << " of " << count << " in " << width << ", n " << n;
  }
}

}  // namespace
}  // namespace longstride
