// A plan in the form in which blocks of threads walk it.
//
// A block owns a pair of neighbouring tiles, 128 rows, of one side: queries in the forward and for dQ, keys
// for dK and dV. It visits tiles of the other side one after the other. For each half of the pair a visit
// is full, masked or absent. Passes whose rows have the same order are walked together; they form a sweep.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "longstride/pattern/tile_masks.h"

namespace longstride {

// Division of numbers below 2^31 by a constant divisor d: q = n * multiplier >> (31 + shift), exact for
// multiplier = floor(2^(31 + shift) / d) + 1 and shift = ceil(log2 d) (Granlund, Montgomery, "Division by
// invariant integers using multiplication", 1994).
struct Divisor {
  uint32_t multiplier = 0x80000001u;
  int shift = 0;
  Divisor() = default;
  explicit Divisor(int d) {
    while ((int64_t{1} << shift) < d) ++shift;
    multiplier = static_cast<uint32_t>((uint64_t{1} << (31 + shift)) / static_cast<uint64_t>(d) + 1);
  }
  LONGSTRIDE_HOST_DEVICE uint32_t divide(uint32_t n) const {
    return static_cast<uint32_t>((static_cast<uint64_t>(n) * multiplier) >> (31 + shift));
  }
};

// The rows of one tile. One formula serves every order: natural order is one endless block, and a lane is
// blocks of one position each.
struct TilePlace {
  int n = 0, first = 0;
  int leap = 0;  // from the end of a block of `count` indices to the beginning of the next
  Divisor by_count;
  int begin = 0, end = 0;  // indices in the lane; begin >= end: no such tile

  // Whether row `row` has a position. Sets `at` in any case.
  LONGSTRIDE_HOST_DEVICE bool find(int row, uint32_t& at) const {
    const int index = begin + row;
    at = by_count.divide(static_cast<uint32_t>(index)) * static_cast<uint32_t>(leap) +
         static_cast<uint32_t>(first + index);
    return index < end && at < static_cast<uint32_t>(n);
  }
  // The position of row `row`; n if there is none.
  LONGSTRIDE_HOST_DEVICE int position(int row) const {
    uint32_t at = 0;
    return find(row, at) ? static_cast<int>(at) : n;
  }
};

// TokenOrder and a TileGrid of kMaskTile in 32 bits.
struct CompactOrder {
  int n = 0, first = 0, leap = 0;
  Divisor by_count, by_tiles_per_lane;
  int lane_length = 0, tiles_per_lane = 1, tiles = 0;

  CompactOrder() = default;
  explicit CompactOrder(const TileGrid& grid);

  LONGSTRIDE_HOST_DEVICE TilePlace place(int tile) const {
    const auto lane = static_cast<int>(by_tiles_per_lane.divide(static_cast<unsigned>(tile)));
    const int begin = (tile - lane * tiles_per_lane) * static_cast<int>(kMaskTile);
    return {n, first + lane, leap, by_count, begin, tile < tiles ? lane_length : 0};
  }
};

inline constexpr int kFull = -1, kAbsent = -2;  // instead of the number of a mask

// Tiles [begin, end) of the other side, all in the same state for each half.
struct VisitRun {
  int begin = 0, end = 0;
  int mask[2] = {kFull, kFull};
  int pass = 0;  // of the sweep, which gives the order of the tiles
  int unused[3] = {};
};

// The masks of a plan's passes, one after the other, and the masks of full tiles at an end, which have fewer
// than kMaskTile rows.
class VisitMasks {
 public:
  // Returns the number of the first of them.
  int append(const std::vector<TileMask>& masks);
  // The number of the mask of a full tile with this many queries and keys; kFull if the tile is whole.
  int full(int64_t queries, int64_t keys);
  const std::vector<TileMask>& all() const { return all_; }

 private:
  std::vector<TileMask> all_;
  std::map<std::pair<int64_t, int64_t>, int> ends_;
};

struct VisitSweep {
  TileGrid rows;                 // of the owning side
  std::vector<TileGrid> others;  // of the visited side, by pass
  int pairs = 0;
  std::vector<int> offsets;  // (pairs + 1): where a pair's runs begin
  std::vector<VisitRun> runs;
  std::vector<int> visits;  // (pairs): how many tiles each pair visits
  int shared_tiles = 0;     // visited by many pairs: what a cache should hold of each head
  bool covers = true;       // every position is a row, so the output need not be zeroed before
  bool closed = true;       // pairs visit nothing but their own tiles
};

struct PlanVisits {
  std::vector<VisitSweep> queries;  // rows are queries: the forward and dQ
  std::vector<VisitSweep> keys;     // rows are keys: dK and dV; one for each pass
};

// Every allowed pair of `plan` is in one visit of `queries` and in one of `keys`. The plan's tiles are of
// kMaskTile. `masks` are those of its passes; they are added to `all`. A plan without passes has sweeps
// without visits. Throws Error for more positions or visits than 32 bits can number.
PlanVisits list_visits(const Plan& plan, const std::vector<TileMasks>& masks, VisitMasks& all);

}  // namespace longstride
