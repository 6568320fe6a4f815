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

// The rows of one tile. One formula serves every order: natural order is one endless block, a lane is blocks
// of one position each.
struct TilePlace {
  int n = 0, first = 0;
  int leap = 0;  // from the end of a block of `count` indices to the next
  Divisor by_count;
  int begin = 0, end = 0;  // indices in the lane; begin >= end: no such tile

  // Whether row `row` has a position; `at` is set either way.
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

// TokenOrder and TileGrid in 32 bits.
struct DeviceOrder {
  int n = 0, first = 0, leap = 0;
  Divisor by_count, by_tiles_per_lane;
  int lane_length = 0, tiles_per_lane = 1, tiles = 0;

  LONGSTRIDE_HOST_DEVICE TilePlace place(int tile) const {
    const auto lane = static_cast<int>(by_tiles_per_lane.divide(static_cast<unsigned>(tile)));
    const int begin = (tile - lane * tiles_per_lane) * kTile;
    return {n, first + lane, leap, by_count, begin, tile < tiles ? lane_length : 0};
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

// An order as boxes that Hopper's tensor memory accelerator (TMA) copies. A tensor (B, N, H, D) is seen as
// five axes, D, inner, outer, H, B: inner x outer is the position in natural order (inner alone), lanes
// (lane, index in the lane) or summary (offset in the run, block). Where the sequence ends inside of a lane
// or block there are two views: `whole` and, from inner (lanes) or outer (summary) `split` on, `tail`.
struct BoxOrder {
  TokenOrder::Kind kind = TokenOrder::Kind::natural;
  int box_rows = kTile;
  int split = 0;
  int count = 1;  // of summary
  Divisor by_count, by_tiles_per_lane;
  int tiles_per_lane = 1;
};
inline constexpr int kFewestBoxRows = 8;  // a box begins where the pattern of swapped chunks does

inline constexpr int kMostBoxPasses = 3;

// A sweep that Hopper's kernels can take.
struct BoxSweep {
  Sweep sweep;
  BoxOrder rows, others[kMostBoxPasses];
  TokenOrder row_order, other_orders[kMostBoxPasses];
  int passes = 0;
};

// One unit of work in a launch of Hopper's kernels, of one head and sequence.
struct WorkItem {
  int pair = 0;  // of tiles
  int visits = 0;
  int is_keys = 0;  // of the keys' sweep
  int unused = 0;
};

// What one launch does: the forward a queries' sweep, the backward also a keys' sweep that is independent of
// it. Items stand in the order in which they are started: long ones first where lists are long, so that all
// multiprocessors end together; else neighbours together, so that the cache serves both sweeps.
struct Round {
  BoxSweep queries, keys;
  bool has_queries = false, has_keys = false;
  const WorkItem* items = nullptr;  // in GPU memory
  int item_count = 0;
  int shared_tiles = 0;  // visited by many pairs: what the cache should hold of a head
};

// The heads that share a plan.
struct HeadGroup {
  std::vector<Sweep> queries;  // rows are queries: the forward and dQ
  std::vector<Sweep> keys;     // rows are keys: dK and dV
  // The same for Hopper's kernels; empty where the pattern has orders that the TMA cannot copy.
  std::vector<Round> forward, backward;
  // Where each pair of tiles has its keys among its own rows: the keys' sweep of a backward in one go.
  std::vector<Round> closed;
  const int* heads = nullptr;  // in GPU memory
  int head_count = 0;
};

class AttentionLists final : public longstride::AttentionLists {
 public:
  AttentionLists(const AttentionPlan& plan, int device_index);
  const std::vector<HeadGroup>& groups() const { return groups_; }
  const TileMask* masks() const { return masks_; }  // of all passes
  int* counters() const { return counters_; }       // two, zero between launches
  int64_t bytes() const override { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  std::vector<HeadGroup> groups_;
  const TileMask* masks_ = nullptr;
  int* counters_ = nullptr;
};

// Those of an uploaded plan.
inline const AttentionLists& lists_of(const AttentionPlan& plan) {
  return static_cast<const AttentionLists&>(*plan.on_device);
}

// Whether calls from now on leave kernels that are for one chip alone aside. For tests and benchmarks.
void prefer_portable_attention(bool prefer);

}  // namespace longstride::cuda
