// A plan as the GPU's kernels walk it.
//
// A block of threads owns a pair of neighbouring tiles, 128 rows, of one side (queries in the forward and for
// dQ, keys for dK and dV) and visits tiles of the other side one after the other; for each half of the pair a
// visit is full, masked or absent. Passes whose rows have the same order are walked by one launch: a sweep.
#pragma once

#include <vector>

#include "longstride/device/memory.h"
#include "longstride/ops/attention.h"

namespace longstride::cuda {

inline constexpr int kTile = 64;  // rows of a tile; a mask's row is one word
inline constexpr int kPair = 2 * kTile;
inline constexpr int kMostPasses = kMaxTerms;

// Division of numbers below 2^31 by one that stays the same: q = n * multiplier >> (31 + shift), exact for
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

// The rows of one tile.
struct TilePlace {
  int kind = 0;  // of TokenOrder
  int n = 0, width = 1, count = 1, first = 0;
  Divisor by_count;
  int lane = 0, begin = 0, end = 0;  // offsets in the lane; begin = end: no such tile

  // The position of row `row`; n or more if there is none.
  LONGSTRIDE_HOST_DEVICE int position(int row) const {
    const int offset = begin + row;
    if (offset >= end) return n;
    if (kind == static_cast<int>(TokenOrder::Kind::natural)) return offset;
    unsigned at = 0;
    if (kind == static_cast<int>(TokenOrder::Kind::lanes)) {
      at = static_cast<unsigned>(offset) * static_cast<unsigned>(width) + static_cast<unsigned>(lane);
    } else {
      const unsigned block = by_count.divide(static_cast<unsigned>(offset));
      at = block * static_cast<unsigned>(width) + static_cast<unsigned>(first) +
           (static_cast<unsigned>(offset) - block * static_cast<unsigned>(count));
    }
    return at < static_cast<unsigned>(n) ? static_cast<int>(at) : n;
  }
};

// TokenOrder and TileGrid in 32 bits.
struct DeviceOrder {
  int kind = 0;
  int n = 0, width = 1, count = 1, first = 0;
  Divisor by_count;
  int lane_length = 0, tiles_per_lane = 1, tiles = 0;

  LONGSTRIDE_HOST_DEVICE TilePlace place(int tile) const {
    if (tile >= tiles) return {kind, n, width, count, first, by_count, 0, 0, 0};
    const int lane = tiles_per_lane == tiles ? 0 : tile / tiles_per_lane;
    const int begin = (tile - lane * tiles_per_lane) * kTile;
    return {kind, n, width, count, first, by_count, lane, begin, lane_length};
  }
};

inline constexpr int kFull = -1, kAbsent = -2;  // instead of the number of a mask

// Tiles [begin, end) of the other side, all in the same state for each half.
struct VisitRun {
  int begin = 0, end = 0;
  int mask[2] = {kFull, kFull};
  int pass = 0;  // whose order the tiles are in
  int unused[3] = {};
};

struct Sweep {
  DeviceOrder rows;                 // of the side that owns
  DeviceOrder others[kMostPasses];  // of the side that is visited, by pass
  int pairs = 0;                    // blocks of threads, a head and sequence
  const int* offsets = nullptr;     // (pairs + 1) in GPU memory: where a pair's runs begin
  const VisitRun* runs = nullptr;
  bool covers = true;  // every position is a row: what is written need not be zeroed before
};

// The heads that share a plan.
struct HeadGroup {
  std::vector<Sweep> queries;  // rows are queries: the forward and dQ
  std::vector<Sweep> keys;     // rows are keys: dK and dV
  const int* heads = nullptr;  // in GPU memory
  int head_count = 0;
};

class AttentionLists {
 public:
  AttentionLists(const AttentionPlan& plan, int device_index);
  const std::vector<HeadGroup>& groups() const { return groups_; }
  const TileMask* masks() const { return masks_; }  // of all passes
  int64_t bytes() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  std::vector<HeadGroup> groups_;
  const TileMask* masks_ = nullptr;
};

}  // namespace longstride::cuda
