#include "longstride/pattern/part.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "longstride/base/check.h"

namespace longstride {

namespace {

bool inside(std::span<const IndexRange> ranges, int64_t position) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const IndexRange& r) { return position >= r.begin && position < r.end; });
}

// For each tile of a grid whether its positions are in `ranges`.
std::vector<bool> tiles_inside(const TileGrid& grid, std::span<const IndexRange> ranges) {
  std::vector<bool> result(static_cast<size_t>(grid.count()));
  for (int64_t tile = 0; tile < grid.count(); ++tile) {
    int64_t in = 0, all = 0;
    for (int64_t i = grid.begin(tile); i < grid.begin(tile) + grid.size(tile); ++i) {
      const int64_t position = grid.order.position(i);
      if (position >= grid.order.n) continue;
      ++all;
      in += inside(ranges, position) ? 1 : 0;
    }
    LONGSTRIDE_CHECK(
        in == 0 || in == all,
        "{} positions cannot be shared out so: a tile of {} queries, {} apart, would be cut; take a "
        "longer context or fewer ranks for each sequence",
        grid.order.n, grid.tile, grid.order.kind == TokenOrder::Kind::lanes ? grid.order.width : 1);
    result[static_cast<size_t>(tile)] = in > 0;
  }
  return result;
}

int64_t tiles_in(const TileLists& lists) {
  int64_t tiles = 0;
  for (const TileRun& run : lists.runs) tiles += run.end - run.begin;
  return tiles;
}

// The lists of those tiles alone.
TileLists only(const TileLists& lists, const std::vector<bool>& tiles) {
  TileLists result;
  result.offsets.push_back(0);
  for (size_t tile = 0; tile < tiles.size(); ++tile) {
    if (tiles[tile])
      for (const TileRun& run : lists.of(static_cast<int64_t>(tile))) result.runs.push_back(run);
    result.offsets.push_back(static_cast<int64_t>(result.runs.size()));
  }
  return result;
}

// The lists with those of the visited tiles alone.
TileLists visiting_only(const TileLists& lists, const std::vector<bool>& tiles) {
  TileLists result;
  result.offsets.push_back(0);
  for (int64_t tile = 0; tile + 1 < static_cast<int64_t>(lists.offsets.size()); ++tile) {
    for (const TileRun& run : lists.of(tile))
      for (int32_t begin = run.begin; begin < run.end;) {
        int32_t end = begin;
        while (end < run.end && tiles[static_cast<size_t>(end)]) ++end;
        if (end > begin) result.runs.push_back({begin, end, run.full});
        begin = end + 1;
      }
    result.offsets.push_back(static_cast<int64_t>(result.runs.size()));
  }
  return result;
}

}  // namespace

std::array<IndexRange, 2> positions_of_part(int64_t n, int64_t parts, int64_t index) {
  LONGSTRIDE_CHECK(parts >= 1 && index >= 0 && index < parts, "part {} of {}", index, parts);
  LONGSTRIDE_CHECK(
      n % (2 * parts) == 0,
      "{} positions cannot be shared out to {} ranks, each with two chunks of one length; take a "
      "context that is a multiple of {}",
      n, parts, 2 * parts);
  const int64_t length = n / (2 * parts), mirror = 2 * parts - 1 - index;
  return {IndexRange{index * length, (index + 1) * length}, {mirror * length, (mirror + 1) * length}};
}

Plan plan_of_queries(Plan plan, std::span<const IndexRange> ranges) {
  int64_t before = 0, after = 0;
  for (Pass& pass : plan.passes) {
    const std::vector<bool> tiles = tiles_inside(pass.queries, ranges);
    before += tiles_in(pass.rows);
    pass.rows = only(pass.rows, tiles);
    pass.columns = visiting_only(pass.columns, tiles);
    after += tiles_in(pass.rows);
  }
  if (before > 0)
    plan.pairs = std::llround(static_cast<double>(plan.pairs) * static_cast<double>(after) /
                              static_cast<double>(before));
  return plan;
}

void mark_keys(const Plan& plan, std::vector<bool>& keys) {
  for (const Pass& pass : plan.passes) {
    for (int64_t tile = 0; tile < pass.keys.count(); ++tile) {
      if (pass.columns.of(tile).empty()) continue;
      for (int64_t i = pass.keys.begin(tile); i < pass.keys.begin(tile) + pass.keys.size(tile); ++i) {
        const int64_t position = pass.keys.order.position(i);
        if (position < plan.n) keys[static_cast<size_t>(position)] = true;
      }
    }
  }
}

}  // namespace longstride
