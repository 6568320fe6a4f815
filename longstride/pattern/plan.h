// From a pattern and a length to tiles of work, by exact arithmetic.
//
// In some order of the positions, the keys of a term are one interval. For window, block, prefix,
// previous-row and dense this is the natural order. For stride and dilated it is the order of columns:
// position = row * l + lane, lanes one after the other. For summary the keys are gathered into consecutive
// indices. Terms with the same orders form one Pass. A Plan is a list of passes. A pass excludes the pairs
// of earlier passes, so each allowed pair is in exactly one pass and counts once.
//
// Kernels walk a pass by tiles: `rows` lists the key tiles that each query tile touches (forward, dQ),
// `columns` the query tiles that each key tile touches (dK, dV). A full tile needs no mask; in a partial
// one `allows_index` decides.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "longstride/pattern/pattern.h"
#include "longstride/pattern/token_order.h"

namespace longstride {

// Cuts an order into tiles of at most `tile` consecutive indices; no tile crosses a lane.
struct TileGrid {
  TokenOrder order;
  int64_t tile = 1;

  LONGSTRIDE_HOST_DEVICE int64_t tiles_per_lane() const { return (order.lane_length() + tile - 1) / tile; }
  LONGSTRIDE_HOST_DEVICE int64_t count() const { return order.lanes() * tiles_per_lane(); }
  // Of tile t: its lane, and its first index in that.
  LONGSTRIDE_HOST_DEVICE int64_t lane(int64_t t) const { return t / tiles_per_lane(); }
  LONGSTRIDE_HOST_DEVICE int64_t begin_in_lane(int64_t t) const { return t % tiles_per_lane() * tile; }
  LONGSTRIDE_HOST_DEVICE int64_t begin(int64_t t) const {  // first compact index of tile t
    return lane(t) * order.lane_length() + begin_in_lane(t);
  }
  LONGSTRIDE_HOST_DEVICE int64_t
  size(int64_t t) const {  // indices in tile t (padding at a lane's end included)
    const int64_t left = order.lane_length() - begin_in_lane(t);
    return left < tile ? left : tile;
  }
};

// Consecutive tiles [begin, end): all are full, or all need a mask.
struct TileRun {
  int32_t begin = 0;
  int32_t end = 0;
  bool full = false;
  bool operator==(const TileRun&) const = default;
};

// Runs of tiles for each tile of the other side, ascending and disjoint.
struct TileLists {
  std::vector<int64_t> offsets;  // count + 1
  std::vector<TileRun> runs;
  std::span<const TileRun> of(int64_t tile) const {
    return {runs.data() + offsets[tile], runs.data() + offsets[tile + 1]};
  }
};

struct Pass {
  Pattern terms;     // the terms of this pass
  Pattern excluded;  // the terms of earlier passes, whose pairs are not in this one
  TileGrid queries;
  TileGrid keys;
  TileLists rows;     // by query tile: key tiles
  TileLists columns;  // by key tile: query tiles; the exact transpose of rows, same full flags

  // Whether a pair of positions belongs to this pass.
  LONGSTRIDE_HOST_DEVICE bool allows(int64_t q, int64_t k) const {
    return terms.allows(q, k) && !excluded.allows(q, k);
  }
  // The same by compact indices; false for padding. This is the mask of a partial tile.
  LONGSTRIDE_HOST_DEVICE bool allows_index(int64_t query_index, int64_t key_index) const {
    const int64_t q = queries.order.position(query_index), k = keys.order.position(key_index);
    return q < queries.order.n && k < keys.order.n && allows(q, k);
  }
};

struct Plan {
  Pattern pattern;
  int64_t n = 0;
  std::vector<Pass> passes;
  int64_t pairs = 0;  // allowed (query, key) pairs, exactly
};

// Plans `pattern` (resolved for a head) over n positions with tiles of `query_tile` by `key_tile` indices. A
// tile is listed only if it holds an allowed pair of the pass, and marked full only if all its pairs are
// allowed and none is padding. A pass without pairs is left out; a pattern that allows nothing over n
// positions has no pass. Memory grows with the number of query tiles and of runs, and time with n; neither
// grows with n * n. There is one exception: where a later pass must leave out a stride or summary of an
// unrelated width, time may grow with a 64th of its pairs. A plan that would take more than half a minute is
// refused. Throws Error for that, and for n < 1 or tiles < 1.
Plan make_plan(const Pattern& pattern, int64_t n, int64_t query_tile, int64_t key_tile);

// Allowed pairs of `pattern` over n positions, without tiles.
int64_t count_pairs(const Pattern& pattern, int64_t n);

// The positions that q may look at, each once: in the order of the passes, ascending within a pass.
void keys_of(const Pattern& pattern, int64_t q, std::vector<int64_t>& keys);

}  // namespace longstride
